# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of simulated devices: lines of p2psim's attribute ``faults``.

images/p2psim/README.md describes their meaning.  They are checked here so
that a wrong line is found before anything runs.
"""

from __future__ import annotations

import re

from vfio_p2p import uapi

# The errors that p2psim knows by name.
ERRNOS = frozenset(
    {
        "EPERM", "EIO", "EAGAIN", "ENOMEM", "EFAULT", "EBUSY", "ENODEV",
        "EINVAL", "ENOTTY", "ENOSPC", "EOPNOTSUPP", "ETIMEDOUT",
    }
)  # fmt: skip
HANG_MAX_US = 3_600_000_000
_U32_MAX = (1 << 32) - 1
_NUMBER = re.compile(r"[0-9]{1,10}")

_FORMS = (
    "arc FROM TO N fail|error ERRNO",
    "arc FROM TO N hang|late MICROSECONDS",
    "save N corrupt OFFSET",
    "save N short BYTES",
    "reset N fail ERRNO",
    "report N short|late PAGES",
)


def _number(word: str, most: int, what: str) -> None:
    if not _NUMBER.fullmatch(word) or int(word) > most:
        raise ValueError(f"{word!r} is not {what}, 0 to {most}")


def _errno(word: str) -> None:
    if word not in ERRNOS:
        raise ValueError(f"{word!r} is not one of {', '.join(sorted(ERRNOS))}")


def _arc(before: str, after: str, flags: uapi.MigrationFlags) -> None:
    states = uapi.DeviceState.__members__
    if not (
        before in states
        and after in states
        and (states[before], states[after]) in uapi.arcs(flags)
    ):
        raise ValueError(
            f"{before} to {after} is not a single arc of this device"
        )


def check_fault(
    line: str, flags: uapi.MigrationFlags, size_bytes: int
) -> None:
    """Refuse a line that p2psim would refuse, or that can never strike.

    :param line: The line, e.g. ``arc PRE_COPY PRE_COPY_P2P 1 fail EIO``.
    :param flags: The migration flags of the device; 0 if it has no arcs.
    :param size_bytes: The size of the device's memory.
    :raise ValueError: When the line is wrong; says why.
    """
    words = line.split()
    if words[:1] in (["arc"], ["save"]) and not flags:
        raise ValueError(
            f"{line!r}: a device that cannot migrate has no such fault"
        )
    match words:
        case ["arc", before, after, nth, "fail" | "error", errno]:
            _arc(before, after, flags)
            _errno(errno)
        case ["arc", before, after, nth, "hang" | "late", microseconds]:
            _arc(before, after, flags)
            _number(microseconds, HANG_MAX_US, "microseconds")
        case ["save", nth, "corrupt", offset]:
            _number(offset, size_bytes - 1, "an offset")
        case ["save", nth, "short", count]:
            _number(count, _U32_MAX, "bytes")
        case ["reset", nth, "fail", errno]:
            _errno(errno)
        case ["report", nth, "short" | "late", count]:
            _number(count, _U32_MAX, "pages")
        case _:
            raise ValueError(f"{line!r} is none of: {'; '.join(_FORMS)}")
    _number(nth, _U32_MAX, "a count of tries")
