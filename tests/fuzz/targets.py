# SPDX-License-Identifier: GPL-2.0-or-later
"""One target for each way in for what others hand over.

A target does with a file what the command that reads it does, without a
process of its own where that can be avoided.  It may give an answer or raise a
HarnessError; everything else is a failure.

Where a command can print in several forms, the input determines which one is
made, as all of them would take too long.
"""

from __future__ import annotations

import io
import sqlite3
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import mutate

_Item = TypeVar("_Item")

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests/unit"
sys.path.insert(0, str(UNIT))

from b4_mails import BAD, GOOD  # noqa: E402
from bundles import MIGRATED, make_bundle  # noqa: E402
from fake_qemu import make_tree  # noqa: E402
from histories import MS, entries  # noqa: E402
from qemu_log import FakeQemu, devices, migrate, receive  # noqa: E402
from reports import evil_document, run_document  # noqa: E402
from test_attach import BOTH, recorded  # noqa: E402
from test_b4_mutated import Reading  # noqa: E402
from test_hosts_file import WHOLE  # noqa: E402
from test_own_guest import DISK, DRIVER, KERNEL  # noqa: E402
from test_uprobes import FakeElf  # noqa: E402
from vfio_p2p import resources  # noqa: E402
from vfio_p2p.bundle.manifest import (  # noqa: E402
    MANIFEST,
    Manifest,
    manifest_from_json,
)
from vfio_p2p.bundle.read import open_bundle  # noqa: E402
from vfio_p2p.bundle.write import pack, seal  # noqa: E402
from vfio_p2p.cli import check as check_command  # noqa: E402
from vfio_p2p.history.alert_table import (  # noqa: E402
    raise_alerts,
    read_alerts,
)
from vfio_p2p.history.alerts import find_changes, in_series  # noqa: E402
from vfio_p2p.history.database import open_history  # noqa: E402
from vfio_p2p.history.trend import trends  # noqa: E402
from vfio_p2p.oracle.verdict import Verdict  # noqa: E402
from vfio_p2p.places.hosts.config import load_hosts  # noqa: E402
from vfio_p2p.plans import b4, sources  # noqa: E402
from vfio_p2p.plans.check import LogsRequest, check_logs  # noqa: E402
from vfio_p2p.plans.scenarios import as_json  # noqa: E402
from vfio_p2p.plans.trace_script import (  # noqa: E402
    TraceScriptRequest,
    trace_script,
)
from vfio_p2p.qemu import binary  # noqa: E402
from vfio_p2p.qemu.source import find_source  # noqa: E402
from vfio_p2p.qemu.tarball import unpack  # noqa: E402
from vfio_p2p.report import history as history_report  # noqa: E402
from vfio_p2p.report import html  # noqa: E402
from vfio_p2p.report.collect import collect  # noqa: E402
from vfio_p2p.report.document import Document, to_json  # noqa: E402
from vfio_p2p.report.formats import FORMATS, render  # noqa: E402
from vfio_p2p.report.shard import (  # noqa: E402
    SHARD,
    Listing,
    Unmade,
    read_listing,
)
from vfio_p2p.scenario.load import load_cases, load_profile  # noqa: E402
from vfio_p2p.series import Patch, check_patch  # noqa: E402
from vfio_p2p.series.pile import changed_files, patches_of_file  # noqa: E402
from vfio_p2p.trace.simple import SIGNATURE  # noqa: E402

# Larger ones are read as well, but not so often.
_MOST_BYTES = 12 << 10
# What a run leaves, in one file; see `_folder`.
_PART = b"\n=== "
_FILES = (
    "source/trace.log", "source/qmp.jsonl",
    "destination/trace.log", "destination/qmp.jsonl",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A way in.

    :param run: Reads a file as a command does.
    :param seeds: Makes good inputs, in an empty folder.
    :param ways: The modules of the package by which the file comes in.
    :param name: The name that the file gets.
    :param damage: Damages an input.
    """

    run: Callable[[Path], None]
    seeds: Callable[[Path], Sequence[bytes]]
    ways: tuple[str, ...]
    name: str = "input"
    damage: mutate.Damage = mutate.damaged


def _one_of(path: Path, items: Iterable[_Item]) -> _Item:
    """Choose by an input: the same input has always the same choice."""
    ordered = list(items)
    return ordered[zlib.crc32(path.read_bytes()) % len(ordered)]


def _log(path: Path) -> None:
    """'check' a log, or 'report' on it."""
    form = _one_of(path, ("text", "text", "json", *FORMATS))
    if form == "html":
        # It takes ten times as long; 'bundle' and 'report' make it.
        form = "markdown"
    if form in ("text", "json"):
        found = check_logs(LogsRequest(path))
        if form == "text":
            "\n".join(check_command._text(found, explained=True))
        else:
            check_command._as_json(found)
    else:
        render(form, collect([path]))


def _folder(path: Path) -> None:
    """'report' on the folder of a run, which is a recording or not."""
    data = path.read_bytes()
    kind, *parts = data.split(_PART)
    with TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        (folder / "source").mkdir()
        (folder / "destination").mkdir()
        for part in parts:
            file, _, content = part.partition(b"\n")
            for known in _FILES:
                if known.encode() == file:
                    (folder / known).write_bytes(content)
        if kind == b"recording":
            result = MIGRATED.to_json()
            (folder / "result.json").write_bytes(result)
            seal(folder, _attached().inputs)
        if _one_of(path, (True, False)):
            found = check_logs(LogsRequest(folder))
            check_command._as_json(found)
        else:
            render("json", collect([folder]))


@cache
def _attached() -> Manifest:
    with TemporaryDirectory() as name:
        folder = recorded(Path(name, "x"), *BOTH)
        return manifest_from_json((folder / MANIFEST).read_bytes())


def _mail(path: Path) -> None:
    """'b4-check' of a mail, up to the build."""
    b4.check_patch(b4.PatchRequest(path.read_bytes()), workshop=Reading())


# These depend on no input, and take most of the time of 'b4-check'.
for module, name in (
    (b4, "load_for"),
    (sources, "default_base"),
    (sources, "base_for"),
):
    setattr(module, name, cache(getattr(module, name)))


def _patch(path: Path) -> None:
    """'--patch' with a file, up to the tree that it is for."""
    patches = patches_of_file(Patch.load(path))
    changed_files(patches)
    for patch in patches:
        check_patch(patch)


def _report(path: Path) -> None:
    """'report' on a bundle or an older report."""
    render(_one_of(path, FORMATS), collect([path]))


def _history(path: Path) -> None:
    """'history', or 'report --history'."""
    with open_history(path) as history:
        history.metrics()
        found = list(history.entries())
        list(history_report.alerts(read_alerts(history)))
    form = _one_of(path, ("list", "export", "plot", "html"))
    if form == "list":
        list(history_report.listing(found, "blackout"))
    elif form == "export":
        list(history_report.as_json(found))
    elif form == "plot":
        for trend in trends(found, "blackout"):
            history_report.plot(trend)
    else:
        html.render(_empty(), trends(found, "blackout"))


@cache
def _empty() -> Document:
    with TemporaryDirectory() as name:
        return collect([make_bundle(Path(name, "x"))])


def _scenario(path: Path) -> None:
    """'run' and 'scenario show' with a file."""
    for case in load_cases(path):
        as_json(f"{path}:{case}" if case else str(path))


def _profile(path: Path) -> None:
    """'--profile' with a file."""
    load_profile(path)


def _hosts(path: Path) -> None:
    """'--hosts' with a file."""
    assert load_hosts(path).places is not None


def _shard(path: Path) -> None:
    """'--collect' with a folder."""
    read_listing(path.parent)


def _elf(path: Path) -> None:
    """'trace-script' for a program."""
    trace_script(TraceScriptRequest(path, path="/usr/bin/qemu"))


def _program(path: Path) -> None:
    """'--qemu' with a program, which is not started here."""
    if loader := binary._examine(path):
        binary._own_loader(path, loader)


def _tarball(path: Path) -> None:
    """'--source' with a tarball, and with the folder that it makes."""
    with TemporaryDirectory(dir=path.parent) as name:
        unpack(path, Path(name).resolve())
        find_source(Path(name), "10.0")


def _cases(*kinds: str) -> list[bytes]:
    """Return what the unit tests have of some kinds of logs."""
    found = []
    for path in sorted([*UNIT.glob("cases/**/*"), *UNIT.glob("data/**/*")]):
        if path.is_file() and path.suffix in (
            ".log", ".trace", ".txt", ".jsonl", ".out",
        ):  # fmt: skip
            data = path.read_bytes()
            if 0 < len(data) <= _MOST_BYTES and kind_of(path, data) in kinds:
                found.append(data)
    return sorted(set(found), key=len)


def kind_of(path: Path, data: bytes) -> str:
    """Return what kind of log this is.

    :param path: Its file.
    :param data: Its content.
    """
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


def _logs(*kinds: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: _cases(*kinds)


def _folder_seeds(folder: Path) -> list[bytes]:
    names = devices("src0", "src1")
    sides = {"source": migrate(FakeQemu(names)).log(),
             "destination": receive(FakeQemu(names)).log()}  # fmt: skip
    events = _cases("qmp")
    return [
        kind
        + b"".join(
            _PART + f"{side}/{file}\n".encode() + content
            for side, trace in sides.items()
            for file, content in (("trace.log", trace), ("qmp.jsonl", qmp))
            if not (file == "trace.log" and kind == b"events")
        )
        for kind in (b"recording", b"logs", b"events")
        for qmp in events
    ]


def _mail_seeds(folder: Path) -> list[bytes]:
    return [*GOOD.values(), *(data for data, _ in BAD.values())]


def _bundle_seeds(folder: Path) -> list[bytes]:
    pack(open_bundle(make_bundle(folder / "b")), folder / "b.zip")
    old = sorted(UNIT.glob("data/*/*.zip"))
    return [x.read_bytes() for x in (folder / "b.zip", *old)]


def _report_seeds(folder: Path) -> list[bytes]:
    documents = (run_document(folder), evil_document(folder / "e"))
    made = [to_json(x).encode().replace(b"A" * 5000, b"") for x in documents]
    old = [x.read_bytes() for x in sorted(UNIT.glob("data/be555e3/*.json"))]
    return [x for x in (*made, *old) if len(x) < 6 * _MOST_BYTES]


def _history_seeds(folder: Path) -> list[bytes]:
    path = folder / "history.sqlite3"
    values = [300 * MS + n + n // 6 * 200 * MS for n in range(12)]
    with open_history(path, write=True) as history:
        history.add(entries(values))
        groups = in_series(entries(values))
        raise_alerts(history, find_changes(groups), groups, 0)
    # A journal beside the file would be part of it.
    return [_without_wal(path)]


def _without_wal(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return path.read_bytes()


def _toml_seeds(*folders: Path) -> Callable[[Path], list[bytes]]:
    return lambda folder: [
        path.read_bytes() for x in folders for path in sorted(x.glob("*.toml"))
    ]


def _hosts_seeds(folder: Path) -> list[bytes]:
    own = (x + "\n" + DRIVER for x in (KERNEL, DISK))
    texts = [WHOLE, *(WHOLE.replace(DRIVER, x) for x in own)]
    return [text.encode() for text in texts]


def _shard_seeds(folder: Path) -> list[bytes]:
    unmade = Unmade(verdict=Verdict.SKIP, summary="skipped", scenario="5ce")
    runs = ("patched-one-device-s42", "patched-two-devices-s42")
    found = Listing(
        number=2, count=4, runs=runs, unmade={runs[0]: unmade}
    )
    return [found.to_json()]


def _elf_seeds(folder: Path) -> list[bytes]:
    return [FakeElf().to_bytes(), FakeElf(relocated=False).to_bytes()]


def _tarball_seeds(folder: Path) -> list[bytes]:
    tree = make_tree(folder / "qemu")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(tree, "qemu")
    return [buffer.getvalue()]


_LIBRARY = resources.resource("scenario", "library")
_PROFILES = resources.images() / "p2psim" / "profiles"
_IN_LOGS = ("timeline/logs.py", "timeline/build.py")

TARGETS: Mapping[str, Target] = {
    "log": Target(_log, _logs("log"), _IN_LOGS, "input.log"),
    "wrapped": Target(_log, _logs("wrapped"), _IN_LOGS, "input.log"),
    "libvirt": Target(_log, _logs("libvirt"), _IN_LOGS, "input.log"),
    "simple": Target(_log, _logs("simple"), _IN_LOGS, "input.log"),
    "qmp": Target(
        _log, _logs("qmp"), _IN_LOGS, "input.log", mutate.damaged_lines
    ),
    "packed": Target(
        _log,
        _logs("log", "simple"),
        _IN_LOGS,
        "input.log.gz",
        mutate.damaged_packed,
    ),
    "folder": Target(
        _folder,
        _folder_seeds,
        (*_IN_LOGS, "downtime/logs.py", "bundle/read.py"),
    ),
    "bundle": Target(
        _report,
        _bundle_seeds,
        ("bundle/read.py", "report/collect.py"),
        "input.zip",
        mutate.damaged_bundle,
    ),
    "report": Target(
        _report,
        _report_seeds,
        ("report/collect.py",),
        "report.json",
        mutate.damaged_json,
    ),
    "history": Target(
        _history,
        _history_seeds,
        ("history/database.py",),
        damage=mutate.damaged_database,
    ),
    "mail": Target(_mail, _mail_seeds, ("cli/b4_check.py",)),
    "patch": Target(_patch, _mail_seeds, ("series/patch.py",)),
    "scenario": Target(
        _scenario,
        _toml_seeds(_LIBRARY, _LIBRARY / "cases"),
        ("scenario/strict.py",),
        "input.toml",
        mutate.damaged_toml,
    ),
    "profile": Target(
        _profile,
        _toml_seeds(_PROFILES),
        ("scenario/strict.py",),
        "input.toml",
        mutate.damaged_toml,
    ),
    "hosts": Target(
        _hosts,
        _hosts_seeds,
        ("scenario/strict.py",),
        "input.toml",
        mutate.damaged_toml,
    ),
    "shard": Target(
        _shard,
        _shard_seeds,
        ("report/shard.py",),
        SHARD,
        mutate.damaged_json,
    ),
    "elf": Target(_elf, _elf_seeds, ("attach/elf.py",)),
    "program": Target(_program, _elf_seeds, ("qemu/binary.py",)),
    "tarball": Target(
        _tarball,
        _tarball_seeds,
        ("qemu/source.py", "series/tree.py"),
        "input.tar",
        mutate.damaged_tarball,
    ),
}
