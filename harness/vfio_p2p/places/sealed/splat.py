# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors that a kernel with checks has found in itself or its drivers.

Each of them begins with a line that is known by its words; see Linux's
lib/bug.c, mm/kasan/report.c, kernel/locking/lockdep.c, lib/ubsan.c,
mm/kmemleak.c and kernel/hung_task.c.
"""

from __future__ import annotations

import re
from pathlib import Path

from vfio_p2p.errors import TestbedError
from vfio_p2p.trace import printable

_SPLAT = re.compile(
    r"\b(?:BUG: |KASAN: |UBSAN: |Oops: |WARNING: (?!.*\bnot enabled\b)"
    r"|Kernel panic|general protection fault|INFO: task .* blocked"
    r"|kmemleak: (?:\d+ new suspected|.*\bdisabled)|ODEBUG: |refcount_t: "
    r"|list_(?:add|del) corruption|sleeping function called)"
)
_SHOWN = 5


def splats(console: str, expected: str = "") -> tuple[str, ...]:
    """Return the first lines of errors on a kernel's console.

    :param console: The text of the console.
    :param expected: A text in the lines that are expected.
    :return: At most five of them.
    """
    found = (
        x
        for x in console.splitlines()
        if _SPLAT.search(x) and not (expected and expected in x)
    )
    return tuple(printable(x.strip()) for x in found)[:_SHOWN]


def check_console(path: Path) -> None:
    """See that a kernel has found no error in itself or in its drivers.

    :param path: The file of its console.
    :raise TestbedError: When it has.
    """
    if found := splats(path.read_text(errors="replace")):
        raise TestbedError(
            f"the testbed's kernel has found an error: {found[0]}",
            "This is no error of QEMU; please report it.",
        )
