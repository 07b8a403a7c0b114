# SPDX-License-Identifier: GPL-2.0-or-later
"""Running programs that come from somebody else's tree.

What a tree builds or checks with runs with the rights of the user; docs/
trust.md says so.  What it does not need is taken from it here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_KEPT = ("PATH", "HOME", "TMPDIR")


def without_network(argv: Sequence[str | Path]) -> list[str]:
    """Return a command line whose program has no network, if that works here.

    It needs user namespaces, or root's rights to make a network namespace.

    :param argv: Program and arguments.
    """
    return [*_prefix(), *map(str, argv)]


def plain_environment(
    more: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Return an environment with nothing that a build or a check can need not.

    :param more: What the program needs besides.
    """
    kept = {x: os.environ[x] for x in _KEPT if x in os.environ}
    return kept | {"LC_ALL": "C.UTF-8"} | dict(more or {})


@cache
def _prefix() -> tuple[str, ...]:
    root = ("unshare", "--net", "--")
    user = ("unshare", "--user", "--map-current-user", "--net", "--")
    for prefix in (root, user) if os.geteuid() == 0 else (user,):
        try:
            tried = subprocess.run(
                [*prefix, "true"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            break
        if not tried.returncode:
            return prefix
    return ()
