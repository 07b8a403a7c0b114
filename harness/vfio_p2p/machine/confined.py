# SPDX-License-Identifier: GPL-2.0-or-later
"""Running programs that come from somebody else's tree.

What a tree builds or checks with runs with the rights of the user, as
docs/trust.md says.  What it does not need is taken from it here.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_KEPT = ("PATH", "HOME", "TMPDIR")


def without_network(argv: Sequence[str | Path]) -> list[str]:
    """Return a command line whose program has no network, if that works here.

    It needs user namespaces, or root's rights to make a network namespace.

    :param argv: Program and arguments.
    :raise FileNotFoundError: When the program is not in ``PATH``, as
                              `subprocess` would report.
    """
    command = [str(x) for x in argv]
    check_program(command[0])
    return [*_prefix(), *command]


def check_program(program: str, path: str | None = None) -> None:
    """See that a program is there, before another one is to start it.

    :param program: Its name, or its path, which is not checked.
    :param path: The ``PATH`` of the child, if it differs from ours.
    :raise FileNotFoundError: When it is not there.
    """
    if "/" not in program and shutil.which(program, path=path) is None:
        raise FileNotFoundError(
            errno.ENOENT, os.strerror(errno.ENOENT), program
        )


def plain_environment(
    more: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Return an environment that has only what a build or a check needs.

    :param more: What the program needs besides.
    """
    kept = {x: os.environ[x] for x in _KEPT if x in os.environ}
    return kept | {"LC_ALL": "C.UTF-8"} | dict(more or {})


@cache
def _prefix() -> tuple[str, ...]:
    # By its whole path, since the child's PATH may lack it.
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    root = (unshare, "--net", "--")
    user = (unshare, "--user", "--map-current-user", "--net", "--")
    for prefix in (root, user) if os.geteuid() == 0 else (user,):
        tried = subprocess.run(
            [*prefix, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if not tried.returncode:
            return prefix
    return ()
