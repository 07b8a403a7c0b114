# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of simulated devices: lines of p2psim's attribute ``faults``.

Their meaning is described in images/p2psim/README.md; here they are only
checked, so that a wrong one is found before anything runs.
"""

from __future__ import annotations

import re

from vfio_p2p import uapi

# Those that p2psim knows by name.
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

    :param line: Such as ``arc PRE_COPY PRE_COPY_P2P 1 fail EIO``.
    :param flags: What the device offers; 0 is a device without arcs.
    :param size_bytes: The memory of the device.
    :raise ValueError: When it is wrong; says why.
    """
    words = line.split()
    if words[:1] in (["arc"], ["save"]) and not flags:
        raise ValueError(f"{line!r}: a device that cannot migrate has none")
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
        case _:
            raise ValueError(f"{line!r} is none of: {'; '.join(_FORMS)}")
    _number(nth, _U32_MAX, "a count of tries")
