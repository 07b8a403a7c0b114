# SPDX-License-Identifier: GPL-2.0-or-later
"""Check whether each patch applies to a tree and is in QEMU's style."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from enum import StrEnum

from vfio_p2p.errors import MissingToolError, PatchError, SourceError
from vfio_p2p.series.apply import Tree, apply_patches, check_patch
from vfio_p2p.series.base import Base
from vfio_p2p.series.fit import applied_count
from vfio_p2p.series.patch import Patch
from vfio_p2p.series.tree import Folder, Overlay

CHECKPATCH = "scripts/checkpatch.pl"


class PatchState(StrEnum):
    """How a patch relates to a tree."""

    APPLIES = "applies"
    APPLIED = "already applied"
    CONFLICTS = "conflicts"


@dataclass(frozen=True)
class Style:
    """The verdict of checkpatch.pl on a patch.

    :param errors: The number of errors.
    :param warnings: The number of warnings.
    :param lines: The messages, one line each.
    """

    errors: int
    warnings: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """The result of verifying one patch.

    :param patch: The patch.
    :param state: How it relates to the tree with the patches before it.
    :param conflict: The file and the hunk that do not apply, and why; None
                     if there is no conflict.
    :param style: The verdict of checkpatch.pl.
    """

    patch: Patch
    state: PatchState
    conflict: PatchError | None
    style: Style

    @property
    def good(self) -> bool:
        """Whether the patch does not conflict and its style is clean."""
        clean = not (self.style.errors or self.style.warnings)
        return clean and self.state is not PatchState.CONFLICTS


def verify(tree: Folder, base: Base) -> list[Verified]:
    """Try every patch of a base, in order, without changing the tree.

    The patches after one that conflicts are tried without it, so they may
    conflict because it is missing.

    :param tree: QEMU, with all, some or none of the patches applied.
    :param base: The base that has the patches.
    :raise PatchError: When a patch is malformed, so that it cannot apply to
                       any tree.
    :raise MissingToolError: When perl or git is missing.
    :raise SourceError: When checkpatch.pl is missing or fails.
    """
    for patch in base.sequence:
        check_patch(patch)
    count = applied_count(tree, base)
    changed: Overlay = Overlay(tree, {})
    results = []
    for number, patch in enumerate(base.sequence):
        state, conflict = PatchState.APPLIED, None
        if number >= count:
            state, conflict, changed = _try(changed, patch)
        style = run_checkpatch(tree, patch)
        results.append(Verified(patch, state, conflict, style))
    return results


def _try(
    tree: Overlay, patch: Patch
) -> tuple[PatchState, PatchError | None, Overlay]:
    try:
        changes = apply_patches(tree, [patch])
    except PatchError as error:
        if _contains(tree, patch):
            return PatchState.APPLIED, None, tree
        return PatchState.CONFLICTS, error, tree
    merged = {**tree.changes, **changes}
    return PatchState.APPLIES, None, Overlay(tree.below, merged)


def _contains(tree: Tree, patch: Patch) -> bool:
    """Return whether the tree contains the patch, e.g. cherry-picked."""
    try:
        apply_patches(tree, [patch], reverse=True)
    except PatchError:
        return False
    return True


def run_checkpatch(tree: Folder, patch: Patch) -> Style:
    """Run the tree's own checkpatch.pl on a patch.

    :raise MissingToolError: When perl is missing.
    :raise SourceError: When the script is missing or fails.
    """
    if not (tree.root / CHECKPATCH).is_file():
        raise SourceError(
            f"{tree.root} has no {CHECKPATCH}",
            "Give a git checkout of QEMU, or a release as QEMU publishes it.",
        )
    try:
        result = subprocess.run(
            ["perl", CHECKPATCH, "--color=never", "--terse", "-"],
            cwd=tree.root,
            input=patch.data,
            env=os.environ | {"LC_ALL": "C"},
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingToolError("perl", "perl") from error
    lines = result.stdout.decode(errors="replace").split("\n")
    for line in lines:
        match = re.match(r"total: (\d+) errors, (\d+) warnings", line)
        if match:
            words = (x for x in lines if x and x != line)
            return Style(int(match[1]), int(match[2]), tuple(words))
    # With --terse, the script prints nothing about a clean patch.
    if result.returncode == 0 and not result.stdout:
        return Style(0, 0, ())
    said = (result.stderr or result.stdout).decode(errors="replace")
    raise SourceError(
        f"{tree.root / CHECKPATCH} failed on {patch.name}: "
        f"{next(iter(said.splitlines()), 'it gave no reason')}",
        f"Run 'perl {CHECKPATCH} FILE' in that tree to see why.",
    )
