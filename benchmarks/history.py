# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure what lists, exports and plots of long histories take.

Histories of invented results are made, each twice as long as the one before;
then the commands run on each.  A time that grows as n log n is a little more
than doubled from one row to the next.

    python benchmarks/history.py [--most 200000]

Times are processor times, so other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/unit"))

from histories import MS, entry
from vfio_p2p.history.database import Entry, open_history

_ROWS = 4
_COMMANDS = {
    "list": ["list"],
    "export": ["export", "--json"],
    "plot": ["plot", "blackout"],
}


def results(count: int) -> Iterator[Entry]:
    """Make results with noise of 1 % and a change of 2 % in the middle."""
    draw = random.Random(count)
    for number in range(count):
        level = 300 * MS + 6 * MS * (number > count // 2)
        value = round(draw.gauss(level, 3 * MS))
        yield replace(
            entry(value, f"{number:040x}"),
            qemu_revision_s=1_600_000_000 + 600 * number,
        )


def measure(command: list[str], database: Path) -> tuple[float, int]:
    """Run a command on a history.

    :return: Its processor time in seconds, and its peak memory in MiB.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "vfio_p2p", "history", *command,
         "--db", database],
        stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--most", type=int, default=200_000)
    most = parser.parse_args().most
    print(f"{'results':>9}", *(f"{x:>17}" for x in _COMMANDS))
    with tempfile.TemporaryDirectory() as name:
        for halvings in reversed(range(_ROWS)):
            count = most >> halvings
            database = Path(name) / f"{count}.sqlite3"
            with open_history(database, write=True) as history:
                history.add(results(count))
            cells = []
            for command in _COMMANDS.values():
                took_s, peak_mib = measure(command, database)
                cells.append(f"{took_s:6.2f} s {peak_mib:4} MiB")
            print(f"{count:9}", *(f"{x:>17}" for x in cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
