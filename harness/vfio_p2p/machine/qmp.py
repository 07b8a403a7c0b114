# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP session that keeps a transcript."""

from __future__ import annotations

import json
import time
from typing import IO

from qemu.qmp import Message, QMPClient


class TranscribedClient(QMPClient):
    """A `QMPClient` that writes down every message of both directions.

    The transcript has one JSON document per line: ``{"time_ns": N, "dir":
    "<-" or "->", "msg": {...}}``.  ``->`` marks a message that we sent.
    The time is CLOCK_REALTIME, the clock of QEMU's trace logs.

    :param name: A nickname of the session, e.g. the side.
    :param transcript: The file to write to; it must stay open as long as the
        session.
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
