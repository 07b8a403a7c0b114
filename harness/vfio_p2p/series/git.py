# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees that git looks after."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import MissingToolError, SourceError
from vfio_p2p.series.patch import Patch

# What `git format-patch` begins a mail with.
MAIL_START = b"From " + b"0" * 40 + b" Mon Sep 17 00:00:00 2001\n"

# Hooks run with these, and they win over the folder that we name.
_ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)


@dataclass(frozen=True)
class Revision:
    """A state of a work tree.

    :param commit: Its commit; with ``+`` when files differ from that.
    :param time_s: When it was committed, seconds of Unix time.
    """

    commit: str
    time_s: int


def revision_of(root: Path) -> Revision | None:
    """The revision of a work tree; None when git does not look after it.

    :param root: Its top.
    """
    if not (root / ".git").exists():
        return None
    result = run_git(root, "log", "-1", "--format=%H %ct")
    commit, _, time_s = _text(result.stdout).strip().partition(" ")
    if result.returncode or not commit:
        return None
    changed = "+" if local_changes(root) else ""
    return Revision(f"{commit}{changed}", int(time_s))


def in_order(root: Path) -> list[str]:
    """All commits of a repository, each after its ancestors.

    :raise SourceError: When git cannot say.
    """
    result = run_git(root, "rev-list", "--topo-order", "--reverse", "--all")
    if result.returncode:
        raise SourceError(f"{root}: {reason(result.stderr)}")
    return _text(result.stdout).split()


def local_changes(root: Path) -> list[str]:
    """Files of a work tree that differ from its last commit.

    Files that git does not know are no changes: no patch overwrites them.

    :param root: Any folder; outside of git there are none.
    :raise SourceError: When git cannot say.
    """
    result = run_git(
        root, "status", "--porcelain", "--untracked-files=no", "--", "."
    )
    if result.returncode == 0:
        return [x[3:] for x in _text(result.stdout).splitlines()]
    if (root / ".git").exists():
        raise SourceError(f"{root}: {reason(result.stderr)}")
    return []


def commit_patches(root: Path, patches: Sequence[Patch]) -> None:
    """Make commits of patches with ``git am``, all or none.

    :param root: The top of a work tree without local changes.
    :param patches: Mails, in order.
    :raise SourceError: When it is no such tree, or git refuses one; the
                        branch is then where it was.
    """
    if not (root / ".git").exists():
        raise SourceError(
            f"{root} is no git work tree", "leave out --am to change files"
        )
    under_way = root / _text(
        run_git(root, "rev-parse", "--git-path", "rebase-apply").stdout
    ).strip()
    if under_way.exists():
        raise SourceError(
            f"{root}: a 'git am' or 'git rebase' is under way",
            "finish it or abort it",
        )
    mails = b"".join(
        (b"" if x.data.startswith(b"From ") else MAIL_START) + x.data + b"\n"
        for x in patches
    )
    try:
        result = run_git(root, "am", "--quiet", "--no-3way", data=mails)
    finally:
        stopped = under_way.exists()
        if stopped:
            run_git(root, "am", "--abort")
    if result.returncode or stopped:
        raise SourceError(
            f"{root}: git am: {reason(result.stderr)}",
            "the branch is where it was; without --am only files change",
        )


def git_environment() -> dict[str, str]:
    """The environment in which git looks at the folder that we name."""
    kept = {x: y for x, y in os.environ.items() if x not in _ELSEWHERE}
    return kept | {"LC_ALL": "C"}


def run_git(
    root: Path, *arguments: str, data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder.

    :param root: The folder.
    :param data: For its stdin.
    :raise MissingToolError: When there is no git.
    """
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            input=data,
            env=git_environment(),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingToolError("git", "git") from error


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def reason(message: bytes) -> str:
    """What git said is wrong; hints come before and after it."""
    lines = _text(message).splitlines() or ["git gave no reason"]
    for line in lines:
        kind, colon, rest = line.partition(": ")
        if colon and kind in ("fatal", "error"):
            return rest
    return lines[0]
