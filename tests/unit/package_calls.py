# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the package calls what only some of its modules may call."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import vfio_p2p

ROOT = Path(vfio_p2p.__file__).parent


def calls(path: Path, wanted: Callable[[ast.Call], bool]) -> Iterator[str]:
    """Yield the names of the functions that a module calls.

    :param path: The module.
    :param wanted: Chooses the calls.
    """
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and wanted(node):
            yield ast.unparse(node.func)


def check_calls(
    wanted: Callable[[ast.Call], bool], allowed: Mapping[str, str], use: str
) -> None:
    """See that calls occur where they are allowed, and nowhere else.

    :param wanted: Chooses the calls.
    :param allowed: The modules that may make them, and why.  A name that
        ends in a slash is that of a package.
    :param use: The module that others have to use.
    """
    used = set()
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        found = list(calls(path, wanted))
        if found:
            homes = [x for x in allowed if name == x or name.startswith(x)]
            home = max(homes, key=len, default="")
            assert home, f"{name} calls {found}: use {use}"
            used.add(home)
    assert used == set(allowed), "these are no longer needed"
