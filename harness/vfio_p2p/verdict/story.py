# SPDX-License-Identifier: GPL-2.0-or-later
"""How a migration ended, how far it came, and what QEMU said.

This is told of logs from anywhere, whatever the verdict is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vfio_p2p.downtime.metrics import activity
from vfio_p2p.downtime.model import Beside, Breakdown
from vfio_p2p.downtime.phases import phases
from vfio_p2p.oracle import Judgement
from vfio_p2p.oracle.evidence import QEMU_SAID, partners, regular_end
from vfio_p2p.timeline import Timeline
from vfio_p2p.timeline.logs import LoggedMigration
from vfio_p2p.trace import Kind, Record, printable, words
from vfio_p2p.uapi import SAVING_STATES, DeviceState

_S = DeviceState
_MOST_WORDS = 8
_EXPLAINS = re.compile(
    r"error|fail|unable|cannot|can't|could not|couldn't|refus|abort|block"
    r"|invalid|reset|broken|timed? ?out|assert|not support|disabled|denied",
    re.IGNORECASE,
)
_MORE_THAN = 0.01

NOTHING_BESIDE = Beside()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a migration ended.

    :param word: ``completed``, ``cancelled``, ``failed``, ``not ended``, or
        empty if none began.
    :param sentence: The same, with how far it came.
    """

    word: str
    sentence: str

    @property
    def completed(self) -> bool:
        """Whether it came to its end."""
        return self.word == "completed"


def ending(migration: LoggedMigration) -> Ended:
    """Tell how a migration ended, and how far it came.

    :param migration: What the logs show of it.
    """
    source: Timeline | None = migration.source
    destination = migration.destination
    if destination is None and _loads(migration.source):
        # The only log is that of a destination.
        source, destination = None, migration.source
    word = _word(source, destination)
    if not word:
        return Ended("", "no migration began in this log")
    told = [f"the migration {_VERBS[word]}"]
    if source is not None:
        told[0] += _precopy(source)
        # Without devices, the log is not read for what the VM does.
        if not source.devices:
            pass
        elif not _stopped(source):
            told.append("the VM was never stopped for it")
        elif word != "completed":
            told.append("the VM had been stopped for it")
    elif destination is not None and not _ran(destination):
        told.append("the VM was never started on the destination")
    if word != "completed":
        told += [
            x
            for side in (source, destination)
            if side is not None
            for x in _far(side)
        ]
        if source is not None:
            told += _initial(source)
    return Ended(word, "; ".join(told))


_VERBS = {
    "completed": "was completed",
    "cancelled": "was cancelled",
    "failed": "failed",
    "not ended": "did not end in this log",
}


def _loads(side: Timeline) -> bool:
    reached = {arc.reached for arc in side.arcs}
    return _S.RESUMING in reached and not reached & SAVING_STATES


def _word(source: Timeline | None, destination: Timeline | None) -> str:
    for side in (source, destination):
        if side is None or not side.migrations:
            continue
        # A destination waits in "setup" until there is a source.
        if side is destination and source is not None and not side.devices:
            continue
        last = side.migrations[-1]
        if last.end is not None:
            return str(last.end.fields["status"])
        told = [str(x.fields["status"]) for x in side.marks_of(Kind.STATUS)]
        if told[-1] in ("cancelling", "failing"):
            return "cancelled" if told[-1] == "cancelling" else "failed"
        return "not ended"
    # The migration's own state was not traced: the devices tell.
    if source is not None:
        reached = {arc.reached for arc in source.arcs}
        if reached & SAVING_STATES:
            done = source.marks_of(Kind.COMPLETE)
            cleaned = source.marks_of(Kind.SAVE_CLEANUP)
            if done and cleaned:
                return "completed"
            return "failed" if cleaned else "not ended"
    if destination is not None and _loads(destination):
        return "completed" if _ran(destination) else "not ended"
    return ""


def _ran(destination: Timeline) -> bool:
    return all(
        any(
            arc.before is not None
            and arc.reached in (_S.RUNNING, _S.RUNNING_P2P)
            for arc in destination.arcs_of(device)
        )
        for device in destination.devices
    )


def _begin(source: Timeline) -> int:
    """Return the line where the last migration begins."""
    if source.migrations:
        return source.migrations[-1].begin.line
    saving = [x.line for x in source.arcs if x.requested in SAVING_STATES]
    return min(saving, default=0)


def _stopped(source: Timeline) -> bool:
    """Return whether the VM was stopped after the last migration began."""
    begin = _begin(source)
    notices = [
        x.notify.line if x.notify else x.steps[0].record.line
        for x in source.epochs
        if not x.running
    ]
    end = source.migrations[-1:]
    limit = end[0].end.line if end and end[0].end else None
    # A stop after the end is none of the migration's.
    return any(
        begin < line and (limit is None or line < limit) for line in notices
    )


def _precopy(source: Timeline) -> str:
    """Tell how long the source was in precopy."""
    begin = _begin(source)
    first = next(
        (
            arc.records[-1].time_ns
            for arc in source.arcs
            if arc.reached is _S.PRE_COPY and arc.line >= begin
        ),
        None,
    )
    stops = [
        (x.notify or x.steps[0].record).time_ns
        for x in source.epochs
        if not x.running and x.steps[0].record.line > begin
    ]
    last = source.migrations[-1:]
    if last and last[0].end is not None:
        stops.append(last[0].end.time_ns)
    known = [x for x in stops if x is not None]
    if first is not None and known:
        return f", after {(min(known) - first) / 1e9:.3f} s in precopy"
    return ""


def _far(side: Timeline) -> Iterator[str]:
    """Tell how far the devices came, and where they are."""
    order = (
        _S.PRE_COPY, _S.PRE_COPY_P2P, _S.STOP_COPY, _S.RESUMING,
    )  # fmt: skip
    groups: dict[tuple[str, str], list[str]] = {}
    for device in side.devices:
        reached = [x.reached for x in side.arcs_of(device)]
        far = [x.name for x in order if x in reached]
        end = side.end.get(device)
        key = far[-1] if far else "", end.name if end is not None else ""
        groups.setdefault(key, []).append(printable(device))
    for (far_name, end_name), names in groups.items():
        if far_name:
            where = f", and ended in {end_name}" if end_name else ""
            if end_name == far_name:
                where = ", and stayed there"
            yield (
                f"{' and '.join(names)} came as far as {far_name} on the "
                f"{side.side}{where}"
            )


def _initial(source: Timeline) -> Iterator[str]:
    """Tell whose initial bytes never fell, which holds up a switchover."""
    for device, amount in source.amounts.items():
        if amount.initial_bytes is None:
            continue
        first, last = amount.initial_bytes
        if last and last >= first:
            yield (
                f"the initial bytes of {printable(device)} never fell: "
                f"{_mib(last)} were left to send"
            )


def quotes(migration: LoggedMigration) -> list[tuple[Timeline, Record]]:
    """Return what QEMU said that may explain how a migration ended.

    :param migration: What the logs show of it.
    """
    found = [
        (side, record)
        for side in migration.sides
        for record in side.marks_of(Kind.MESSAGE, Kind.REMARK)
        if _EXPLAINS.search(record.text)
        and not regular_end(side, record)
        and ": warning: " not in record.text
    ]
    return found[-_MOST_WORDS:]


def explain(
    migration: LoggedMigration,
    judgement: Judgement,
    beside: Beside = NOTHING_BESIDE,
) -> str:
    """Tell a migration in one paragraph.

    :param migration: What the logs show of it.
    :param judgement: What the oracle says of it.
    :param beside: What is known of it from elsewhere.
    """
    return " ".join(_sentences(migration, judgement, beside))


def _sentences(
    migration: LoggedMigration, judgement: Judgement, beside: Beside
) -> Iterator[str]:
    source, destination = migration.source, migration.destination
    ended = ending(migration)
    names = [printable(x) for x in source.plugged or source.devices]
    if names:
        count = "one device" if len(names) == 1 else f"{len(names)} devices"
        what = "a migration" if ended.word else "the log"
        yield f"This is {what} of {count}, {_listed(names)}."
    yield f"{ended.sentence[0].upper()}{ended.sentence[1:]}."
    if destination is not None:
        parts = phases(source, destination)
        yield from _times(parts)
        yield from _data(source, destination)
    yield from _reported(source)
    yield from _downtime(beside)
    said = [
        f"“{printable(words.without_prefix(x.text))}” ({side.side})"
        for side, x in quotes(migration)
    ]
    if said:
        yield f"QEMU said {_listed(said)}."
    yield _verdict(judgement)


def _verdict(judgement: Judgement) -> str:
    text = f"The verdict is {judgement.verdict}"
    broken = list(dict.fromkeys(x.rule for x in judgement.findings))
    if broken:
        verb = "is" if len(broken) == 1 else "are"
        return f"{text}: {_listed(broken)} {verb} broken."
    why = [x.message for x in judgement.notes if x.message != QEMU_SAID]
    if why:
        return f"{text}, because {why[0]}."
    if judgement.notes:
        return f"{text}, because of what QEMU said."
    return f"{text}."


def _times(parts: Breakdown) -> Iterator[str]:
    whole_ns = parts.blackout.duration_ns
    if whole_ns is None:
        yield f"The blackout is unknown: {parts.blackout.note}."
        return
    yield (
        f"No device ran for {_ms(whole_ns)}, from the first request to stop "
        "one on the source until the last one ran on the destination."
    )
    lengths = [
        (x.name, x.duration_ns)
        for x in parts.phases
        if x.duration_ns > _MORE_THAN * whole_ns
    ]
    lengths.sort(key=lambda x: -x[1])
    if lengths:
        each = [f"{name} took {_ms(ns)}" for name, ns in lengths]
        yield f"Of its phases, {_listed(each)}."
    sums: Counter[tuple[str, str]] = Counter()
    for link in parts.critical_path:
        if link.interval is not None:
            key = printable(link.interval.device), activity(link.interval)
            sums[key] += link.end_ns - link.start_ns
    waited = [
        f"{_ms(ns)} for {what} of {device}"
        for (device, what), ns in sums.most_common()
        if ns > _MORE_THAN * whole_ns
    ]
    if waited:
        yield f"It waited {_listed(waited)}."


def _data(source: Timeline, destination: Timeline) -> Iterator[str]:
    told = []
    for device, partner in partners(source, destination):
        written = source.amounts.get(device)
        loaded = destination.amounts.get(partner)
        if written and written.blocks:
            text = f"{_mib(written.written_bytes)} of {printable(device)}"
            if loaded and loaded.loads:
                text += f" ({_mib(loaded.loaded_bytes)} loaded)"
            told.append(text)
    if told:
        yield f"The source wrote {_listed(told)}."


def _reported(source: Timeline) -> Iterator[str]:
    """Compare what devices reported to be left with what came."""
    for device, amount in source.amounts.items():
        if amount.pending_bytes is None or not amount.blocks_after:
            continue
        yield (
            f"The last time that QEMU asked, {printable(device)} reported "
            f"{_size(amount.pending_bytes)} to be left; "
            f"{_size(amount.bytes_after)} were written after that."
        )


def _downtime(beside: Beside) -> Iterator[str]:
    expected, came = beside.expected_downtime_ms, beside.qmp_downtime_ms
    if expected is not None and came is not None:
        yield (
            f"QEMU expected a downtime of {expected} ms when it was last "
            f"asked in precopy, and reports one of {came} ms."
        )
    elif came is not None:
        yield f"QEMU reports a downtime of {came} ms."


def amounts(
    migration: LoggedMigration,
) -> list[dict[str, str | int | None]]:
    """Return what each device wrote and loaded, as plain values.

    :param migration: What the logs show of it.
    """
    return [
        {
            "side": str(side.side),
            "device": printable(device),
            "written_bytes": x.written_bytes if x.blocks else None,
            "loaded_bytes": x.loaded_bytes if x.loads else None,
            "pending_bytes": x.pending_bytes,
            "written_after_bytes": None
            if x.pending_bytes is None
            else x.bytes_after,
        }
        for side in migration.sides
        for device, x in side.amounts.items()
    ]


def _listed(texts: Sequence[str] | Iterable[str]) -> str:
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def _ms(duration_ns: int) -> str:
    return f"{duration_ns / 1e6:.3f} ms"


def _size(size_bytes: int) -> str:
    if size_bytes < 1 << 20:
        return f"{size_bytes / 1024:.1f} KiB"
    return _mib(size_bytes)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"


