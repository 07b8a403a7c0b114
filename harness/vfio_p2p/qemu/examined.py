# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU that was not built here has to say before it is run.

These functions take what QEMU has printed, wherever it was started.
"""

from __future__ import annotations

import re

# The first release whose migrations can be judged.
OLDEST = (8, 1)

# The events without which no order of states can be seen.
EVENTS = ("vfio_vmstate_change", "vm_state_notify", "migrate_set_state")

_VERSION = re.compile(r"QEMU emulator version (\d{1,4})\.(\d{1,4})(?!\d)")
# The first release with the event VFIO_MIGRATION.
EVENTS_SINCE = (9, 1)
# Said by a QEMU whose trace backends write no file (trace/control.c).
NO_FILE = "not supported by the selected tracing backends"
# Only a QEMU that writes events to its log has this item (util/log.c).
_LOG_ITEM = "trace:"


def version_line(said: str) -> tuple[str, tuple[int, int]] | None:
    """Find QEMU's version in what ``--version`` prints.

    :param said: What it prints.
    :return: The line and the release; None if that is no QEMU.
    """
    # The loader or a sanitizer may warn of something first.
    for line in map(str.strip, said.splitlines()):
        if (found := _VERSION.match(line)) and line.isprintable():
            return line, (int(found[1]), int(found[2]))
    return None


def writes_log(items: str) -> bool:
    """Return whether a QEMU writes trace events to its log.

    :param items: What ``-d help`` prints.
    """
    return _LOG_ITEM in items


def unseen(events: str) -> str:
    """Say which events a trace would lack that no verdict can do without.

    :param events: What ``-trace help`` prints.
    :return: What the QEMU lacks, a clause; empty if it lacks nothing.
    """
    names = set(events.split())
    missing = [x for x in EVENTS if x not in names]
    return f"has no trace event {', '.join(missing)}" if missing else ""


def blindness(items: str, events: str) -> str:
    """Say why a log would show nothing of a run.

    :param items: What ``-d help`` prints.
    :param events: What ``-trace help`` prints.
    :return: What the QEMU lacks, a clause; empty if it lacks nothing.
    """
    if not writes_log(items):
        return "was built without the trace backend 'log'"
    return unseen(events)
