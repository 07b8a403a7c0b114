# SPDX-License-Identifier: GPL-2.0-or-later
"""What the QMP transcripts of a run tell about its downtime."""

from __future__ import annotations

import msgspec

from vfio_p2p.foreign import NOT_JSON


class _Timestamp(msgspec.Struct):
    seconds: int
    microseconds: int


class _Message(msgspec.Struct):
    event: str = ""
    timestamp: _Timestamp | None = None


class _Answer(msgspec.Struct):
    status: str
    expected: int = msgspec.field(name="expected-downtime")


class _Returned(msgspec.Struct):
    answer: _Answer = msgspec.field(name="return")


class _AnswerLine(msgspec.Struct):
    msg: _Returned


class _Line(msgspec.Struct):
    msg: _Message


def stop_to_resume_ns(
    source: bytes, destination: bytes, offset_ns: int = 0
) -> int | None:
    """Measure from the event STOP to the event RESUME, as management does.

    Each event has a time of the QEMU that sent it.

    :param source: QMP transcript of the source.
    :param destination: QMP transcript of the destination.
    :param offset_ns: The clock of the destination's host minus that of the
        source's.
    :return: Nanoseconds, or None if one of the events is missing.
    """
    resumed = [x - offset_ns for x in _events(destination, "RESUME")]
    if not resumed:
        return None
    stopped = [x for x in _events(source, "STOP") if x <= resumed[0]]
    return resumed[0] - stopped[-1] if stopped else None


def expected_downtime_ms(source: bytes) -> int | None:
    """Return the downtime that QEMU expected last before it stopped the VM.

    :param source: QMP transcript of the source.
    :return: Milliseconds, or None if QEMU was not asked in precopy.
    """
    found = None
    for line in source.splitlines():
        try:
            answer = msgspec.json.decode(line, type=_AnswerLine).msg.answer
        except NOT_JSON:
            continue
        if answer.status == "active":
            found = answer.expected
    return found


def _events(transcript: bytes, name: str) -> list[int]:
    """Return the times of an event, in nanoseconds since 1970, in order."""
    found = []
    for line in transcript.splitlines():
        # Most lines are no events, and a line that is no JSON was cut off.
        try:
            message = msgspec.json.decode(line, type=_Line).msg
        except NOT_JSON:
            continue
        at = message.timestamp
        if message.event == name and at is not None:
            found.append((at.seconds * 10**6 + at.microseconds) * 1000)
    return sorted(found)
