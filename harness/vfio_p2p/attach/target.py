# SPDX-License-Identifier: GPL-2.0-or-later
"""How a user names a QEMU that runs already."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vfio_p2p.errors import UsageError

_FORMS = (
    "Name it by its QMP socket (/run/vm.sock), a TCP address (tcp:HOST:PORT), "
    "its process (pid:N) or its libvirt domain (domain:NAME)."
)


class TargetKind(StrEnum):
    """What names a QEMU."""

    UNIX = "unix"
    TCP = "tcp"
    PID = "pid"
    DOMAIN = "domain"


@dataclass(frozen=True)
class Target:
    """A QEMU, as the user names it.

    :param kind: What names it.
    :param value: The path of a socket, ``HOST:PORT``, the number of a
        process, or the name of a domain.
    """

    kind: TargetKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def parse_target(text: str) -> Target:
    """Read the name of a QEMU.

    :param text: ``[unix:]PATH``, ``tcp:HOST:PORT``, ``[pid:]N`` or
        ``domain:NAME``.
    :raise UsageError: When it is none of these.
    """
    kind, colon, value = text.partition(":")
    if not colon or kind not in list(TargetKind):
        kind, value = TargetKind.UNIX, text
        if text.isascii() and text.isdigit():
            kind = TargetKind.PID
        elif "/" not in text:
            raise UsageError(f"{text!r} names no QEMU", _FORMS)
    found = Target(TargetKind(kind), value)
    match found.kind:
        case TargetKind.TCP:
            host, _, port = value.rpartition(":")
            right = bool(host) and port.isascii() and port.isdigit()
        case TargetKind.PID:
            right = value.isascii() and value.isdigit() and int(value) > 0
        case _:
            right = bool(value) and "\0" not in value
    if not right:
        raise UsageError(f"{text!r} names no QEMU", _FORMS)
    return found
