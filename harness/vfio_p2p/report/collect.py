# SPDX-License-Identifier: GPL-2.0-or-later
"""From bundles, folders of them and older reports to one document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from vfio_p2p.bundle.manifest import MANIFEST, Inputs
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.downtime import Breakdown
from vfio_p2p.errors import BundleError, InputError
from vfio_p2p.oracle import Finding as OracleFinding
from vfio_p2p.paths import is_special
from vfio_p2p.report.document import (
    Devices,
    Document,
    Finding,
    GuestGap,
    Line,
    Link,
    Phase,
    Run,
    Unseen,
    from_json,
)
from vfio_p2p.report.lanes import first_ns, lanes, marks
from vfio_p2p.scenario.model import Device
from vfio_p2p.scenario.profile import latencies
from vfio_p2p.trace import LogEntry
from vfio_p2p.verdict import assess, read_run

_MAX_BYTES = 256 << 20
_KEY_LENGTH = 8
_EXPECTED = "give a bundle, a folder of bundles or a report.json"


def collect(inputs: Sequence[Path]) -> Document:
    """Read all that is to be reported on.

    Two inputs are two sets of runs, to be compared; otherwise the runs of
    each QEMU are a set.

    :param inputs: Bundles (folders or zip files), folders of bundles, and
        reports (JSON).
    :raise BundleError: When a bundle is damaged or newer than we are.
    :raise InputError: When there is nothing to report on.
    """
    found = [_read(path) for path in inputs]
    if len(found) == 2:
        names = _two_names(found, inputs)
        runs = [
            msgspec.structs.replace(run, tree=name)
            for name, document in zip(names, found, strict=True)
            for run in document.runs
        ]
    else:
        runs = _by_tree([run for one in found for run in one.runs])
    return Document.of(
        tuple(runs),
        qemu=_common([one.qemu for one in found]),
        base=_common([one.base for one in found]),
        origin=_common([one.origin for one in found]),
    )


def _read(path: Path) -> Document:
    if path.is_dir() and not (path / MANIFEST).is_file():
        return _read_folder(path)
    if path.is_dir() or path.suffix == ".zip":
        return _of_bundles([run_of(open_bundle(path))])
    return _read_report(path)


def _read_folder(path: Path) -> Document:
    bundles = sorted(
        child
        for child in path.iterdir()
        # One with a dot is still being written.
        if not child.name.startswith(".")
        and ((child / MANIFEST).is_file() or child.suffix == ".zip")
    )
    if not bundles:
        raise InputError(f"{path}: no bundles in it", _EXPECTED)
    return _of_bundles([run_of(open_bundle(child)) for child in bundles])


def _of_bundles(runs: list[Run]) -> Document:
    versions = [run.inputs.source.version for run in runs if run.inputs]
    return Document.of(tuple(runs), qemu=_common(versions))


def _read_report(path: Path) -> Document:
    if is_special(path):
        raise InputError(f"{path}: not a regular file", _EXPECTED)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file or folder", _EXPECTED
        ) from None
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: too large for a report")
    document = from_json(data, str(path))
    return msgspec.structs.replace(
        document,
        runs=tuple(_with_bundle(run, path.parent) for run in document.runs),
    )


def _with_bundle(run: Run, folder: Path) -> Run:
    """The run with all that its bundle has, if that is still there.

    :param folder: Where the report is, which may have been moved.
    """
    if run.inputs is not None or not run.bundle:
        return run
    for path in (Path(run.bundle), folder / Path(run.bundle).name):
        try:
            bundle = open_bundle(path)
        except (BundleError, OSError):
            continue
        if bundle.digest == run.digest:
            return msgspec.structs.replace(
                run_of(bundle), bundle=str(path)
            )
    return run


def run_of(bundle: Bundle) -> Run:
    """Judge a bundle, and take from it what reports show.

    :param bundle: The bundle.
    :raise BundleError: When it is of a tree that we do not know.
    """
    manifest = bundle.manifest
    reading = read_run(bundle)
    found = assess(bundle, run=reading)
    sides = reading.timelines
    parts = reading.breakdown
    zero_ns = parts.blackout.start_ns
    if zero_ns is None:
        zero_ns = first_ns(sides)
    run = Run(
        variant=manifest.inputs.source.variant,
        scenario=bundle.scenario.name,
        seed=manifest.inputs.seed,
        verdict=found.verdict,
        summary=found.summary,
        blackout_ns=found.blackout_ns,
        qmp_downtime_ms=found.qmp_downtime_ms,
        bundle=str(bundle.path),
        digest=bundle.digest,
        findings=tuple(_finding(one) for one in found.findings),
        known=tuple(_finding(one) for one in found.known),
        notes=found.notes,
        traffic=found.traffic,
        latencies=latencies(bundle.scenario),
        inputs=manifest.inputs,
        devices=tuple(map(_devices, bundle.scenario.devices)),
    )
    if zero_ns is None:
        return run
    return msgspec.structs.replace(
        run,
        zero_ns=zero_ns,
        lanes=tuple(x for side in sides for x in lanes(side, zero_ns)),
        marks=tuple(x for side in sides for x in marks(side, zero_ns)),
        phases=_phases(parts, zero_ns),
        critical_path=_links(parts, zero_ns),
        not_observable=tuple(
            Unseen(what=x.what, why=x.why, within=x.within or "")
            for x in parts.not_observable
        ),
        stop_to_resume_ns=parts.beside.stop_to_resume_ns,
        guest_gap=_guest_gap(parts),
    )


def _guest_gap(parts: Breakdown) -> GuestGap | None:
    gap = parts.beside.guest_gap
    if gap is None:
        return None
    return GuestGap(
        device=gap.device,
        period_ns=gap.period_ns,
        duration_ns=gap.duration_ns,
        rest_ns=gap.rest_ns,
        pause_ns=gap.pause_ns,
        stop_request_ns=gap.stop_request_ns,
        after_ns=gap.after_ns,
        longest_ns=gap.longest_ns,
    )


def _phases(parts: Breakdown, zero_ns: int) -> tuple[Phase, ...]:
    return tuple(
        Phase(
            name=phase.name,
            side=phase.side,
            start_ns=phase.start_ns - zero_ns,
            end_ns=phase.end_ns - zero_ns,
        )
        for phase in parts.phases
    )


def _links(parts: Breakdown, zero_ns: int) -> tuple[Link, ...]:
    return tuple(
        Link(
            phase=link.phase,
            side=link.interval.side if link.interval else link.phase.side,
            start_ns=link.start_ns - zero_ns,
            end_ns=link.end_ns - zero_ns,
            device=link.interval.device if link.interval else "",
            activity=link.interval.activity if link.interval else "",
        )
        for link in parts.critical_path
    )


def _finding(found: OracleFinding) -> Finding:
    return Finding(
        rule=found.rule,
        reason=found.reason,
        side=found.side,
        message=found.message,
        devices=found.devices,
        lines=tuple(
            Line(
                file=(
                    record.file
                    if isinstance(record, LogEntry)
                    else found.file
                ),
                line=record.line,
                time_ns=record.time_ns,
                text=record.text,
            )
            for record in found.records
        ),
    )


def _devices(device: Device) -> Devices:
    flags = " ".join(device.flags) or "no migration"
    kind = f"p2psim ({flags}), {device.size_bytes} bytes"
    slow = ", ".join(
        f"{arc} {us} us" for arc, us in device.latency_us.items() if us
    )
    return Devices(
        count=device.count, kind=f"{kind}; {slow}" if slow else kind
    )


def _common(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(x for x in values if x))


def _two_names(
    found: Sequence[Document], inputs: Sequence[Path]
) -> tuple[str, str]:
    """What to call two sets: by their variants, if that tells them apart."""
    first, second = (
        _common([run.variant for run in document.runs]) for document in found
    )
    if first != second and first and second:
        return first, second
    a, b = (str(path) for path in inputs)
    return (a, b) if a != b else ("A", "B")


def _by_tree(runs: Sequence[Run]) -> list[Run]:
    builds: dict[str, dict[str, None]] = {}
    for run in runs:
        builds.setdefault(run.variant, {})[_build(run.inputs)] = None

    def name(run: Run) -> str:
        if len(builds[run.variant]) == 1:
            return run.variant
        return f"{run.variant} ({_build(run.inputs)[:_KEY_LENGTH]})"

    return [
        run if run.tree else msgspec.structs.replace(run, tree=name(run))
        for run in runs
    ]


def _build(inputs: Inputs | None) -> str:
    return inputs.source.build if inputs else ""
