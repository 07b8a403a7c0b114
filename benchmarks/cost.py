# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure what tracing and listening to QMP add to a downtime.

The benchmark migrates the same devices again and again, at a place of real
devices that is prepared.  The runs form pairs of two kinds:

A  The harness works as always: QEMU logs its trace events, the log is sent
   here as it grows, and QMP events are heard.
B  QEMU logs no events.  Both QMP connections are closed as soon as the
   migration has begun, and opened again when the guest has shown on the
   destination that it lives.

Every other pair begins with B.  The downtime is taken from the guest itself,
which needs neither traces nor QMP: it is the time from the last heartbeat on
the source's console to the first one on the destination's, by the clock of
the host.  QEMU's own figure is shown as well.

    vfio-p2p host prepare --at lab-host
    python benchmarks/cost.py --at lab-host [--runs 20]

What starts QEMU, ends it and reads the consoles works in both kinds alike, so
that its cost does not show.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from vfio_p2p.bundle.manifest import trace_file
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.cli.entry import guarded, trap_signals
from vfio_p2p.downtime.effect import LEVEL
from vfio_p2p.downtime.stats import paired
from vfio_p2p.errors import HostError, UsageError
from vfio_p2p.machine.errors import MigrationFailedError
from vfio_p2p.machine.qemu import TRANSCRIPT
from vfio_p2p.machine.qmp import TranscribedClient
from vfio_p2p.machine.remote import RemoteQemu
from vfio_p2p.places import Job
from vfio_p2p.places.hosts.config import load_hosts
from vfio_p2p.places.hosts.place import RealPlace
from vfio_p2p.places.hosts.play import HostSession, play
from vfio_p2p.plans.runs import job_of
from vfio_p2p.plans.setting import SEED, Origin
from vfio_p2p.plans.sources import build_all, choose, choose_variants
from vfio_p2p.plans.workshop import Local
from vfio_p2p.progress import SILENT, silent
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.course import Outcome
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.step import FINAL, Status
from vfio_p2p.side import Side
from vfio_p2p.trace.console import continued
from vfio_p2p.verdict.reading import read_run

_SCENARIO = "two-devices-with-heartbeat"
_EVENT = b'"event": "MIGRATION"'
_POLL_S = 0.1
# Fewer pairs can show nothing; see `vfio_p2p.downtime.stats`.
_LEAST_PAIRS = 5


class QuietQemu(RemoteQemu):
    """A QEMU without trace events, whose QMP connection can be closed."""

    trace_events = ()
    _where: tuple[Path, str]
    # Instead of the events that nobody heard.
    _told: tuple[str, ...] = ()

    @property
    def statuses(self) -> list[str]:
        """The statuses of its migration that were heard of or asked for."""
        return [*super().statuses, *self._told]

    async def _connect(
        self, qmp: TranscribedClient, path: Path, there: str
    ) -> None:
        self._where = (path, there)
        await super()._connect(qmp, path, there)

    async def hang_up(self) -> None:
        """Close the QMP connection."""
        await self._session("the end of the connection").disconnect()

    async def call(self, limit_s: float) -> None:
        """Open the QMP connection again, and ask how the migration ended.

        :param limit_s: The limit in seconds.
        """
        qmp = self._session("a new connection")
        async with self.step("a new connection", limit_s):
            await self._connect(qmp, *self._where)
            while True:
                match await self.execute("query-migrate", limit_s=limit_s):
                    case {"status": str(status)} if status in FINAL:
                        self._told = (status,)
                        return
                await asyncio.sleep(_POLL_S)


class QuietSession(HostSession):
    """A session that leaves its QEMUs alone while they migrate."""

    _closed_ms = 0.0

    async def _execute(
        self, role: Side, command: str, **arguments: str
    ) -> None:
        begin_s = time.monotonic()
        await super()._execute(role, command, **arguments)
        if command == "migrate":
            await asyncio.gather(*(x.hang_up() for x in self._quiet()))
            self._closed_ms = (time.monotonic() - begin_s) * 1e3

    async def _await(self, role: Side, status: Status) -> None:
        source, destination = self._quiet()
        limit_s = self._limits.migrate_s
        if not await self._consoles[destination.side].seen(limit_s):
            raise MigrationFailedError(
                destination.side, "its guest did not show that it lives"
            )
        for vm in (source, destination):
            await vm.call(limit_s)
        leg = self.legs[-1]
        if leg.status != status:
            raise MigrationFailedError(
                source.side, f"the migration is {leg.status}"
            )
        await self._settled(leg)
        assert leg.total_time_ms is not None
        assert leg.downtime_ms is not None
        if self._closed_ms > leg.total_time_ms - leg.downtime_ms:
            raise HostError(
                "the VM was stopped before the QMP connections were closed, "
                f"which took {self._closed_ms:.0f} ms",
                "Give the guest more memory to migrate, or use a host that "
                "answers faster.",
            )

    def _quiet(self) -> list[QuietQemu]:
        """Return the two QEMUs, the source first."""
        cast = [self._cast[role] for role in Side]
        return [vm for vm in cast if isinstance(vm, QuietQemu)]


class CostPlace(RealPlace):
    """A place that can leave QEMU alone while it migrates."""

    def leave_alone(self, alone: bool) -> None:
        """Choose how the next runs are made.

        :param alone: Whether QEMU is left alone.
        """
        self.plays = play
        if alone:
            self.plays = partial(
                play, qemu=QuietQemu, session=QuietSession
            )

    def check(self) -> None:
        """Ask whether the place can be used, and whether it suits.

        :raise UsageError: When one of its hosts is this machine.
        """
        if not all(x.entry.ssh for x in self._stations.values()):
            raise UsageError(
                f"{self.name} is this machine",
                "Give the host the key 'ssh', such as "
                'ssh = "root@127.0.0.1".',
            )
        super().check()


@dataclass(frozen=True)
class Sample:
    """What one run shows.

    :param gap_ns: How long the guest was gone, as its consoles show it.
    :param qmp_ns: QEMU's own figure for the downtime.
    :param traced: The number of lines in the traces of both QEMUs.
    :param heard: The number of QMP's events MIGRATION that both sent while
        somebody listened.
    """

    gap_ns: int
    qmp_ns: int
    traced: int
    heard: int

    @classmethod
    def of(cls, bundle: Bundle) -> Sample:
        """Read the bundle of a run.

        :param bundle: The bundle.
        :raise HostError: When the run does not tell.
        """
        result = bundle.manifest.result
        reading = read_run(bundle)
        one, two = (reading.timeline(x, x).console for x in Side)
        if (
            result.outcome is not Outcome.MIGRATED
            or result.qmp_downtime_ms is None
            or one is None
            or two is None
        ):
            raise HostError(
                f"a run ended as {result.outcome}: {result.message}",
                "Make the same run with 'vfio-p2p run', and see what it "
                "reports.",
            )
        before, after = one.beats, continued(one, two)
        if not before.count or after.first != before.last + 1:
            raise HostError(
                f"the source's last heartbeat is {before.last}, and the "
                f"destination's first one is {after.first}",
                "Look into the log of the host's kernel.",
            )
        return cls(
            after.first_ns - before.last_ns,
            result.qmp_downtime_ms * 10**6,
            _count(bundle, b"\n", *(trace_file(x) for x in Side)),
            _count(bundle, _EVENT, *(f"{x}/{TRANSCRIPT}" for x in Side)),
        )


def _count(bundle: Bundle, what: bytes, *paths: str) -> int:
    return sum(bundle.files.get(x, b"").count(what) for x in paths)


async def measure(
    place: CostPlace, job: Job, pairs: int
) -> list[tuple[Sample, Sample]]:
    """Make the runs, and print what each pair shows.

    :param place: The place, which is ready.
    :param job: The run.
    :param pairs: The number of pairs.
    :return: A and B of each pair.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        async with place.opened():
            for number in range(pairs):
                pair = {}
                for quiet in (False, True) if number % 2 == 0 else (
                    True, False,
                ):  # fmt: skip
                    place.leave_alone(quiet)
                    bundle = await place.run(job, Path(folder, "bundle"))
                    pair[quiet] = Sample.of(bundle)
                a, b = pair[False], pair[True]
                found.append((a, b))
                print(
                    f"pair {number + 1:2}: gap {_ms(a.gap_ns)} and "
                    f"{_ms(b.gap_ns)}, QMP {_ms(a.qmp_ns)} and "
                    f"{_ms(b.qmp_ns)}",
                    flush=True,
                )
    return found


def _ms(time_ns: float, sign: str = "") -> str:
    return f"{time_ns / 1e6:{sign}.1f} ms"


def show(found: Sequence[tuple[Sample, Sample]]) -> None:
    """Print the difference between A and B.

    :param found: A and B of each pair.
    """
    for name, group in zip("AB", zip(*found, strict=True), strict=True):
        traced = median(x.traced for x in group)
        heard = median(x.heard for x in group)
        print(
            f"{name}: {traced:.0f} lines of traces, and {heard:.0f} times "
            "QMP told the status of the migration"
        )
    for title, key in (("guest gap", "gap_ns"), ("QMP downtime", "qmp_ns")):
        pairs = [(getattr(a, key), getattr(b, key)) for a, b in found]
        effect = paired([a - b for a, b in pairs])
        print(
            f"{title}: A {_ms(median(a for a, _ in pairs))}, "
            f"B {_ms(median(b for _, b in pairs))}; A - B "
            f"{_ms(effect.difference_ns, '+')}, {1 - LEVEL:.0%} interval "
            f"{_ms(effect.low_ns, '+')} to {_ms(effect.high_ns, '+')}, "
            f"p = {effect.p:.4f}"
        )
        if effect.smallest_ns is not None:
            print(
                "  the smallest difference that these runs could have shown: "
                f"{_ms(effect.smallest_ns)}"
            )


def run(args: argparse.Namespace) -> int:
    """Build QEMU if need be, make the runs, and print the results."""
    trap_signals()
    if args.runs < _LEAST_PAIRS:
        raise UsageError(
            f"--runs {args.runs}: so few pairs can show nothing",
            f"Give at least {_LEAST_PAIRS}.",
        )
    programs = KnownPrograms()
    place = CostPlace.of(
        args.at, load_hosts(args.hosts), programs, given=args.hosts
    )
    place.check()
    workshop = Local()
    chosen = choose(Origin(), SILENT, workshop)
    variants = choose_variants(chosen, [args.variant], workshop)
    (build,) = build_all(chosen.source, variants, SILENT, workshop)
    programs.add(Program.of(build))
    job = job_of(build, load(args.scenario), SEED, workshop)
    place.prepare(silent, [job.scenario])
    print(f"{args.at}, {args.variant}, {args.scenario}: {args.runs} pairs")
    show(asyncio.run(measure(place, job, args.runs)))
    return 0


def main() -> None:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--at", default="lab-host", metavar="PLACE")
    parser.add_argument("--hosts", type=Path, metavar="FILE")
    parser.add_argument("--runs", type=int, default=20, metavar="N")
    parser.add_argument("--variant", default="patched", metavar="V")
    parser.add_argument("--scenario", default=_SCENARIO, metavar="NAME")
    args = parser.parse_args()
    sys.exit(guarded(lambda: run(args)))


if __name__ == "__main__":
    main()
