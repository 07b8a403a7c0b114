# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure how fast traces are read, compared with other ways to read them.

The benchmark makes a file of each trace backend, reads it alternately with
our reader and another one in the same process, and prints the best result of
each.  The `log` backend's reader is compared with a regular expression on each
line, that of the `simple` backend with scripts/simpletrace.py of a QEMU source
tree.  Then it runs ``vfio-p2p check`` as a process of its own, on such a log
and on one of any size, and prints its time and memory.

    python benchmarks/readers.py --qemu-source DIR [--large 2]

Times are processor times, so other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import random
import re
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vfio_p2p.trace import TraceReader
from vfio_p2p.trace.formats import FORMATS, VERSIONS, Format, arguments

_ROUNDS = 5
_VERSION = "10.0"
_DEVICES = tuple(f"0000:3b:00.{n}" for n in range(4))
_STATES = ("RUNNING", "PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "STOP")
# Other lines that QEMU prints while it migrates, roughly as often.
_OTHERS = (
    "memory_region_ops_read cpu 0 mr 0x55d6c2b3f2b0 addr 0x3fd value 0x60 "
    "size 1 name 'serial'",
    "memory_region_ops_write cpu 0 mr 0x55d6c2b3f2b0 addr 0xfee000b0 value "
    "0x0 size 4 name 'apic-msi'",
    "qemu_mutex_lock waiting on mutex 0x55a0319b87e0 (../system/cpus.c:504)",
    "qemu_mutex_locked taken mutex 0x55a0319b87e0 (../system/cpus.c:504)",
    "object_dynamic_cast_assert device->pci-device (../hw/pci/pci.c:1432:x)",
    "aio_co_schedule ctx 0x55a0561506ec co 0x7f33b4001220",
    "virtqueue_pop vq 0x7f33b4001220 elem 0x55a0561506ec in_num 1 out_num 0",
    "savevm_section_start ram, section_id 2",
    "multifd_send 0 packet_num 128 normal pages 128 flags 0x0 next packet "
    "size 524288",
    "vfio_region_write  (0000:3b:00.2:region2+0x18, 0x1f, 4)",
)

Read = Callable[[Path], int]


def _vfio(draw: random.Random) -> Iterator[tuple[Format, dict[str, Any]]]:
    """Yield random VFIO events of one version, with arguments."""
    at = VERSIONS.index(_VERSION)
    formats = [
        fmt
        for fmt in FORMATS
        if fmt.event.startswith("vfio_")
        # What a destination alone does would make it the log of two QEMUs.
        and not fmt.event.startswith("vfio_load")
        and VERSIONS.index(fmt.since) <= at
        and at <= VERSIONS.index(fmt.versions[1])
    ]
    words = {"device": _DEVICES, "state": _STATES, "recover": ("ERROR",)}
    while True:
        fmt = draw.choice(formats)
        yield fmt, {
            name: draw.randrange(2**20)
            if kind
            else draw.choice(words.get(name, ("running",)))
            for name, kind in arguments(fmt.template)
        }


def make_log(path: Path, lines: int, vfio: float) -> None:
    """Write a file of the `log` backend.

    :param path: The file.
    :param lines: The number of lines.
    :param vfio: The share of lines that concern VFIO migration.
    """
    draw = random.Random(1)
    events = _vfio(draw)
    with path.open("w") as stream:
        for n in range(lines):
            text = draw.choice(_OTHERS)
            if draw.random() < vfio:
                fmt, fields = next(events)
                text = fmt.text(fields)
            stream.write(f"148@{n // 10**6 + 10**9}.{n % 10**6:06}:{text}\n")


def make_simple(
    path: Path, events: list[Any], records: int, vfio: float
) -> None:
    """Write a file of the `simple` backend.

    :param path: The file.
    :param events: All events that the QEMU knows.
    :param records: The number of records.
    :param vfio: The share of records that concern VFIO migration.
    """
    draw = random.Random(1)
    numbers = {event.name: n for n, event in enumerate(events)}
    others = [
        event for event in events
        if event.name in {text.partition(" ")[0] for text in _OTHERS}
    ]
    found = _vfio(draw)
    with path.open("wb") as stream:
        stream.write(struct.pack("<QQQ", 2**64 - 1, 0xF2B177CB0AA429B4, 4))
        for name, n in numbers.items():
            stream.write(struct.pack("<QQI", 0, n, len(name)))
            stream.write(name.encode())
        for n in range(records):
            event = draw.choice(others)
            name = event.name
            values = ["a word" if "char" in x else n for x, _ in event.args]
            if draw.random() < vfio:
                fmt, fields = next(found)
                name, values = fmt.event, list(fields.values())
            data = b"".join(
                struct.pack("<Q", x) if isinstance(x, int)
                else struct.pack("<I", len(x)) + x.encode()
                for x in values
            )
            head = (1, numbers[name], n * 1000, 24 + len(data), 4242)
            stream.write(struct.pack("<QQQII", *head) + data)


def ours(path: Path) -> int:
    """Read with `TraceReader`; return the number of lines or records."""
    with path.open("rb") as stream:
        reader = TraceReader(stream, path.name)
        for _ in reader:
            pass
    return reader.summary.lines


_LINE = re.compile(r"(\d+)@(\d+)\.(\d+):(vfio_\w+) +\(([^()]+)\)(.*)")


def line_by_line(path: Path) -> int:
    """Read in the most obvious way; return the number of lines."""
    with path.open() as stream:
        return sum(1 for line in stream if _LINE.match(line) or line)


def simpletrace(source: Path) -> tuple[list[Any], Read]:
    """Return all events of a QEMU, and its own reader.

    :param source: Its source tree.
    """
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(source / "scripts"))
    module = importlib.import_module("simpletrace")
    tracetool = importlib.import_module("tracetool")
    every = io.StringIO(
        "".join(
            path.read_text()
            for path in sorted(source.rglob("trace-events"))
            if "tests" not in path.parts
        )
    )
    events = tracetool.read_events(every, "trace-events-all")

    class Counter(module.Analyzer2):    # type: ignore[misc, name-defined]
        count = 0

        def catchall(self, *_args: object, **_kwargs: object) -> None:
            self.count += 1

    def read(path: Path) -> int:
        counter = Counter()
        module.process(events, str(path), counter)
        return counter.count

    return events, read


def compare(path: Path, unit: str, name: str, other: Read) -> None:
    """Print how fast the two readers are on a file.

    :param path: The file.
    :param unit: The unit that the file consists of.
    :param name: The name of the other reader.
    :param other: The other reader.
    """
    best = {ours: 0.0, other: 0.0}
    for _ in range(_ROUNDS):
        for read in best:
            begin = time.process_time()
            count = read(path)
            took = time.process_time() - begin
            best[read] = max(best[read], count / took)
    print(
        f"  {best[ours] / 1e6:.2f} million {unit} a second, {name} "
        f"{best[other] / 1e6:.2f}: {best[ours] / best[other]:.1f} times"
    )


def check(path: Path) -> None:
    """Print the time and the memory of ``vfio-p2p check``.

    :param path: The log to check.
    """
    begin = time.monotonic()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "vfio_p2p", "check", str(path)],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        ],
    )
    _, _, used = os.wait4(pid, 0)
    took = time.monotonic() - begin
    print(
        f"  check: {took:.2f} s, {used.ru_utime + used.ru_stime:.2f} of them "
        f"the processor's, {used.ru_maxrss >> 10} MiB at most"
    )


def main() -> None:
    """Make the files, read them, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--qemu-source", type=Path, metavar="DIR")
    parser.add_argument("--lines", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--records", type=int, default=300_000, metavar="N")
    parser.add_argument(
        "--large", type=float, default=0, metavar="GIB",
        help="also check a log of this size, in GiB",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        print(f"log backend, {args.lines} lines, 1 % concern VFIO:")
        make_log(log, args.lines, 0.01)
        compare(log, "lines", "line by line", line_by_line)
        check(log)
        if args.large:
            data = log.read_bytes()
            with log.open("ab") as stream:
                while stream.tell() < args.large * 2**30:
                    stream.write(data)
            print(f"log backend, {args.large} GiB:")
            check(log)
        log.unlink()
        if args.qemu_source:
            events, other = simpletrace(args.qemu_source)
            for share in (0.01, 0.1, 1):
                made = Path(folder) / "simple"
                print(
                    f"simple backend, {args.records} records, "
                    f"{share:.0%} concern VFIO:"
                )
                make_simple(made, events, args.records, share)
                compare(made, "records", "simpletrace.py", other)


if __name__ == "__main__":
    main()
