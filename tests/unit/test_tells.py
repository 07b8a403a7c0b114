# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of a QEMU that has no trace backend `log`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from bundles import good_destination, good_source, make_bundle
from qemu_log import FakeQemu
from qmp_events import events_of, log
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.errors import BundleError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import Job, Place
from vfio_p2p.plans.matrix import _refusal, _waits_for_a_line
from vfio_p2p.qemu import binary
from vfio_p2p.scenario.argv import Launcher, qemu_argv
from vfio_p2p.scenario.load import load, names
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.tells import Tells
from vfio_p2p.trace import heard
from vfio_p2p.verdict import Assessment, assess, read_run
from workshops import program_of

LOGS = {
    **good_source().device_logs(),
    **good_destination().device_logs(),
}


def transcript(qemu: FakeQemu, prefix: str) -> bytes:
    """Return what QEMU says over QMP in a run."""
    said: list[dict[str, object]] = []

    def add(way: str, time_ns: int, msg: object) -> None:
        said.append({"time_ns": time_ns, "dir": way, "msg": msg})

    for event in events_of(qemu):
        at: Any = event["timestamp"]
        at_ns = (at["seconds"] * 10**6 + at["microseconds"]) * 1000
        if not said:
            add("<-", at_ns - 10**6, {"return": {}})
        add("<-", at_ns, event)
    add("->", at_ns + 1000, {"execute": "quit"})
    add("<-", at_ns + 2000, {"return": {}})
    return log(said).replace(f'"{prefix}'.encode(), b'"vfio')


def said() -> dict[str, bytes]:
    """Return the transcripts of a run that is as it should be."""
    return {
        "source": transcript(good_source(), "src"),
        "destination": transcript(good_destination(), "dst"),
    }


def judged(
    path: Path, tells: Tells, transcripts: dict[str, bytes]
) -> Assessment:
    """Judge a run whose traces are empty."""
    bundle = make_bundle(
        path,
        qemus={"source": b"", "destination": b""},
        tells=tells,
        transcripts=transcripts,
        logs=LOGS,
    )
    return assess(open_bundle(bundle))


def test_events_take_the_place_of_a_trace(tmp_path: Path) -> None:
    found = judged(tmp_path / "run", Tells.EVENTS, said())
    assert found.verdict is Verdict.PASS, found
    assert found.blackout_ns is not None


def test_nothing_passes_without_them(tmp_path: Path) -> None:
    for name, tells, transcripts in (
        ("log", Tells.LOG, said()),
        ("simple", Tells.SIMPLE, said()),
        ("none", Tells.EVENTS, {}),
        ("one", Tells.EVENTS, {**said(), "source": b""}),
        ("other", Tells.EVENTS, {**said(), "destination": b""}),
    ):
        found = judged(tmp_path / name, tells, transcripts)
        assert found.verdict is Verdict.INCONCLUSIVE, (name, found)


@pytest.mark.parametrize("tells", Tells)
def test_only_they_switch_the_events_on(tells: Tells) -> None:
    launcher = Launcher(("qemu",), Path("/firmware"), tells)
    devices = [{"sysfsdev": "/a"}, {"sysfsdev": "/b"}]
    argv = qemu_argv(
        launcher, load("two-devices"), "source", devices, incoming=False
    )
    told = [x for x in argv if x.endswith(",migration-events=on")]
    assert len(told) == (0 if tells is Tells.LOG else 2)
    assert all(x.startswith("vfio-pci,") for x in told)


@pytest.mark.parametrize(
    ("items", "said", "tells"),
    [
        ("trace:PATTERN   enable trace events", "", Tells.LOG),
        ("cpu", "invalid object type", Tells.SIMPLE),
        (
            "cpu",
            "error: --trace file=...: option not supported by the selected "
            "tracing backends",
            Tells.EVENTS,
        ),
    ],
)
def test_a_binary_is_asked(
    monkeypatch: pytest.MonkeyPatch, items: str, said: str, tells: Tells
) -> None:
    def answer(path: Path, launch: tuple[str, ...], *words: str) -> str:
        return items if words == ("-d", "help") else said

    monkeypatch.setattr(binary, "_ask", answer)
    found = binary._tells(Path("qemu"), ("qemu",), (10, 2))
    assert found is tells
    if tells is not Tells.LOG:
        with pytest.raises(UsageError, match=r"before 9\.1"):
            binary._tells(Path("qemu"), ("qemu",), (9, 0))


def test_a_trace_by_the_time_since_the_start(tmp_path: Path) -> None:
    def first_ns(path: Path, clocks: dict[str, bytes]) -> int:
        bundle = open_bundle(make_bundle(path, clocks=clocks))
        source, _ = read_run(bundle).timelines
        assert source.epochs[0].notify is not None
        at_ns = source.epochs[0].notify.time_ns
        assert at_ns is not None
        return at_ns

    usual = first_ns(tmp_path / "usual", {})
    ahead = first_ns(tmp_path / "ahead", {"source": b"-12345\n"})
    assert ahead - usual == -12345
    with pytest.raises(BundleError, match=r"clock\.txt is damaged"):
        first_ns(tmp_path / "bad", {"source": b"soon"})


def test_who_waits_for_a_line_is_skipped() -> None:
    class Anywhere:
        @staticmethod
        def refusal(scenario: Scenario) -> str:
            return ""

    place = cast(Place, Anywhere())
    waits = next(x for x in map(load, names()) if _waits_for_a_line(x))
    for tells in Tells:
        program = msgspec.structs.replace(program_of("x"), tells=tells)
        why = _refusal(place, Job.of(program, waits, 1))
        assert bool(why) is (tells is not Tells.LOG)
        assert _refusal(place, Job.of(program, load("one-device"), 1)) == ""


def test_what_is_heard() -> None:
    whole = said()["source"]
    found = heard(whole)
    assert found is not None
    assert found.start_ns < found.end_ns
    assert whole.startswith(found.data)
    rest = whole.removeprefix(found.data)
    assert b'"quit"' in rest.splitlines()[0]
    assert b'"return"' in rest.splitlines()[1]
    assert heard(whole.splitlines(keepends=True)[1]) is None
    # Without quit, all of it counts.
    early = heard(found.data)
    assert early is not None
    assert early.data == found.data


def test_who_was_asked_before(tmp_path: Path) -> None:
    """A request that no event can tell of is no disagreement."""
    late = said()
    first, *rest = late["source"].splitlines(keepends=True)
    booted = [x for x in rest if b"RUNNING" not in x.upper()]
    at = json.loads(booted[0])["time_ns"] - 1000
    start = json.loads(first) | {"time_ns": at}
    dropped = len(rest) - len(booted)
    assert dropped
    late["source"] = json.dumps(start).encode() + b"\n" + b"".join(
        rest[rest.index(booted[0]) :]
    )
    assert judged(tmp_path / "late", Tells.EVENTS, late).verdict is (
        Verdict.PASS
    )
