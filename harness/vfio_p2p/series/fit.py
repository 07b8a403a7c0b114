# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of the series a tree contains, and which base fits it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from vfio_p2p.errors import PatchError, SourceError
from vfio_p2p.series.apply import Tree, apply_patches
from vfio_p2p.series.base import Base, base_for, load_bases
from vfio_p2p.series.tree import Folder

_RUNSTATE = ("include/system/runstate.h", "include/sysemu/runstate.h")
_VFIO = ("hw/vfio/common.c", "hw/vfio/migration.c")

# Visible additions of patches 2, 3, 5 and 6, and the files that have them.
# These hold for QEMU 8.1 to 10.2; 8.2 is the first with the series.
_FACTS = (
    ("qemu_add_vm_change_state_handler_prio_full(", _RUNSTATE),
    ("qdev_add_vm_change_state_handler_full(", _RUNSTATE),
    ("vfio_vmstate_change_prepare(", ("hw/vfio/trace-events",)),
    ("support P2P migration", _VFIO),
)


class SeriesLevel(StrEnum):
    """How much of the series a tree contains, whoever wrote it."""

    BASE = "has none of the series"
    PARTLY = "has parts of the series"
    SERIES = "has the series"


def recognise(tree: Tree) -> SeriesLevel:
    """Return how much of the series a tree contains.

    The series of this project and the one in QEMU since 8.2 add the same
    names, so a tree of any version can be recognised.
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
        return SeriesLevel.SERIES
    return SeriesLevel.PARTLY if any(found) else SeriesLevel.BASE


def applied_count(tree: Tree, base: Base) -> int:
    """Return how many patches of `Base.sequence` a tree contains already.

    Later patches change lines that earlier ones added.  Hence, the answer
    is the longest run of first patches that can be reverted, last one
    first.
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


def fitting_base(tree: Folder, folder: Path | None = None) -> Base:
    """Return the base that fits a tree's version and files.

    :param tree: The tree.
    :param folder: The folder of patches; by default the project's own.
    :raise SourceError: When no base is for the tree's version, or the
                        tree's files differ from those that the base is for.
    """
    bases = [x for x in load_bases(folder) if x.covers(tree.version)]
    if not bases and recognise(tree) is SeriesLevel.SERIES:
        raise stock_error(tree)
    if not bases:
        return base_for(tree.version, folder)
    for base in bases:
        why = misfit(tree, base)
        if why is None:
            return base
    raise SourceError(
        f"{tree.root} says that it is QEMU {tree.version}, but base "
        f"{base.name} does not fit it, with or without its patches: {why}",
        f"Run 'vfio-p2p series verify {tree.root}' to try every patch.",
    )


def misfit(tree: Tree, base: Base) -> str | None:
    """Return why a base does not fit a tree; None if it fits."""
    if not base.sequence:
        level = recognise(tree)
        return None if level is SeriesLevel.SERIES else f"it {level}"
    try:
        apply_patches(tree, base.sequence[:1])
    except PatchError as error:
        return None if applied_count(tree, base) else error.what
    return None


def stock_error(tree: Folder) -> SourceError:
    """Return the error for a tree that contains upstream's series."""
    return SourceError(
        f"{tree.root} is QEMU {tree.version}, which has the series already "
        "(stock): there is nothing to apply",
        f"Run 'vfio-p2p validate --source {tree.root} --variant stock' to "
        "judge the tree as it is.",
    )
