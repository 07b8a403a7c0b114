# SPDX-License-Identifier: GPL-2.0-or-later
"""Git work trees: their revision, their local changes, ``git am``."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import MissingToolError, SourceError
from vfio_p2p.series.patch import Patch

# The line with which `git format-patch` begins a mail.
MAIL_START = b"From " + b"0" * 40 + b" Mon Sep 17 00:00:00 2001\n"

# Git sets these variables for hooks, and they override the folder in "-C".
_ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)


# A log or a status of a large tree on a slow disk takes a minute.
_LIMIT_S = 900

# What git would run because the tree's own configuration says so.  Each of
# those that it names is set to nothing, and these in any case.
_INERT = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
)
_PROGRAMS = (
    r"^(core\.(sshcommand|gitproxy|askpass|editor|pager|alternaterefscommand)"
    r"|credential\.(.*\.)?helper|diff\.external"
    r"|diff\..*\.(command|textconv)|filter\..*\.(clean|smudge|process)"
    r"|gpg\.(.*\.)?program|merge\..*\.driver"
    r"|remote\..*\.(uploadpack|receivepack|vcs))$"
)
_FILTER = re.compile(r"(filter\..*)\.\w+", re.DOTALL)

_REPAIR = "Repair the repository, or use a copy of the tree without it."


@dataclass(frozen=True)
class Revision:
    """A state of a work tree.

    :param commit: The commit, followed by ``+`` when files differ from it.
    :param time_s: The time of the commit, in seconds since the epoch.
    """

    commit: str
    time_s: int


def revision_of(root: Path) -> Revision | None:
    """Return the revision of a work tree; None if it is not git's.

    :param root: The top of the work tree.
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
    """Return all commits of a repository, each after its ancestors.

    :raise SourceError: When git fails.
    """
    result = run_git(root, "rev-list", "--topo-order", "--reverse", "--all")
    if result.returncode:
        raise SourceError(f"{root}: {reason(result.stderr)}", _REPAIR)
    return _text(result.stdout).split()


def local_changes(root: Path) -> list[str]:
    """Return the files of a work tree that differ from its last commit.

    Untracked files do not count, as no patch overwrites them.

    :param root: Any folder; outside of a work tree, no file differs.
    :raise SourceError: When git fails.
    """
    result = run_git(
        root, "status", "--porcelain", "--untracked-files=no", "--", "."
    )
    if result.returncode == 0:
        return [x[3:] for x in _text(result.stdout).splitlines()]
    if (root / ".git").exists():
        raise SourceError(f"{root}: {reason(result.stderr)}", _REPAIR)
    return []


def commit_patches(root: Path, patches: Sequence[Patch]) -> None:
    """Turn patches into commits with ``git am``, all of them or none.

    :param root: The top of a work tree without local changes.
    :param patches: The patches, each a mail, in order.
    :raise SourceError: When the folder is no such work tree, or git refuses
                        a patch; the branch is then where it was.
    """
    if not (root / ".git").exists():
        raise SourceError(
            f"{root} is not a git work tree",
            "Leave out --am to change only the files.",
        )
    under_way = root / _text(
        run_git(root, "rev-parse", "--git-path", "rebase-apply").stdout
    ).strip()
    if under_way.exists():
        raise SourceError(
            f"{root}: a 'git am' or 'git rebase' is in progress",
            "Finish it or abort it.",
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
            "The branch has not moved. Leave out --am to change only the "
            "files.",
        )


def git_environment() -> dict[str, str]:
    """Return an environment in which git uses the folder that it is given."""
    kept = {x: y for x, y in os.environ.items() if x not in _ELSEWHERE}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


def git(root: Path, *arguments: str) -> list[str]:
    """Return a command line of git that runs no program of the tree's.

    Hooks, a file system monitor, and filters and other programs that the
    repository's own configuration names are left out.  What the user's
    configuration names counts.

    :param root: The folder that git works in.
    :raise MissingToolError: When git is not installed.
    """
    told = _run(
        [
            "git", "-C", str(root), "config", "--null", "--show-scope",
            "--get-regexp", _PROGRAMS,
        ],
        b"",
    )  # fmt: skip
    parts = told.stdout.decode(errors="surrogateescape").split("\0")
    names = {
        entry.partition("\n")[0]
        for scope, entry in zip(parts[::2], parts[1::2], strict=False)
        if scope in ("local", "worktree")
    }
    filters = {mark[1] for x in names if (mark := _FILTER.fullmatch(x))}
    options = [
        *_INERT,
        *(f"{x}=" for x in sorted(names)),
        *(f"{x}.required=false" for x in sorted(filters)),
    ]
    given = [word for one in options for word in ("-c", one)]
    return ["git", "-C", str(root), *given, *arguments]


def run_git(
    root: Path, *arguments: str, data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder; see `git`.

    :param root: The folder.
    :param data: The standard input.
    :raise MissingToolError: When git is not installed.
    :raise SourceError: When it takes too long.
    """
    return _run(git(root, *arguments), data)


def _run(
    argv: Sequence[str], data: bytes
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            argv,
            input=data,
            env=git_environment(),
            capture_output=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except FileNotFoundError as error:
        raise MissingToolError("git", "git") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"{argv[2]}: git did not end within {_LIMIT_S} s", _REPAIR
        ) from error


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def reason(message: bytes) -> str:
    """Return git's error message without the hints around it."""
    lines = _text(message).splitlines() or ["git gave no reason"]
    for line in lines:
        kind, colon, rest = line.partition(": ")
        if colon and kind in ("fatal", "error"):
            return rest
    return lines[0]
