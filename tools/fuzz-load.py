#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Load corrupted device streams into QEMU, and report how it ended.

    tools/fuzz-load.py --streams 100000

tests/fuzz/load/README.md says what is tested.  The result is 0 if QEMU ended
by itself only in ways that are known, 1 if there are others.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.machine.files import exclusive
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.paths import cache_dir
from vfio_p2p.plans.setting import Origin
from vfio_p2p.plans.sources import build_all, choose
from vfio_p2p.plans.workshop import LOCAL
from vfio_p2p.progress import SILENT, silent
from vfio_p2p.qemu import Build
from vfio_p2p.qemu.recipe import Checks
from vfio_p2p.qemu.worktree import BINARY, WorkTree
from vfio_p2p.series import parse_variant

PROGRAM = (
    Path(__file__).resolve().parents[1] / "tests" / "fuzz" / "load" / "load.c"
)
MAIN = f"{BINARY}.p/system_main.c.o"
WRAPPED = (
    "ioctl",
    "register_savevm_live",
    "qemu_loadvm_start_load_thread",
)
# How many are loaded by one process, which tells at its end what was not
# freed.
AT_ONCE = 2000
SECONDS = 600

# What QEMU is known to end with; docs/findings.md describes it.
KNOWN = {
    "assertion multifd->load_buf_idx <= multifd->load_buf_idx_last "
    "in vfio_load_bufs_thread",
    "out of memory in vfio_load_state_buffer_insert",
    "out of memory in vfio_multifd_load_state_buffer",
}
# Without it, another one hides the rest: it is most of what happens.
REPAIR = PROGRAM.with_name("load-thread-ends-first.patch")

_ASSERTION = re.compile(r"(\w+): Assertion `(.*)' failed\.$", re.M)
_SUMMARY = re.compile(
    r"^SUMMARY: AddressSanitizer: (\S+) \S+ in (\w+)$", re.M
)
_LEAK = re.compile(r"^SUMMARY: AddressSanitizer: \d+ byte", re.M)
_TOO_LARGE = re.compile(
    r"out of memory trying to allocate|failed to allocate \d+ bytes"
)
_FRAME = re.compile(r"^ +#\d+ \S+ in (vfio_\w+)", re.M)


@dataclass(frozen=True)
class End:
    """How a process of the program ended.

    :param last: The number of the last stream that it began to load.
    :param how: What ended it; empty if it came to its end.
    :param text: What it printed to stderr.
    """

    last: int
    how: str
    text: str


def compile_program(build: Build, folder: Path) -> Path:
    """Compile the program with all of QEMU.

    :param build: A build of QEMU.
    :param folder: Where the program is put.
    :return: The program.
    """
    work = WorkTree(cache_dir() / "work" / build.job.work_key)
    program = folder / "load"
    with exclusive(work.lock) as held:
        # Another variant may have been compiled there since.
        work.compile(build.job, folder / "log", held, silent)
        home = work.home / "build"
        listed = subprocess.run(
            ["ninja", "-t", "compdb", "-x"],
            cwd=home, capture_output=True, check=True,
        )  # fmt: skip
        commands = {
            x["output"]: shlex.split(x["command"])
            for x in json.loads(listed.stdout)
        }
        made = f"{program}.o"
        compiling = _without_dependencies(commands[MAIN])
        compiling[compiling.index("-c") + 1] = str(PROGRAM)
        compiling[compiling.index("-o") + 1] = made
        linking = [made if x == MAIN else x for x in commands[BINARY]]
        linking[linking.index("-o") + 1] = str(program)
        linking += [f"-Wl,--wrap={x}" for x in WRAPPED]
        for argv in (compiling, linking):
            subprocess.run(argv, cwd=home, check=True)
    return program


def _without_dependencies(argv: Sequence[str]) -> list[str]:
    """Leave out what ninja uses to learn of headers."""
    kept = [x for x in argv if x != "-MD"]
    for option in ("-MF", "-MQ"):
        at = kept.index(option)
        del kept[at : at + 2]
    return kept


def load(program: Path, first: int, end: int) -> Iterator[End]:
    """Load streams, and begin again behind each that ended QEMU.

    :param program: The program.
    :param first: The number of the first stream.
    :param end: The number behind the last.
    """
    while first < end:
        count = min(AT_ONCE, end - first)
        done = subprocess.run(
            [program, str(first), str(count)],
            capture_output=True, text=True, errors="replace", check=False,
            timeout=SECONDS,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        numbers = [int(x) for x in lines if x.isdecimal()]
        if not numbers:
            sys.exit(f"the program did not begin:\n{done.stderr}")
        how = ""
        if done.returncode or lines[-1] != "end":
            said = "" if lines[-1].isdecimal() else lines[-1]
            how = how_ended(done.stderr) or said or _status(done.returncode)
        yield End(numbers[-1], how, done.stderr)
        first = numbers[-1] + 1


def how_ended(text: str) -> str:
    """Say in one line what ended QEMU; empty if its stderr does not say.

    :param text: What QEMU printed to stderr.
    """
    if found := _ASSERTION.search(text):
        return f"assertion {found[2]} in {found[1]}"
    where = _FRAME.search(text)
    if _TOO_LARGE.search(text):
        return f"out of memory in {where[1] if where else 'an unknown place'}"
    if found := _SUMMARY.search(text):
        return f"{found[1]} in {where[1] if where else found[2]}"
    return "memory was not freed" if _LEAK.search(text) else ""


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def main() -> int:
    """Run this program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--base", help="the base; by default v10.0's")
    parser.add_argument("--source", type=Path, help="a tree or a tarball")
    parser.add_argument(
        "--variant", default=f"patched+{REPAIR}", help="the tree to build"
    )
    parser.add_argument(
        "--streams", type=int, default=100_000, help="how many are loaded"
    )
    parser.add_argument(
        "--first", type=int, default=1, help="the number of the first"
    )
    parser.add_argument(
        "--plain", action="store_true", help="without AddressSanitizer"
    )
    args = parser.parse_args()
    chosen = choose(Origin(base=args.base, source=args.source), SILENT, LOCAL)
    variant = parse_variant(chosen.base, args.variant)
    checks = Checks(address=not args.plain)
    (build,) = build_all(chosen.source, [variant], SILENT, LOCAL, checks)
    ends: Counter[str] = Counter()
    with temporary_folder() as folder:
        program = compile_program(build, folder)
        for end in load(program, args.first, args.first + args.streams):
            if not end.how:
                continue
            ends[end.how] += 1
            if end.how not in KNOWN and ends[end.how] == 1:
                print(f"stream {end.last}: {end.how}\n{end.text}")
    print(f"{args.streams} streams were loaded")
    for how, count in ends.most_common():
        print(f"{count}\t{'known' if how in KNOWN else 'new'}\t{how}")
    return 0 if ends.keys() <= KNOWN else 1


if __name__ == "__main__":
    sys.exit(main())
