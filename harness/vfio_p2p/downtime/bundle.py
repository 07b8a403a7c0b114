# SPDX-License-Identifier: GPL-2.0-or-later
"""The breakdown of what a bundle holds."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from vfio_p2p.bundle.read import Bundle
from vfio_p2p.downtime.guest import guest_gap
from vfio_p2p.downtime.model import Beside, Breakdown, NotObservable
from vfio_p2p.downtime.phases import phases
from vfio_p2p.errors import BundleError
from vfio_p2p.verdict.migrations import timelines


class _UnevenError(BundleError, ValueError):
    """A blackout whose parts are not the whole: what `Breakdown` says of
    it, told from a bundle that cannot be read.
    """


class _Timestamp(msgspec.Struct):
    seconds: int
    microseconds: int


class _Message(msgspec.Struct):
    event: str = ""
    timestamp: _Timestamp | None = None


class _Line(msgspec.Struct):
    msg: _Message


def breakdown(bundle: Bundle) -> Breakdown:
    """Take the blackout of a run apart.

    :param bundle: What it left.
    :raise BundleError: When its scenario is damaged or newer than we are,
        or, as a ValueError, too, when its parts are not the whole.
    """
    try:
        return _breakdown(bundle)
    except ValueError as err:
        raise _UnevenError(
            f"{bundle.path}: {err}",
            "a mistake of ours; please report it, with the bundle",
        ) from err


def _breakdown(bundle: Bundle) -> Breakdown:
    source, destination = timelines(bundle)
    files = bundle.files
    found = phases(
        source,
        destination,
        Beside(
            qmp_downtime_ms=bundle.manifest.result.qmp_downtime_ms,
            stop_to_resume_ns=stop_to_resume_ns(
                files.get("source/qmp.jsonl", b""),
                files.get("destination/qmp.jsonl", b""),
            ),
        ),
    )
    gap = guest_gap(source, destination, found.blackout)
    if isinstance(gap, NotObservable):
        return replace(found, not_observable=(*found.not_observable, gap))
    return replace(found, beside=replace(found.beside, guest_gap=gap))


def stop_to_resume_ns(source: bytes, destination: bytes) -> int | None:
    """From the event STOP to the event RESUME, as management sees it.

    :param source: QMP transcript of the source.
    :param destination: That of the destination.
    :return: Nanoseconds; None when there were no such events.
    """
    resumed = _events(destination, "RESUME")
    if not resumed:
        return None
    stopped = [x for x in _events(source, "STOP") if x <= resumed[0]]
    return resumed[0] - stopped[-1] if stopped else None


def _events(transcript: bytes, name: str) -> list[int]:
    """Times of an event, nanoseconds since 1970, in order."""
    found = []
    for line in transcript.splitlines():
        # Most are no events, and what is no JSON was cut off.
        try:
            message = msgspec.json.decode(line, type=_Line).msg
        except (msgspec.DecodeError, RecursionError):
            continue
        at = message.timestamp
        if message.event == name and at is not None:
            found.append((at.seconds * 10**6 + at.microseconds) * 1000)
    return sorted(found)
