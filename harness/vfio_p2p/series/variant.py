# SPDX-License-Identifier: GPL-2.0-or-later
"""Variants: the patches that make a tree out of a source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import UsageError
from vfio_p2p.names import suggest
from vfio_p2p.series.base import Base
from vfio_p2p.series.patch import Patch
from vfio_p2p.variant import (
    SERIES_LENGTH,
    STOCK,
    is_as_it_is,
    parse_tree,
)


@dataclass(frozen=True)
class Variant:
    """A tree: the patches that are applied to a source, in order.

    :param name: See `vfio_p2p.variant.parse_tree`.
    :param patches: The patches.
    """

    name: str
    patches: tuple[Patch, ...]


def parse_variant(base: Base, text: str) -> Variant:
    """Return a variant of a base.

    :param base: The base.
    :param text: The name of the variant, e.g. ``patched+one-pass``, or
                 ``patched+PATH`` with the path of a patch file.
    :raise UsageError: When the base has no such variant.
    :raise PatchError: When a patch cannot be read.
    """
    name = parse_tree(text, len(base.patches) or SERIES_LENGTH)
    if is_as_it_is(name.tree):
        raise UsageError(
            f"the variant {name.tree!r} is not built",
            "It is the QEMU that the hosts of a place have. Give it to "
            "'run', 'validate' or 'compare', with --at PLACE.",
        )
    if name.tree != STOCK and not base.patches:
        raise UsageError(
            f"base {base.name} has no variant {name.tree!r}",
            "Use the variant 'stock': that QEMU contains the series already.",
        )
    patches: tuple[Patch, ...] = ()
    if name.tree != STOCK:
        patches = base.pre + base.patches[: name.patches]
    if not name.on_top:
        return Variant(name.tree, patches)
    path = _find_on_top(base, name.on_top)
    return Variant(f"{name.tree}+{path.stem}", (*patches, Patch.load(path)))


def _find_on_top(base: Base, name: str) -> Path:
    """Return the patch file of a mutant or a follow-up, or that path."""
    folders = (base.mutants, base.followups)
    if re.fullmatch(r"[\w-]+", name):
        for folder in folders:
            path = folder / f"{name}.patch"
            if path.is_file():
                return path
    elif Path(name).is_file():
        return Path(name)
    known = [x.stem for folder in folders for x in folder.glob("*.patch")]
    raise UsageError(
        f"unknown mutant or follow-up {name!r}",
        f"{suggest(name, known, 'vfio-p2p series list')}  "
        "The path of a patch file will do as well.",
    )
