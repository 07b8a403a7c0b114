# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP session that keeps a transcript."""

from __future__ import annotations

import json
import time
from typing import IO

from qemu.qmp import Message, QMPClient


class TranscribedClient(QMPClient):
    """`QMPClient` that writes down every message, both ways.

    The transcript has one JSON document a line: ``{"time_ns": N, "dir":
    "<-" or "->", "msg": {...}}``, ``->`` being what we sent and time_ns
    CLOCK_REALTIME, the clock of QEMU's trace logs.

    :param name: Nickname of the session, e.g. the side.
    :param transcript: Where to; stays open as long as the session.
    """

    def __init__(self, name: str, transcript: IO[str]) -> None:
        super().__init__(name)
        self._transcript = transcript

    def _note(self, direction: str, msg: Message) -> None:
        entry = {
            "time_ns": time.time_ns(),
            "dir": direction,
            "msg": dict(msg),
        }
        self._transcript.write(json.dumps(entry) + "\n")
        self._transcript.flush()

    def _cb_inbound(self, msg: Message) -> Message:
        self._note("<-", msg)
        return super()._cb_inbound(msg)

    def _cb_outbound(self, msg: Message) -> Message:
        self._note("->", msg)
        return super()._cb_outbound(msg)
