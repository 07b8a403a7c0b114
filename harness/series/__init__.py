# SPDX-License-Identifier: GPL-2.0-or-later
"""The series as data: bases, variants, patches, and applying them."""

from harness.series.apply import Tree, apply_patches
from harness.series.base import (
    Base,
    base_for,
    default_base,
    find_base,
    load_bases,
)
from harness.series.mutant import Mutant, load_mutants
from harness.series.patch import Patch
from harness.series.variant import Variant, parse_variant

__all__ = [
    "Base",
    "Mutant",
    "Patch",
    "Tree",
    "Variant",
    "apply_patches",
    "base_for",
    "default_base",
    "find_base",
    "load_bases",
    "load_mutants",
    "parse_variant",
]
