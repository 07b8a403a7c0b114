# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report knows, and how it is written down: one JSON document.

All formats are made from it, and `vfio-p2p report` reads it back.  It is
what `vfio_p2p.report.machine.as_json` writes, with more to each run; of a
document without that, a report shows less.  docs/report.schema.json is its
JSON Schema.

Texts are as QEMU or a device gave them: whoever shows them escapes them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from vfio_p2p.bundle.manifest import Inputs
from vfio_p2p.errors import InputError
from vfio_p2p.oracle import Finding as OracleFinding
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.model import Report as Rows
from vfio_p2p.report.model import Row
from vfio_p2p.timeline import Side
from vfio_p2p.trace import Kind, Record, printable
from vfio_p2p.verdict.assess import Assessment

FORMAT = 1
KIND: Final = "vfio-p2p report"

# A run takes seconds; what is further away is damage.
_Near = Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)]
_Length = Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Line(_Value, frozen=True, kw_only=True):
    """A line of a log; `time_ns` is wall-clock time since 1970."""

    file: str
    line: int
    time_ns: int | None = None
    text: str


class Finding(_Value, frozen=True, kw_only=True):
    """A rule broken, with the lines that show it."""

    rule: str
    reason: str
    side: Side
    message: str
    devices: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()


class State(_Value, frozen=True, kw_only=True):
    """A device was in `state`; times count from the run's `zero_ns`."""

    start_ns: _Near
    end_ns: _Near
    state: str


class Arc(_Value, frozen=True, kw_only=True):
    """A device was on its way from `before` to `requested`.

    `reached` is where it came to; empty when no line tells.
    """

    start_ns: _Near
    end_ns: _Near
    before: str
    requested: str
    reached: str


class Lane(_Value, frozen=True, kw_only=True):
    """One device on one side."""

    side: Side
    device: str
    states: tuple[State, ...] = ()
    arcs: tuple[Arc, ...] = ()


class Mark(_Value, frozen=True, kw_only=True):
    """A moment; `kind` is ``run state`` (of the VM) or ``migration``."""

    side: Side
    time_ns: _Near
    kind: Literal["run state", "migration"]
    text: str


class Devices(_Value, frozen=True, kw_only=True):
    """So many devices of one kind."""

    count: int
    kind: str


class Phase(_Value, frozen=True, kw_only=True):
    """A part of the blackout, as `vfio_p2p.downtime` takes it apart."""

    name: str
    side: Side
    start_ns: _Near
    end_ns: _Near

    @property
    def duration_ns(self) -> int:
        """What it cost, in nanoseconds."""
        return self.end_ns - self.start_ns


class Link(_Value, frozen=True, kw_only=True):
    """A piece of the critical path: what was waited for.

    `device` and `activity` are empty where QEMU itself was busy, or the
    logs do not tell.
    """

    phase: str
    side: Side
    start_ns: _Near
    end_ns: _Near
    device: str = ""
    activity: str = ""


class Unseen(_Value, frozen=True, kw_only=True):
    """What the logs cannot tell; `within` is the phase that has its time."""

    what: str
    why: str
    within: str = ""


class GuestGap(_Value, frozen=True, kw_only=True):
    """How long the guest was gone, by its heartbeats.

    `duration_ns`: from the last on the source to the first on the
    destination: `rest_ns` until QEMU began to stop the VM, `pause_ns` to
    the run-state change, `stop_request_ns` to the blackout, that, and
    `after_ns` behind it.  `period_ns`: from one heartbeat to the next
    before.  `longest_ns`: between any two, which is more if the guest
    stalled elsewhere.
    """

    device: str
    period_ns: _Length
    duration_ns: _Length
    rest_ns: _Length
    pause_ns: _Length
    stop_request_ns: _Length
    after_ns: _Length
    longest_ns: _Length


class Run(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """One run.

    The first thirteen are those of `vfio_p2p.report.machine`.  `known` are
    findings that the scenario expects.  `latencies` says of which model they
    are, and is empty if they are the scenario's own.  `tree` names the set
    of runs that it belongs to.  `zero_ns` is the wall-clock time from which
    all others count: of the source's first stop request if the logs tell,
    otherwise of the first line.
    """

    variant: str
    scenario: str
    seed: int
    verdict: Verdict
    summary: str
    blackout_ns: _Length | None
    qmp_downtime_ms: _Length | None
    bundle: str
    digest: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    known: tuple[Finding, ...] = ()
    latencies: str = ""
    tree: str = ""
    inputs: Inputs | None = None
    devices: tuple[Devices, ...] = ()
    zero_ns: int | None = None
    lanes: tuple[Lane, ...] = ()
    marks: tuple[Mark, ...] = ()
    phases: tuple[Phase, ...] = ()
    critical_path: tuple[Link, ...] = ()
    not_observable: tuple[Unseen, ...] = ()
    stop_to_resume_ns: _Length | None = None
    traffic: Traffic | None = None
    guest_gap: GuestGap | None = None

    def as_row(self) -> Row:
        """The run as `vfio_p2p.report.machine` takes it."""
        found = Assessment(
            verdict=self.verdict,
            summary=self.summary,
            findings=tuple(_finding(one) for one in self.findings),
            known=tuple(_finding(one) for one in self.known),
            notes=self.notes,
            blackout_ns=self.blackout_ns,
            qmp_downtime_ms=self.qmp_downtime_ms,
            traffic=self.traffic,
        )
        return Row(
            variant=self.variant,
            scenario=self.scenario,
            seed=self.seed,
            assessment=found,
            bundle=self.bundle,
            digest=self.digest,
            latencies=self.latencies,
        )


class Document(_Value, frozen=True, kw_only=True):
    """A whole report; `qemu`, `base` and `origin` may be empty."""

    format: int = FORMAT
    kind: Literal["vfio-p2p report"] = KIND
    verdict: Verdict
    qemu: str
    base: str
    origin: str
    runs: tuple[Run, ...]

    @classmethod
    def of(
        cls,
        runs: tuple[Run, ...],
        *,
        qemu: str = "",
        base: str = "",
        origin: str = "",
    ) -> Document:
        """A report on these runs."""
        return cls(
            verdict=worst(run.verdict for run in runs),
            qemu=qemu,
            base=base,
            origin=origin,
            runs=runs,
        )

    def as_rows(self) -> Rows:
        """The report as `vfio_p2p.report.machine` takes it."""
        return Rows(
            qemu=self.qemu,
            base=self.base,
            origin=self.origin,
            rows=tuple(run.as_row() for run in self.runs),
        )

    @property
    def trees(self) -> tuple[str, ...]:
        """Names of the sets of runs, in order of appearance."""
        return tuple(dict.fromkeys(run.tree for run in self.runs))

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios, in order of appearance."""
        return tuple(dict.fromkeys(run.scenario for run in self.runs))


def to_json(document: Document) -> bytes:
    """One JSON document, in UTF-8."""
    return (
        msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    )


def from_json(data: bytes, name: str) -> Document:
    """Read a document back.

    :param data: What `to_json` or `validate` wrote.
    :param name: What to call it in messages.
    :raise InputError: When it is no report, or newer than this program.
    """

    class Header(msgspec.Struct):
        kind: str
        format: int

    try:
        header = msgspec.json.decode(data, type=Header)
        if header.kind != KIND:
            raise msgspec.ValidationError(f"it is a {header.kind!r}")
        if header.format > FORMAT:
            raise InputError(
                f"{printable(name)}: report format {header.format} is newer "
                f"than this program, which knows up to {FORMAT}",
                "use a newer vfio-p2p",
            )
        return msgspec.json.decode(data, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise InputError(
            f"{printable(name)}: not a report: {err}",
            "give a bundle, a folder of bundles, or the report.json that "
            "'validate' or 'report' wrote",
        ) from err


def _finding(found: Finding) -> OracleFinding:
    return OracleFinding(
        rule=found.rule,
        reason=found.reason,
        side=found.side,
        message=found.message,
        devices=found.devices,
        file=found.lines[0].file if found.lines else "",
        records=tuple(
            Record(x.line, x.time_ns, None, "", Kind.OTHER, {}, x.text)
            for x in found.lines
        ),
    )
