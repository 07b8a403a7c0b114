# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the host that know more than sysfs says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vfio_p2p.agent.roots import Roots

_LIMIT_S = 20


@dataclass(frozen=True)
class Ran:
    """What a program did.

    :param status: Its exit code; None when it did not run or did not end.
    :param stdout: What it printed.
    :param error: Its last line on stderr, or why it did not run.
    """

    status: int | None
    stdout: str
    error: str

    @property
    def ok(self) -> bool:
        """Whether it ran and succeeded."""
        return self.status == 0

    def table(self, *keys: str) -> dict[str, Any]:
        """Return a table of the JSON that it printed; empty if none.

        :param keys: The keys that lead to the table.
        """
        found = self._json()
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def items(self) -> list[dict[str, Any]]:
        """Return the tables of the JSON list that it printed."""
        found = self._json()
        if not isinstance(found, list):
            return []
        return [x for x in found if isinstance(x, dict)]

    def _json(self) -> Any:
        try:
            return json.loads(self.stdout)
        except ValueError:
            return None


def ran(argv: Sequence[str], limit_s: float = _LIMIT_S) -> Ran:
    """Run a program that only looks.

    :param argv: Program and arguments.
    :param limit_s: How long it may take.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(None, "", f"no answer within {limit_s:g} s")
    except OSError as err:
        return Ran(None, "", err.strerror or str(err))
    lines = done.stderr.decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return Ran(
        done.returncode,
        done.stdout.decode(errors="replace"),
        said[-1] if said else "",
    )


def candidates(name: str, roots: Roots) -> list[str]:
    """Return the paths of all programs of a name.

    :param name: The program's name.
    :param roots: Where root's programs are.
    """
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = [
        shutil.which(name, path=folder)
        for folder in (*folders, *roots.tools)
        if folder
    ]
    return list(dict.fromkeys(path for path in found if path))


def find(name: str, roots: Roots) -> str:
    """Return the path of a program; "" if there is none."""
    return next(iter(candidates(name, roots)), "")


def iproute2(name: str, roots: Roots) -> tuple[str, str]:
    """Return the path and the version of a program of iproute2.

    Programs of other makers may have the same name, such as busybox's
    ``ip``.

    :param name: The program's name.
    :param roots: Where root's programs are.
    :return: Two empty texts if there is none.
    """
    for path in candidates(name, roots):
        told = re.search(r"iproute2-(?:ss)?([0-9][^\s,]*)",
                         ran([path, "-V"]).stdout)
        if told:
            return path, told[1]
    return "", ""
