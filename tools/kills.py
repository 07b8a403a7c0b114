#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Kill commands at any moment, and see what they leave.

    tools/kills.py COMMAND... [--kills N] [--seed S]

The commands are those of tools/kill_cases.py: run, validate, compare, report
and prune.  Each is killed N times with SIGKILL, as the kernel does it when
memory runs out: the process of the tool alone.  Half of the moments are spread
over the command's whole time, and half over its end, where results are stored.
Afterwards no child may be left, each output must be the old one or the new
one, the same command must succeed, and then nothing half may be left.

Builds and the testbed come from the user's cache, by hard links, so that
nothing is built anew; 'vfio-p2p validate' makes them.  'record' needs QEMUs:
    avocado run tests/functional/test_attached_qemu.py -p kills=N
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from kill_cases import CASES, Case, children, ended_vms
from vfio_p2p.paths import cache_dir

# How long children may take to end by themselves.
GRACE_S = 20.0
# prctl(2): orphans become children of this process.
_SUBREAPER = 36


def kill(case: Case, kills: int, random: Random) -> None:
    """Kill a command many times."""
    case.once()
    case.before(0)
    whole_s, tail_s, count = case.whole(case.argv(0))
    case.before(0)
    length_s = case.whole(case.argv(0))[0]
    print(f"  {whole_s:.1f} s, {tail_s:.1f} s of it after {count} VMs; "
          f"{length_s:.1f} s with stored runs", flush=True)
    killed = number = 0
    while killed < kills:
        number += 1
        case.before(number)
        process = case.start(case.argv(number))
        moment_s = time.monotonic()
        if case.fresh(number) and number % 2:
            moment_s += random.uniform(0, whole_s)
        elif case.fresh(number):
            seen: set[int] = set()
            while process.poll() is None:
                if ended_vms(process.pid, seen) >= count:
                    break
                time.sleep(0.002)
            moment_s = time.monotonic() + random.uniform(0, tail_s)
        else:
            first = 0 if number % 2 or number % 8 == 2 else 0.9
            moment_s += random.uniform(first * length_s, 1.02 * length_s)
        while process.poll() is None and time.monotonic() < moment_s:
            time.sleep(0.001)
        if process.poll() is None:
            killed += 1
            process.kill()
            process.wait()
        # Others may use the machine, now or when it was measured.
        if not case.fresh(number):
            length_s *= 0.93 if process.returncode >= 0 else 1.02
        await_end(case)
        case.check(number)
        case.whole(case.again(number))
        await_end(case)
        case.after(number)
        for path in case.left():
            case.report(f"kill {number} left {path.relative_to(case.work)}")
    print(f"  {killed} killed, {number - killed} were faster; "
          f"{len(case.wrong)} wrong", flush=True)


def await_end(case: Case) -> None:
    """See that all children end by themselves."""
    deadline = time.monotonic() + GRACE_S
    while found := children(os.getpid()):
        for pid in found:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            case.report(f"processes are left: {found}")
            return
        time.sleep(0.02)


def main() -> int:
    """Run this program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", nargs="+", choices=CASES)
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    wrong = 0
    for name in args.what:
        print(f"{name}: {args.kills} kills, seed {args.seed}", flush=True)
        # Hard links need the cache's file system.
        with TemporaryDirectory(dir=cache_dir().parent) as folder:
            case = CASES[name](Path(folder))
            kill(case, args.kills, Random(args.seed))
            wrong += len(case.wrong)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
