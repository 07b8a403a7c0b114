# SPDX-License-Identifier: GPL-2.0-or-later
"""From a bundle, or from the logs of real hosts, to a run of a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from vfio_p2p.bundle.provenance import HostProvenance
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.downtime import Breakdown
from vfio_p2p.downtime.logs import HostRun, read_host_run
from vfio_p2p.oracle import Criteria, Finding, judge
from vfio_p2p.report.lanes import first_ns, lanes, marks, pairs
from vfio_p2p.report.run import (
    BlackoutPart,
    BrokenRule,
    DeviceCount,
    GuestAbsence,
    LogLine,
    PathPiece,
    Run,
    Unseen,
)
from vfio_p2p.scenario.model import Device
from vfio_p2p.scenario.profile import latencies
from vfio_p2p.side import Side
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import LogEntry
from vfio_p2p.verdict.assess import Assessment, assess
from vfio_p2p.verdict.reading import RunReading, read_run
from vfio_p2p.verdict.story import ending

# The variant and the scenario of a run that is only known by its logs.
LOGS = "logs"
HOST_LOGS = "logs of real hosts"


def run_of(
    bundle: Bundle,
    assessment: Assessment | None = None,
    *,
    reading: RunReading | None = None,
    path: str | None = None,
    tree: str = "",
) -> Run:
    """Take from a bundle what reports show.

    :param bundle: The bundle.
    :param assessment: The assessment of the bundle; by default it is
        assessed here.
    :param reading: The reading of the bundle, if the caller has one.
    :param path: The path to show; by default that of the bundle.
    :param tree: The set of runs that the run belongs to; `Document.of`
        names it if it is empty.
    :raise BundleError: When it is of a tree that this program does not
        know.
    """
    inputs = bundle.manifest.inputs
    reading = reading or read_run(bundle)
    run = _assessed(
        inputs.variant,
        bundle.scenario.name,
        inputs.seed,
        assessment or assess(bundle, run=reading),
    )
    run = replace(
        run,
        bundle=str(bundle.path) if path is None else path,
        digest=bundle.digest,
        latencies=latencies(bundle.scenario),
        tree=tree,
        exact=inputs.place.exact,
        qemu=inputs.version,
        machine=bundle.scenario.machine,
        inputs=inputs,
        devices=_devices(bundle),
    )
    sides = reading.timelines
    run = _with_times(run, sides, reading.breakdown)
    if run.zero_ns is None or run.traffic is None:
        return run
    return replace(
        run, pairs=pairs(sides, reading.flows, run.zero_ns)
    )


def failed_run(
    variant: str,
    scenario: str,
    seed: int | None,
    assessment: Assessment,
    *,
    latencies: str = "",
    qemu: str = "",
    machine: str = "",
    tree: str = "",
) -> Run:
    """A run that left no bundle.

    :param variant: The name of the tree under test.
    :param scenario: The name of the scenario.
    :param seed: The seed.
    :param assessment: The assessment of the run.
    :param latencies: What `vfio_p2p.scenario.profile.latencies` says of
        the scenario.
    :param qemu: The version string of the QEMU.
    :param machine: The machine type that the scenario names.
    :param tree: The set of runs that the run belongs to.
    """
    return replace(
        _assessed(variant, scenario, seed, assessment),
        latencies=latencies,
        qemu=qemu,
        machine=machine,
        tree=tree,
    )


def run_of_logs(folder: Path, host: HostRun | None = None) -> Run:
    """Judge the logs of a migration between real hosts.

    :param folder: The folder; see `vfio_p2p.downtime.logs` for its layout.
    :param host: The reading of the folder, if the caller has one.
    :raise TraceError: When a log is missing, or is none.
    """
    host = host or read_host_run(folder)
    found = judge(
        host.migration.source,
        host.migration.destination,
        Criteria(devices=host.devices),
    )
    parts = host.sample.breakdown
    whole = parts.blackout
    notes = [f"{doubt.side}: {doubt.message}" for doubt in found.notes]
    ended = ending(host.migration)
    if not ended.completed:
        notes.append(ended.sentence)
    if whole.note and whole.duration_ns is None:
        notes.append(f"the blackout: {whole.note}")
    summary = "the blackout is not known"
    if whole.duration_ns is not None:
        summary = "migrated"
    elif ended.word and not ended.completed:
        summary = ended.word
    run = Run(
        variant=LOGS,
        scenario=HOST_LOGS,
        seed=None,
        verdict=found.verdict,
        summary=summary,
        blackout_ns=whole.duration_ns,
        qmp_downtime_ms=parts.beside.qmp_downtime_ms,
        bundle=str(folder),
        findings=tuple(map(_broken_rule, found.findings)),
        notes=tuple(dict.fromkeys(notes)),
        exact=False,
        qemu=f"QEMU {' to '.join(host.versions)}" if host.versions else "",
    )
    return _with_times(run, host.sides, parts)


def _assessed(
    variant: str, scenario: str, seed: int | None, found: Assessment
) -> Run:
    return Run(
        variant=variant,
        scenario=scenario,
        seed=seed,
        verdict=found.verdict,
        summary=found.summary,
        blackout_ns=found.blackout_ns,
        qmp_downtime_ms=found.qmp_downtime_ms,
        findings=tuple(map(_broken_rule, found.findings)),
        known=tuple(map(_broken_rule, found.known)),
        notes=found.notes,
        traffic=found.traffic,
    )


def _with_times(
    run: Run, sides: Sequence[Timeline], parts: Breakdown
) -> Run:
    zero_ns = parts.blackout.start_ns
    if zero_ns is None:
        zero_ns = first_ns(sides)
    if zero_ns is None:
        return run
    return replace(
        run,
        zero_ns=zero_ns,
        blackout_bound_ns=parts.blackout.bound_ns
        if run.blackout_ns is not None
        else None,
        lanes=tuple(x for side in sides for x in lanes(side, zero_ns)),
        marks=tuple(x for side in sides for x in marks(side, zero_ns)),
        phases=tuple(_phases(parts, zero_ns)),
        critical_path=tuple(_path(parts, zero_ns)),
        not_observable=tuple(
            Unseen(what=x.what, why=x.why, within=x.within or "")
            for x in parts.not_observable
        ),
        stop_to_resume_ns=parts.beside.stop_to_resume_ns,
        guest_gap=_guest_gap(parts),
    )


def _guest_gap(parts: Breakdown) -> GuestAbsence | None:
    gap = parts.beside.guest_gap
    if gap is None:
        return None
    return GuestAbsence(
        device=gap.device,
        period_ns=gap.period_ns,
        duration_ns=gap.duration_ns,
        rest_ns=gap.rest_ns,
        pause_ns=gap.pause_ns,
        stop_request_ns=gap.stop_request_ns,
        after_ns=gap.after_ns,
        longest_ns=gap.longest_ns,
        bound_ns=gap.bound_ns,
    )


def _phases(parts: Breakdown, zero_ns: int) -> Iterable[BlackoutPart]:
    crossing = next(
        (x for x in parts.phases if x.side is Side.DESTINATION), None
    )
    for phase in parts.phases:
        yield BlackoutPart(
            name=phase.name,
            side=phase.side,
            start_ns=phase.start_ns - zero_ns,
            end_ns=phase.end_ns - zero_ns,
            # It began with a line of the source.
            bound_ns=parts.blackout.bound_ns if phase is crossing else None,
        )


def _path(parts: Breakdown, zero_ns: int) -> Iterable[PathPiece]:
    for link in parts.critical_path:
        yield PathPiece(
            phase=link.phase,
            side=link.interval.side if link.interval else link.phase.side,
            start_ns=link.start_ns - zero_ns,
            end_ns=link.end_ns - zero_ns,
            device=link.interval.device if link.interval else "",
            activity=link.interval.activity if link.interval else "",
        )


def _broken_rule(found: Finding) -> BrokenRule:
    return BrokenRule(
        rule=found.rule,
        reason=found.reason,
        side=found.side,
        message=found.message,
        devices=found.devices,
        lines=tuple(
            LogLine(
                file=record.file
                if isinstance(record, LogEntry)
                else found.file,
                line=record.line,
                time_ns=record.time_ns,
                text=record.text,
            )
            for record in found.records
        ),
    )


def _devices(bundle: Bundle) -> tuple[DeviceCount, ...]:
    place = bundle.manifest.inputs.place
    if not isinstance(place, HostProvenance):
        return tuple(map(_simulated, bundle.scenario.devices))
    kinds = Counter(x.ids for x in place.source.functions)
    return tuple(
        DeviceCount(count=count, kind=f"{ids} with {place.driver}")
        for ids, count in kinds.items()
    )


def _simulated(device: Device) -> DeviceCount:
    flags = " ".join(device.flags) or "no migration"
    kind = f"p2psim ({flags}), {device.size_bytes} bytes"
    slow = ", ".join(
        f"{arc} {us} us" for arc, us in device.latency_us.items() if us
    )
    return DeviceCount(
        count=device.count, kind=f"{kind}; {slow}" if slow else kind
    )
