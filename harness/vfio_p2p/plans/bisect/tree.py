# SPDX-License-Identifier: GPL-2.0-or-later
"""A work tree of somebody's repository that leaves no trace in it.

Git keeps the state of a bisection (``refs/bisect``, ``BISECT_LOG``) separately
for each work tree (git-worktree(1)).  Hence, the user's own work tree stays as
it is, even if a bisection is in progress there, and the state of our bisection
is removed together with our work tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.machine.files import exclusive, remove_tree
from vfio_p2p.paths import cache_dir
from vfio_p2p.series.git import reason, run_git

_TREE = "tree"
_HASH_DIGITS = 16


@dataclass(frozen=True)
class Checkout:
    """The work tree in which a bisection takes place.

    :param home: The folder that contains it, and nothing of the user's.
    """

    home: Path

    @property
    def tree(self) -> Path:
        """The top of the work tree."""
        return self.home / _TREE

    def git(self, *arguments: str) -> str:
        """Run git in the work tree.

        :raise SourceError: When git fails.
        """
        return ask(self.tree, *arguments)

    def go_to(self, commit: str) -> None:
        """Check a commit out.

        :raise SourceError: When git fails.
        """
        self.git("checkout", "--quiet", "--detach", commit)


def ask(root: Path, *arguments: str) -> str:
    """Return what git prints, without the last newline.

    :param root: The folder in which git runs.
    :raise SourceError: When git fails.
    """
    result = run_git(root, *arguments)
    if result.returncode:
        raise SourceError(
            f"{root}: git: {reason(result.stderr)}",
            "Run git by hand in that folder to see the cause.",
        )
    return result.stdout.decode(errors="replace").rstrip("\n")


def commit_of(repository: Path, name: str) -> str:
    """Return the full hash of a commit.

    :raise UsageError: When there is no such commit.
    """
    result = run_git(
        repository, "rev-parse", "--verify", "--quiet", "--end-of-options",
        f"{name}^{{commit}}",
    )
    if result.returncode:
        raise UsageError(
            f"{repository} has no commit {name!r}",
            "Name a commit by a tag, a branch or a hash, as for git.",
        )
    return result.stdout.decode().strip()


@contextmanager
def checkout(
    repository: Path, commit: str, waiting: Callable[[], None]
) -> Iterator[Checkout]:
    """Make a work tree of a repository, and remove it afterwards.

    Its path is the same every time, so that the next build can continue from
    the files of the last one.

    :param repository: Any folder in the user's repository.
    :param commit: The commit to check out.
    :param waiting: Called once if another process uses the work tree.
    :raise SourceError: When git cannot make the work tree.
    """
    common = ask(
        repository, "rev-parse", "--path-format=absolute", "--git-common-dir"
    )
    digest = hashlib.sha256(os.fsencode(common)).hexdigest()
    made = Checkout(cache_dir() / "bisect" / digest[:_HASH_DIGITS])
    lock = made.home.with_name(f"{made.home.name}.lock")
    with exclusive(lock, waiting):
        try:
            # A process that was killed has not removed its work tree.
            _remove(repository, made)
            made.home.mkdir(parents=True)
            ask(
                repository, "worktree", "add", "--quiet",
                "--detach", str(made.tree), commit,
            )
            _bring_subprojects(repository, made.tree)
            yield made
        finally:
            with _undisturbed():
                _remove(repository, made)


def _remove(repository: Path, made: Checkout) -> None:
    # Removing ten thousand files takes time, so they are removed last: the
    # entry in the user's repository matters more.
    if made.tree.exists():
        made.tree.rename(made.home / "removed")
    # This fails if there is no work tree, which does no harm. "prune" is not
    # used: it would also forget the user's work trees on absent disks.
    run_git(
        repository, "worktree", "remove", "--force", "--force",
        str(made.tree),
    )
    remove_tree(made.home)


def _bring_subprojects(repository: Path, tree: Path) -> None:
    """Copy the subprojects that meson has fetched into the user's tree.

    Git ignores these folders, and a build must not need a network.
    """
    inside = run_git(repository, "rev-parse", "--show-toplevel")
    if inside.returncode:
        return              # a bare repository
    top = Path(os.fsdecode(inside.stdout.rstrip(b"\n")))
    for wrap in tree.glob("subprojects/*.wrap"):
        fetched = top / "subprojects" / wrap.stem
        mine = wrap.with_suffix("")
        if fetched.is_dir() and not mine.exists():
            shutil.copytree(fetched, mine, symlinks=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C, so that a second one leaves no half-removed tree."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
