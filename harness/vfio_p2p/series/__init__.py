# SPDX-License-Identifier: GPL-2.0-or-later
"""The series as data: bases, variants and patches, and how they apply."""

from vfio_p2p.series.apply import (
    Changes,
    Tree,
    apply_patches,
    check_patch,
)
from vfio_p2p.series.base import (
    Base,
    base_for,
    default_base,
    find_base,
    load_bases,
    nearest_base,
    stock_base,
)
from vfio_p2p.series.fit import (
    SeriesLevel,
    applied_count,
    fitting_base,
    recognise,
)
from vfio_p2p.series.followup import Followup, load_followups
from vfio_p2p.series.mutant import Mutant, load_mutants
from vfio_p2p.series.patch import Patch
from vfio_p2p.series.tree import Folder, open_folder
from vfio_p2p.series.variant import Variant, parse_variant

__all__ = [
    "Base",
    "Changes",
    "Folder",
    "Followup",
    "Mutant",
    "Patch",
    "SeriesLevel",
    "Tree",
    "Variant",
    "applied_count",
    "apply_patches",
    "base_for",
    "check_patch",
    "default_base",
    "find_base",
    "fitting_base",
    "load_bases",
    "load_followups",
    "load_mutants",
    "nearest_base",
    "open_folder",
    "parse_variant",
    "recognise",
    "stock_base",
]
