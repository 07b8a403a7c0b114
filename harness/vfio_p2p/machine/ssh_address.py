# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host is, as users write it."""

from __future__ import annotations

import re

import msgspec

from vfio_p2p.errors import UsageError

_FORM = re.compile(
    r"(?:(?P<user>.+)@)?"
    r"(?:\[(?P<bracketed>[^][]+)\]|(?P<bare>[^][:]+))"
    r"(?::(?P<port>[^:]*))?"
)
_PORTS = range(1, 65536)


class SshAddress(msgspec.Struct, frozen=True):
    """Where a host is.

    :param host: A name of the SSH configuration or the network, or an
        address.
    :param user: The user; empty for the SSH configuration's, or ours.
    :param port: The port; None for the SSH configuration's, or 22.
    """

    host: str
    user: str = ""
    port: int | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{user}{host}{port}"


def parse_address(text: str) -> SshAddress:
    """Parse ``[USER@]HOST[:PORT]``.

    An IPv6 address with a port is written ``[ADDRESS]:PORT``.

    :param text: What the user wrote.
    :raise UsageError: When it is no such thing.
    """
    user, at, place = text.rpartition("@")
    if place.count(":") > 1 and not set("[]") & set(place):
        # An IPv6 address without a port.
        found = {"user": user, "bare": place}
    else:
        match = _FORM.fullmatch(text)
        found = match.groupdict(default="") if match else {}
    host = found.get("bracketed") or found.get("bare") or ""
    user = found.get("user", "")
    port = found.get("port", "")
    for part in (host, user):
        # An option of ssh starts with "-"; no host does.
        if re.search(r"[\s\x00-\x1f\x7f]", part) or part.startswith("-"):
            host = ""
    ported = place.endswith(":") or bool(port)
    valid = port.isascii() and port.isdecimal() and int(port) in _PORTS
    if not host or (at and not user) or (ported and not valid):
        raise UsageError(
            f"{text!r} is no host: it has to be [USER@]HOST[:PORT]",
            "Write, for example, root@10.0.0.1, root@[fe80::1]:22, or a name "
            "of your SSH configuration.",
        )
    return SshAddress(host, user, int(port) if port else None)
