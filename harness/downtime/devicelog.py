# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated devices' own logs, as a witness of their requests.

The format is described in images/p2psim/README.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.uapi import DeviceState

_HEAD = b"p2psim-log version=1 clock=CLOCK_REALTIME\n"
_LINE = re.compile(
    rb"(?P<time>\d{1,19}) (?:request from=\w{1,32} to=\w{1,32}"
    rb"|result to=\w{1,32} state=(?P<state>\w{1,32}) ret=-?\d{1,10})"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as the device saw it.

    :param reached: The state that it was in afterwards.
    :param start_ns: When it arrived, nanoseconds since 1970.
    :param end_ns: When it was over.
    """

    reached: DeviceState
    start_ns: int
    end_ns: int


def requests(log: bytes) -> tuple[Request, ...]:
    """All requests of a device, in the order of its log.

    :param log: The log; one that is not of version 1 has none.
    """
    if not log.startswith(_HEAD):
        return ()
    found = []
    start_ns = None
    for line in log.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        if match["state"] is None:
            start_ns = int(match["time"])
            continue
        state = DeviceState.__members__.get(match["state"].decode())
        if state is not None and start_ns is not None:
            found.append(Request(state, start_ns, int(match["time"])))
        start_ns = None
    return tuple(found)
