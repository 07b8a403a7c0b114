# SPDX-License-Identifier: GPL-2.0-or-later
"""Throw damaged inputs at all readers.

Inputs of the unit tests are mutated: logs of both backends, logs behind
prefixes, libvirt's, QMP events, mails and bundles.  Whatever comes of it has
to be an answer or one of our errors that says what to do, within a limit of
time and memory.  Everything else is kept as a file, and makes the exit code
1; the seed and the number of the execution repeat it.

    python benchmarks/fuzz.py --executions 1000000 --seed 1 [--only log]

Run several with different seeds to use several processors.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

UNIT = Path(__file__).resolve().parents[1] / "tests/unit"
sys.path.insert(0, str(UNIT))

from b4_mails import BAD, GOOD  # noqa: E402
from bundles import make_bundle  # noqa: E402
from test_b4_mutated import Reading  # noqa: E402
from vfio_p2p.bundle.read import open_bundle  # noqa: E402
from vfio_p2p.bundle.write import pack  # noqa: E402
from vfio_p2p.cli import check as command  # noqa: E402
from vfio_p2p.errors import HarnessError  # noqa: E402
from vfio_p2p.plans.b4 import PatchRequest, check_patch  # noqa: E402
from vfio_p2p.plans.check import (  # noqa: E402
    LogsRequest,
    check_bundle,
    check_logs,
)
from vfio_p2p.report.formats import render  # noqa: E402
from vfio_p2p.trace.simple import SIGNATURE  # noqa: E402

_MOST_BYTES = 24 << 10
_MOST_S = 10.0
_MOST_MEMORY = 3 << 30
_TOKENS = (
    b"", b"\0", b"\n", b"\r\n", b"\r", b" ", b"\xff\xfe", b"\xef\xbb\xbf",
    b"\x80", b"\x1b[2J", b"{", b"}", b"[", b'"', b"\\", b"[" * 3000,
    b'{"a":' * 3000, b"0", b"-1", b"9" * 30, b"1e999", b"NaN", b"0x",
    b"null", b"true", b"(null)", b"%s%n", b"\xe2\x80\xae", b"\xc2\x9b31m",
    b"1970-01-01T00:00:00Z ", b"9999-12-31T23:59:59.999999Z ",
    b"0@0.0:", b"99999999999@99999999999999.999999:",
    b"Nov 26 21:31:26 host qemu[1]: ", b"> ", b"(qemu) ",
    b"vfio_migration_set_state  (0000:3b:00.0) state STOP_COPY\n",
    b"vfio_migration_set_device_state  (0000:3b:00.0) state ERROR\n",
    b"vm_state_notify running 0 reason 7 (finish-migrate)\n",
    b"migrate_set_state new state completed\n", b"vfio_save_block  (a) ",
    b"vfio_state_pending_exact  (a) precopy 18446744073709551616 ",
    b'{"event": "STOP", "timestamp": {"seconds": -1, "microseconds": 9}}\n',
    SIGNATURE,
)  # fmt: skip


def mutated(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Damage an input in a few places.

    :param draw: Makes the choices.
    :param data: The input.
    :param other: Another input of the same kind, to take parts of.
    """
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(data) + 1)
        length = draw.choice((0, 0, 1, 2, 8, 80, 2000))
        match draw.randrange(8):
            case 0:
                token = draw.choice(_TOKENS)
            case 1:
                token = draw.randbytes(draw.randint(1, 9))
            case 2 if data:
                # Flip a bit.
                at = draw.randrange(len(data))
                token, length = bytes([data[at] ^ 1 << draw.randrange(8)]), 1
            case 3:
                begin = draw.randrange(len(other) + 1)
                token = other[begin : begin + draw.choice((20, 400, 4000))]
            case 4:
                data = _lines(draw, data)
                continue
            case 5:
                # The end is missing.
                token, length = b"", len(data)
            case 6:
                token = data[at : at + length]
            case _:
                token = b""
        data = data[:at] + token + data[at + length :]
    return data[: 4 * _MOST_BYTES]


def _lines(draw: random.Random, data: bytes) -> bytes:
    """Leave out, repeat or exchange lines."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(3):
        case 0:
            lines[first], lines[second] = lines[second], lines[first]
        case 1:
            lines.insert(first, lines[second])
        case _:
            del lines[first : first + draw.randint(1, 5)]
    return b"".join(lines)


def kind_of(path: Path, data: bytes) -> str:
    """Return what kind of log this is."""
    if data.startswith(SIGNATURE):
        return "simple"
    if path.suffix == ".jsonl" or b'"event"' in data[:400]:
        return "qmp"
    if b"LC_ALL=C" in data or b"initiating migration" in data or (
        b"shutting down, reason" in data
    ):
        return "libvirt"
    first = data.lstrip(b"\xef\xbb\xbf")[:1]
    return "log" if first.isdigit() and b"@" in data[:40] else "wrapped"


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Return inputs by kind.

    :param folder: Gets the bundles.
    """
    found: dict[str, list[bytes]] = {"mail": [*GOOD.values()]}
    found["mail"] += [data for data, _ in BAD.values()]
    for path in sorted([*UNIT.glob("cases/**/*"), *UNIT.glob("data/**/*")]):
        if path.is_dir() or path.suffix not in (
            ".log", ".trace", ".txt", ".jsonl", ".out",
        ):  # fmt: skip
            continue
        data = path.read_bytes()
        if 0 < len(data) <= _MOST_BYTES:
            found.setdefault(kind_of(path, data), []).append(data)
    path = make_bundle(folder / "bundle")
    pack(open_bundle(path), folder / "bundle.zip")
    found["bundle"] = [(folder / "bundle.zip").read_bytes()]
    return found


def resealed(draw: random.Random, data: bytes) -> bytes:
    """Damage one file of a bundle, and make its digest right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {x: archive.read(x) for x in archive.namelist()}
    name = draw.choice(sorted(files))
    files[name] = mutated(draw, files[name], b"")
    manifest = next((x for x in files if x.endswith("manifest.json")), "")
    digest = next((x for x in files if "digest" in x.lower()), "")
    if manifest and digest and digest != name:
        value = hashlib.sha256(files[manifest]).hexdigest()
        files[digest] = value.encode() + files[digest][64:]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content)
    return buffer.getvalue()


def read_logs(data: bytes, folder: Path) -> None:
    """Judge a log, and print and explain the verdict."""
    path = folder / "input.log"
    path.write_bytes(data)
    found = check_logs(LogsRequest(path))
    "\n".join(command._text(found, explained=True))
    command._as_json(found)


def read_mail(data: bytes, folder: Path) -> None:
    """Check a mail as b4 lets us do."""
    check_patch(PatchRequest(data), workshop=Reading())


def read_bundle(data: bytes, folder: Path) -> None:
    """Judge a bundle, and report on it."""
    path = folder / "input.zip"
    path.write_bytes(data)
    render("table", check_bundle(path))


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "bundle": read_bundle,
    "mail": read_mail,
}


def inputs(
    draw: random.Random, every: dict[str, list[bytes]], kinds: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield damaged inputs, and of which kind they were."""
    while True:
        kind = draw.choice(kinds)
        data = draw.choice(every[kind])
        if kind == "bundle" and draw.random() < 0.8:
            yield kind, resealed(draw, data)
        else:
            yield kind, mutated(draw, data, draw.choice(every[kind]))


def main() -> int:
    """Read damaged inputs, and count what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="KIND")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR"
    )
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    sys.setrecursionlimit(1000)
    counts: Counter[tuple[str, str]] = Counter()
    slowest_s, failures = 0.0, 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        every = seeds(folder)
        kinds = [args.only] if args.only else sorted(every)
        draw = random.Random(args.seed)
        source = inputs(draw, every, kinds)
        for number in range(args.executions):
            kind, data = next(source)
            begin = time.process_time()
            what = "answer"
            try:
                READERS.get(kind, read_logs)(data, folder)
            except HarnessError as err:
                what = f"error {err.exit_code}"
                if not err.what or not err.hint:
                    what = "failure: an error without a hint"
            except BaseException as err:
                if isinstance(err, KeyboardInterrupt):
                    raise
                what = f"failure: {type(err).__name__}"
                traceback.print_exc()
            took_s = time.process_time() - begin
            slowest_s = max(slowest_s, took_s)
            if took_s > _MOST_S:
                what = f"failure: {took_s:.1f} s"
            if what.startswith("failure"):
                failures += 1
                args.keep.mkdir(exist_ok=True)
                kept = args.keep / f"{kind}-{args.seed}-{number}"
                kept.write_bytes(data)
                print(f"{kept}: {what}", file=sys.stderr)
            counts[kind, what] += 1
    for (kind, what), count in sorted(counts.items()):
        print(f"{kind:8} {what:12} {count:8}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{args.executions} executions, seed {args.seed}: {failures} "
        f"failures, the slowest took {slowest_s:.2f} s, {peak} MiB at most"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
