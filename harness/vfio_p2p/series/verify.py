# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether each patch applies to a tree, and is in QEMU's style."""

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


class State(StrEnum):
    """What becomes of a patch on a tree."""

    APPLIES = "applies"
    APPLIED = "already applied"
    CONFLICTS = "conflicts"


@dataclass(frozen=True)
class Style:
    """What checkpatch.pl says of a patch.

    :param errors: How many errors.
    :param warnings: How many warnings.
    :param lines: Its words, a line for each.
    """

    errors: int
    warnings: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """One patch, verified.

    :param patch: The patch.
    :param state: What becomes of it after those before it.
    :param conflict: Which file and hunk does not apply, and why.
    :param style: What checkpatch.pl says.
    """

    patch: Patch
    state: State
    conflict: PatchError | None
    style: Style

    @property
    def good(self) -> bool:
        """Whether there is nothing to complain of."""
        clean = not (self.style.errors or self.style.warnings)
        return clean and self.state is not State.CONFLICTS


def verify(tree: Folder, base: Base) -> list[Verified]:
    """Try every patch of a base, one after another; the tree stays.

    A patch that conflicts is left out for those after it, which may
    conflict for want of it.

    :param tree: QEMU, in any state between source and whole series.
    :param base: Whose patches.
    :raise PatchError: When a patch is malformed: no tree could take it.
    :raise MissingToolError: When perl or git is missing.
    :raise SourceError: When checkpatch.pl does not work.
    """
    for patch in base.sequence:
        check_patch(patch)
    count = applied_count(tree, base)
    changed: Overlay = Overlay(tree, {})
    results = []
    for number, patch in enumerate(base.sequence):
        state, conflict = State.APPLIED, None
        if number >= count:
            state, conflict, changed = _try(changed, patch)
        style = run_checkpatch(tree, patch)
        results.append(Verified(patch, state, conflict, style))
    return results


def _try(
    tree: Overlay, patch: Patch
) -> tuple[State, PatchError | None, Overlay]:
    try:
        changes = apply_patches(tree, [patch])
    except PatchError as error:
        if _takes(tree, patch):
            return State.APPLIED, None, tree
        return State.CONFLICTS, error, tree
    merged = {**tree.changes, **changes}
    return State.APPLIES, None, Overlay(tree.below, merged)


def _takes(tree: Tree, patch: Patch) -> bool:
    """Whether the patch can be taken out: somebody picked it alone."""
    try:
        apply_patches(tree, [patch], reverse=True)
    except PatchError:
        return False
    return True


def run_checkpatch(tree: Folder, patch: Patch) -> Style:
    """Run the tree's own checkpatch.pl on a patch.

    :raise MissingToolError: When perl is missing.
    :raise SourceError: When the script is missing, or fails.
    """
    if not (tree.root / CHECKPATCH).is_file():
        raise SourceError(
            f"{tree.root} has no {CHECKPATCH}",
            "take a checkout, or a release as QEMU publishes it",
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
    # Of a clean patch --terse says nothing.
    if result.returncode == 0 and not result.stdout:
        return Style(0, 0, ())
    said = (result.stderr or result.stdout).decode(errors="replace")
    raise SourceError(
        f"{tree.root / CHECKPATCH} failed on {patch.name}: "
        f"{next(iter(said.splitlines()), 'it gave no reason')}"
    )
