# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure what a sealed run takes: booted, and from a snapshot.

Both kinds run the same job, in turn, so that a busy machine is busy for both.
Each run is made by a process of its own, which tells its time, its CPU time,
that of its children (the outer VM), and the memory of the largest child.

    python benchmarks/runs.py [--scenario two-devices] [--rounds 5]

The last table divides a run from a snapshot by the clock of the VM, which
counts instructions: it is the same on every machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vfio_p2p.bundle.manifest import transcript_file
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.cli.entry import guarded
from vfio_p2p.errors import UsageError
from vfio_p2p.places import Job, open_place
from vfio_p2p.plans.setting import SEED, Origin
from vfio_p2p.plans.sources import build_all, choose, choose_variants
from vfio_p2p.plans.workshop import LOCAL
from vfio_p2p.progress import SILENT, silent
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.load import load
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import assess


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    :param wall_s: The time from the job to its verdict.
    :param vm_s: The CPU time of the outer VM.
    :param own_s: The CPU time of the process that made the run.
    :param peak_mib: The memory of the outer VM's QEMU.
    :param parts_ms: Parts of the run by the VM's clock, by name.
    """

    wall_s: float
    vm_s: float
    own_s: float
    peak_mib: float
    parts_ms: dict[str, float]

    @property
    def cpu_s(self) -> float:
        """All CPU time."""
        return self.vm_s + self.own_s


def measured(program: Program, name: str, boot: bool) -> Cost:
    """Make and judge one run; call it in a process of its own."""
    place = open_place(PlaceChoice(boot=boot), KnownPrograms([program]))
    job = Job.of(program.what, load(name), SEED)
    place.prepare(silent, [job.scenario])
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began_s, cpu_s = time.monotonic(), time.process_time()
        bundle = asyncio.run(place.run(job, Path(folder, "bundle")))
        assess(bundle)
        wall_s = time.monotonic() - began_s
        own_s = time.process_time() - cpu_s
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Cost(
            wall_s,
            after.ru_utime + after.ru_stime
            - before.ru_utime - before.ru_stime,
            own_s,
            after.ru_maxrss / 1024,
            parts(bundle),
        )


def parts(bundle: Bundle) -> dict[str, float]:
    """Divide a run by what QMP's transcripts say, in ms of its own clock."""
    messages = {
        side: [
            json.loads(line)
            for line in bundle.files[transcript_file(side)].splitlines()
        ]
        for side in Side
    }
    made = min(
        int(data.split(b"\n")[1].split()[0])
        for name, data in bundle.files.items()
        if name.startswith("devices/")
    )
    begun = next(
        x["time_ns"]
        for x in messages[Side.SOURCE]
        if x["msg"].get("execute") == "migrate"
    )
    marks = {
        "start of the source": messages[Side.SOURCE][0]["time_ns"],
        "start of the destination": messages[Side.DESTINATION][0]["time_ns"],
        "preparation": begun,
        "migration, end": max(x[-1]["time_ns"] for x in messages.values()),
    }
    found, last = {}, made
    for name, mark in marks.items():
        found[name] = (mark - last) / 1e6
        last = mark
    return found


def run(args: argparse.Namespace) -> int:
    """Measure, and print."""
    if args.rounds < 1:
        raise UsageError(f"{args.rounds} rounds", "Give at least one.")
    chosen = choose(Origin(), SILENT, LOCAL)
    (variant,) = choose_variants(chosen, ["patched"], LOCAL)
    (made,) = build_all(chosen.source, [variant], SILENT, LOCAL)
    program = Program.of(made)
    for boot in (True, False):
        open_place(PlaceChoice(boot=boot), KnownPrograms()).prepare(
            silent, [load(args.scenario)]
        )
    costs: dict[bool, list[Cost]] = {True: [], False: []}
    print("round  boot: CPU s  wall s    snapshot: CPU s  wall s   "
          "ratios: CPU  wall")
    context = multiprocessing.get_context("spawn")
    for number in range(1, args.rounds + 1):
        for boot, known in costs.items():
            with context.Pool(1) as pool:
                known.append(
                    pool.apply(measured, (program, args.scenario, boot))
                )
        show(f"{number}", costs[True][-1:], costs[False][-1:])
    show("median", costs[True], costs[False])
    for boot, known in costs.items():
        own_s = median(x.own_s for x in known)
        peak_mib = max(x.peak_mib for x in known)
        print(f"\n{'boot' if boot else 'snapshot'}: {own_s:.2f} CPU s of "
              f"the harness, {peak_mib:.0f} MiB of the outer VM's QEMU")
    print("\nms of the VM's clock")
    for name, value_ms in costs[False][0].parts_ms.items():
        print(f"{value_ms:8.0f}  {name}")
    return 0


def show(name: str, booted: list[Cost], restored: list[Cost]) -> None:
    """Print a line of the table."""
    figures = [
        (median(x.cpu_s for x in known), median(x.wall_s for x in known))
        for known in (booted, restored)
    ]
    (cpu_a, wall_a), (cpu_b, wall_b) = figures
    print(f"{name:6} {cpu_a:12.2f} {wall_a:7.2f} {cpu_b:18.2f} {wall_b:7.2f}"
          f" {cpu_b / cpu_a:14.2f} {wall_b / wall_a:5.2f}", flush=True)


def main() -> None:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenario", default="two-devices", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    args = parser.parse_args()
    sys.exit(guarded(lambda: run(args)))


if __name__ == "__main__":
    main()
