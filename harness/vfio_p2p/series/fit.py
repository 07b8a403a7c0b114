# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tree has of the series, and which base is for it."""

from __future__ import annotations

from enum import StrEnum

from vfio_p2p.errors import PatchError, SourceError
from vfio_p2p.series.apply import Tree, apply_patches
from vfio_p2p.series.base import Base, base_for, load_bases
from vfio_p2p.series.tree import Folder

_RUNSTATE = ("include/system/runstate.h", "include/sysemu/runstate.h")
_VFIO = ("hw/vfio/common.c", "hw/vfio/migration.c")

# What patches 2, 3, 5 and 6 add for others to use or to see. The names
# and the places hold for QEMU 8.1 to 10.2 (8.2 has the series first).
_FACTS = (
    ("qemu_add_vm_change_state_handler_prio_full(", _RUNSTATE),
    ("qdev_add_vm_change_state_handler_full(", _RUNSTATE),
    ("vfio_vmstate_change_prepare(", ("hw/vfio/trace-events",)),
    ("support P2P migration", _VFIO),
)


class Level(StrEnum):
    """How much of the series a tree has, in whatever form."""

    BASE = "has none of the series"
    PARTLY = "has parts of the series"
    SERIES = "has the series"


def recognise(tree: Tree) -> Level:
    """Look for what the series adds, whoever wrote it.

    That is the same in ours and in what QEMU has since 8.2, so a tree
    of any version can be told.
    """
    found = [
        any(
            text.encode() in tree.read(path)
            for path in paths
            if tree.kind_of(path) in ("f", "x")
        )
        for text, paths in _FACTS
    ]
    if all(found):
        return Level.SERIES
    return Level.PARTLY if any(found) else Level.BASE


def applied_count(tree: Tree, base: Base) -> int:
    """How many patches of `Base.sequence` a tree has already.

    Later patches change what earlier ones made, so it is the longest
    row of them that can be taken out again, from its end.
    """
    for count in range(len(base.sequence), 0, -1):
        try:
            apply_patches(
                tree, reversed(base.sequence[:count]), reverse=True
            )
        except PatchError:
            continue
        return count
    return 0


def fitting_base(tree: Folder) -> Base:
    """The base for a tree, by its version and by its files.

    :raise SourceError: When no base is for its version, or its files are
                        not what the base is for.
    """
    bases = [x for x in load_bases() if x.covers(tree.version)]
    if not bases and recognise(tree) is Level.SERIES:
        raise stock_error(tree)
    if not bases:
        return base_for(tree.version)
    for base in bases:
        why = misfit(tree, base)
        if why is None:
            return base
    raise SourceError(
        f"{tree.root} says that it is QEMU {tree.version}, but is neither "
        f"what base {base.name} is for nor that with its patches: {why}",
        f"'vfio-p2p series verify {tree.root}' tries every patch",
    )


def misfit(tree: Tree, base: Base) -> str | None:
    """What of a tree is not as a base expects; None if it fits."""
    if not base.sequence:
        level = recognise(tree)
        return None if level is Level.SERIES else f"it {level}"
    try:
        apply_patches(tree, base.sequence[:1])
    except PatchError as error:
        return None if applied_count(tree, base) else error.what
    return None


def stock_error(tree: Folder) -> SourceError:
    """The error for a tree that needs no patches, and for which are none."""
    return SourceError(
        f"{tree.root} is QEMU {tree.version}, which has the series already "
        "(stock): there is nothing to apply",
        f"'vfio-p2p validate --source {tree.root} --variant stock' judges "
        "it as it is",
    )
