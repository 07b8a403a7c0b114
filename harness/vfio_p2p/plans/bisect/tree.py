# SPDX-License-Identifier: GPL-2.0-or-later
"""A work tree of somebody's repository that leaves no trace in it.

Git keeps what bisecting is about (``refs/bisect``, ``BISECT_LOG``) apart for
each work tree (git-worktree(1)): the user's own, a bisection in it included,
is not touched, and everything goes with ours.
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

# The user's hooks are for the user's work.
NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")

_TREE = "tree"
_HASH_DIGITS = 16


@dataclass(frozen=True)
class Checkout:
    """A work tree of ours.

    :param home: A folder that is ours as well.
    """

    home: Path

    @property
    def tree(self) -> Path:
        """Top of the work tree."""
        return self.home / _TREE

    def git(self, *arguments: str) -> str:
        """Run git in it.

        :raise SourceError: When git fails.
        """
        return ask(self.tree, *NO_HOOKS, *arguments)

    def go_to(self, commit: str) -> None:
        """Check a commit out.

        :raise SourceError: When git cannot.
        """
        self.git("checkout", "--quiet", "--detach", commit)


def ask(root: Path, *arguments: str) -> str:
    """What git answers, without the last newline.

    :param root: Folder to run it in.
    :raise SourceError: When git fails.
    """
    result = run_git(root, *arguments)
    if result.returncode:
        raise SourceError(
            f"{root}: git: {reason(result.stderr)}",
            "see what git says of it by hand",
        )
    return result.stdout.decode(errors="replace").rstrip("\n")


def commit_of(repository: Path, name: str) -> str:
    """Full name of a commit.

    :raise UsageError: When there is no such commit.
    """
    result = run_git(
        repository, "rev-parse", "--verify", "--quiet", "--end-of-options",
        f"{name}^{{commit}}",
    )
    if result.returncode:
        raise UsageError(
            f"{repository} has no commit {name!r}",
            "name one as git does: a tag, a branch, a hash",
        )
    return result.stdout.decode().strip()


@contextmanager
def checkout(
    repository: Path, commit: str, waiting: Callable[[], None]
) -> Iterator[Checkout]:
    """Have a work tree of a repository; it is gone afterwards.

    It has the same place every time: what was built from it last time is
    where the next build goes on.

    :param repository: Anywhere in the user's repository.
    :param commit: What to check out.
    :param waiting: Called once if another process has it.
    :raise SourceError: When git cannot make one.
    """
    common = ask(
        repository, "rev-parse", "--path-format=absolute", "--git-common-dir"
    )
    digest = hashlib.sha256(os.fsencode(common)).hexdigest()
    made = Checkout(cache_dir() / "bisect" / digest[:_HASH_DIGITS])
    lock = made.home.with_name(f"{made.home.name}.lock")
    with exclusive(lock, waiting):
        try:
            # One that was killed could not put it away.
            _remove(repository, made)
            made.home.mkdir(parents=True)
            ask(
                repository, *NO_HOOKS, "worktree", "add", "--quiet",
                "--detach", str(made.tree), commit,
            )
            _bring_subprojects(repository, made.tree)
            yield made
        finally:
            with _undisturbed():
                _remove(repository, made)


def _remove(repository: Path, made: Checkout) -> None:
    # Ten thousand files take their time. What concerns the user goes first.
    if made.tree.exists():
        made.tree.rename(made.home / "removed")
    # It fails when there is none, which is as good. Not by "prune": that
    # would forget the user's own on a disk that is not there now.
    run_git(
        repository, "worktree", "remove", "--force", "--force",
        str(made.tree),
    )
    remove_tree(made.home)


def _bring_subprojects(repository: Path, tree: Path) -> None:
    """Copy what meson has fetched into the user's work tree, if anything.

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
    """Who presses Ctrl-C twice shall not find half of it left."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
