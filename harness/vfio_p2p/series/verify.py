# SPDX-License-Identifier: GPL-2.0-or-later
"""Check whether each patch applies to a tree and is in QEMU's style."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vfio_p2p.errors import MissingToolError, PatchError, SourceError
from vfio_p2p.machine.confined import plain_environment, without_network
from vfio_p2p.series.apply import Tree, apply_patches, check_patch
from vfio_p2p.series.base import Base
from vfio_p2p.series.fit import applied_count
from vfio_p2p.series.patch import Patch
from vfio_p2p.series.tree import Folder, Overlay

CHECKPATCH = "scripts/checkpatch.pl"
# A patch of a thousand lines takes a second.
_LIMIT_S = 120


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


def verify(tree: Folder, base: Base, script: Path) -> list[Verified]:
    """Try every patch of a base, in order, without changing the tree.

    The patches after one that conflicts are tried without it, so they may
    conflict because it is missing.

    :param tree: QEMU, with all, some or none of the patches applied.
    :param base: The base that has the patches.
    :param script: The checkpatch.pl to run.
    :raise PatchError: When a patch is malformed, so that it cannot apply to
                       any tree.
    :raise MissingToolError: When perl or git is missing.
    :raise SourceError: When checkpatch.pl fails.
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
        style = run_checkpatch(script, tree, patch)
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


def checkpatch_of(root: Path) -> Path:
    """Return the checkpatch.pl of a QEMU.

    :param root: The folder of the tree.
    :raise SourceError: When it has none.
    """
    script = root / CHECKPATCH
    if not script.is_file():
        raise SourceError(
            f"{root} has no {CHECKPATCH}",
            "Give a git checkout of QEMU, or a release as QEMU publishes it.",
        )
    return script


def run_checkpatch(script: Path, tree: Folder, patch: Patch) -> Style:
    """Run checkpatch.pl on a patch.

    :param script: The script, which has all rights of this process.
    :param tree: The tree that the patch is for.
    :raise MissingToolError: When perl is missing.
    :raise SourceError: When the script fails, or takes too long.
    """
    try:
        result = subprocess.run(
            without_network(
                ["perl", str(script), "--color=never", "--terse", "-"]
            ),
            cwd=tree.root,
            input=patch.data,
            env=plain_environment(),
            capture_output=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except FileNotFoundError as error:
        raise MissingToolError("perl", "perl") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"{script} did not end within {_LIMIT_S} s on {patch.name}",
            "Check that it is QEMU's.",
        ) from error
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
        f"{script} failed on {patch.name}: "
        f"{next(iter(said.splitlines()), 'it gave no reason')}",
        f"Run 'perl {script} FILE' in {tree.root} to see why.",
    )
