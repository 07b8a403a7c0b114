# SPDX-License-Identifier: GPL-2.0-or-later
"""Variants: which patches a tree has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import UsageError
from vfio_p2p.series.base import Base
from vfio_p2p.series.patch import Patch


@dataclass(frozen=True)
class Variant:
    """A tree: what is applied to a source, in order.

    :param name: ``stock`` (the source as it is), ``base``, ``patch-1``
                 and so on, ``patched`` (the whole series), each
                 possibly followed by ``+`` and the name of a mutant or a
                 follow-up.
    :param patches: What is applied.
    """

    name: str
    patches: tuple[Patch, ...]


def parse_variant(base: Base, text: str) -> Variant:
    """Find a variant by name; what is on top may be a path, too.

    :param base: The base that it is a variant of.
    :param text: E.g. ``patched+main-before-prepare``.
    :raise UsageError: When there is no such variant.
    :raise PatchError: When a patch cannot be read.
    """
    tree, plus, on_top = text.partition("+")
    known = ["stock"]
    if base.patches:
        known.append("base")
        known += [f"patch-{n + 1}" for n in range(len(base.patches))]
        known.append("patched")
    if tree not in known:
        raise UsageError(
            f"unknown variant {tree!r}",
            f"known variants: {', '.join(known)}",
        )
    # The last patch makes the whole series: two names, one variant.
    if tree == f"patch-{len(base.patches)}":
        tree = "patched"
    if tree == "stock":
        patches: tuple[Patch, ...] = ()
    elif tree == "base":
        patches = base.pre
    elif tree == "patched":
        patches = base.pre + base.patches
    else:
        count = int(tree.removeprefix("patch-"))
        patches = base.pre + base.patches[:count]
    if not plus:
        return Variant(tree, patches)
    path = _find_on_top(base, on_top)
    return Variant(f"{tree}+{path.stem}", (*patches, Patch.load(path)))


def _find_on_top(base: Base, name: str) -> Path:
    folders = (base.mutants, base.followups)
    if re.fullmatch(r"[\w-]+", name):
        for folder in folders:
            path = folder / f"{name}.patch"
            if path.is_file():
                return path
    elif Path(name).is_file():
        return Path(name)
    mutants, followups = (
        ", ".join(sorted(x.stem for x in folder.glob("*.patch"))) or "none"
        for folder in folders
    )
    raise UsageError(
        f"unknown mutant {name!r}",
        f"known mutants: {mutants}; follow-ups: {followups}; "
        "or give the path of a patch file",
    )
