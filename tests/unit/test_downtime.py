# SPDX-License-Identifier: GPL-2.0-or-later
"""Blackouts are taken apart into phases."""

from __future__ import annotations

import io
import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import make_bundle
from hypothesis import given
from hypothesis import strategies as st
from qemu_log import FakeQemu, devices, migrate, receive, timeline
from test_timeline import REAL
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import main
from vfio_p2p.downtime import (
    BlackoutPhase,
    Breakdown,
    Interval,
    PhaseName,
    phases,
)
from vfio_p2p.downtime.metrics import blind, metrics
from vfio_p2p.downtime.transcript import (
    expected_downtime_ms,
    stop_to_resume_ns,
)
from vfio_p2p.errors import UnevenError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Blackout, Side
from vfio_p2p.trace import VERSIONS, read_device_log
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import read_run

N = PhaseName
OLD_PHASES = set(N) - {N.VM_STOPPED, N.FINAL_QUERY}
REAL_LINES = {
    side: path.read_bytes().splitlines(keepends=True)
    for side, path in REAL.items()
}


def real(
    source: list[bytes] | None = None, destination: list[bytes] | None = None
) -> Breakdown:
    """Return the breakdown of the real logs, or of parts of them."""
    lines = (
        REAL_LINES[Side.SOURCE] if source is None else source,
        REAL_LINES[Side.DESTINATION] if destination is None else destination,
    )
    return phases(
        timeline(b"".join(lines[0])),
        timeline(b"".join(lines[1]), Side.DESTINATION),
    )


def fake(version: str, *, series: bool = True) -> Breakdown:
    """Return the breakdown of a migration by a QEMU that only prints."""
    prefix = "iso" if version in ("11.0", "11.1", "10.2") else "thread"
    source = migrate(
        FakeQemu(devices("a", "b"), version, prefix, series=series)
    )
    destination = receive(
        FakeQemu(devices("a", "b"), version, prefix, series=series)
    )
    return phases(
        source.timeline(), destination.timeline(Side.DESTINATION)
    )


def test_real_phases_to_the_nanosecond() -> None:
    found = real()
    assert found.blackout.duration_ns == 37_251_000
    # Calculated by hand from the lines of the logs.
    assert {x.name: x.duration_ns // 1000 for x in found.phases} == {
        N.P2P_ARCS: 648_613 - 648_526,
        N.STOP_ARCS: 648_727 - 648_613,
        N.RAM: 649_409 - 648_727,
        N.DEVICE_SAVED: 652_470 - 649_409,
        N.NON_ITERABLE: 676_367 - 652_470,
        N.LOAD_DONE: 684_471 - 676_367,
        N.START: 684_636 - 684_471,
        N.START_P2P_ARCS: 685_677 - 684_636,
        N.START_ARCS: 685_777 - 685_677,
    }
    # That run was traced without these three events.
    assert [(x.what, x.within) for x in found.not_observable] == [
        (N.DIRTY_SYNC, N.RAM),
        (N.DEVICE_LOADED, N.LOAD_DONE),
        (N.STREAM_END, N.LOAD_DONE),
    ]
    assert "--trace vmstate_downtime_load" in found.not_observable[2].why


def test_real_devices_and_critical_path() -> None:
    found = real()
    (first, *_, last) = found.critical_path
    assert (first.interval, last.interval) == (
        found.intervals[0], found.intervals[-1]
    )
    assert found.intervals[0] == Interval(
        Side.SOURCE,
        "src1",
        "PRE_COPY>PRE_COPY_P2P",
        N.P2P_ARCS,
        1795401449_648526000,
        1795401449_648553000,
    )
    assert metrics(found)["device.dst0.running-p2p"] == 509_000
    # The STOP that the series moves is not waited for any more.
    assert [x.activity for x in found.outside] == ["STOP_COPY>STOP"] * 2
    assert metrics(found)["outside.src0.stop"] == 30_000
    assert "device.src0.stop" not in metrics(found)
    assert found.beside.stop_request_ns == 13_000


def put(side: Side, after: bytes, *lines: str) -> list[bytes]:
    """Return the real log with lines added behind another line."""
    found = list(REAL_LINES[side])
    at = next(i for i, line in enumerate(found) if after in line) + 1
    found[at:at] = [
        f"150@1795401449.{us}:{text}\n".encode()
        for us, text in (line.split(" ", 1) for line in lines)
    ]
    return found


def test_sections_tell_when_a_device_began() -> None:
    section = "vmstate_downtime_save type=non-iterable idstr=x instance_id=0"
    found = real(
        put(
            Side.SOURCE,
            b"vfio_save_device_config_state  (src0)",
            f"673320 {section} downtime=39",
        )
    )
    assert metrics(found)["device.src0.save-config"] == 29_000


def test_only_what_nothing_hides_is_waited_for() -> None:
    # The load lasts from before the first stop request until after the end of
    # the source's work.
    found = real(
        destination=put(
            Side.DESTINATION,
            b"vfio_migration_set_device_state  (dst1) state RESUMING",
            "648500 vfio_load_state  (dst0) data 0xffffffffef100004",
            "677000 vfio_load_state_device_data  (dst0) size 61480 ret 0",
        )
    )
    part = found.phase(N.DEVICE_LOADED)
    assert part is not None
    assert part.duration_ns == (677_000 - 676_367) * 1000
    (load,) = (x for x in found.intervals if x.activity == "load")
    assert load.duration_ns == (677_000 - 648_526) * 1000
    assert metrics(found)["device.dst0.load"] == part.duration_ns
    assert sum(x.end_ns - x.start_ns for x in found.critical_path) == (
        found.blackout.duration_ns
    )


@pytest.mark.parametrize("series", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_adds_up(version: str, series: bool) -> None:
    found = fake(version, series=series)
    assert found.phases
    assert sum(x.duration_ns for x in found.phases) == (
        found.blackout.duration_ns
    )
    blind_to = {x.what for x in found.not_observable}
    told = {x.name for x in found.phases}
    assert told.isdisjoint(blind_to)
    # These logs have no line that only 11.1 prints.
    assert (told | blind_to) & set(PhaseName) == OLD_PHASES
    entry = VERSIONS.index(version) >= VERSIONS.index("9.1")
    assert ("stop-request" in blind_to) is not entry
    # A request without a line before it has no length.
    arcs = [x for x in found.intervals if ">" in x.activity]
    assert bool(arcs) is entry
    assert any(x.startswith("a PRE_COPY") for x in blind_to) is not entry
    if not series:
        assert found.phases[0].duration_ns == 0


def test_phases_that_a_version_cannot_tell() -> None:
    why = {x.what: x.why for x in fake("8.1").not_observable}
    assert why[N.NON_ITERABLE] == (
        "no vmstate_downtime_checkpoint src-non-iterable-saved in the "
        "source's log; QEMU prints it with --trace "
        "vmstate_downtime_checkpoint"
    )
    # With this prefix a log may be of 8.1 or of 10.0; this makes it 8.1.
    source = migrate(FakeQemu(devices("a"), "8.1", "thread"))
    source.lines.append(
        source.lines[0].split(":")[0] + ":migration_return_path_end_after 0"
    )
    target = receive(FakeQemu(devices("a"), "8.1", "thread"))
    found = phases(source.timeline(), target.timeline(Side.DESTINATION))
    assert "QEMU 8.1 does not print vmstate_downtime_checkpoint" in {
        x.what: x.why for x in found.not_observable
    }[N.NON_ITERABLE]


@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_adds_up_whatever_is_lost(rng: random.Random, lost: int) -> None:
    left = []
    for side in Side:
        lines = list(REAL_LINES[side])
        for _ in range(min(lost, len(lines) - 1)):
            lines.pop(rng.randrange(len(lines)))
        left.append(lines)
    found = real(*left)
    whole_ns = found.blackout.duration_ns
    for parts in (found.phases, found.critical_path):
        total_ns = sum(x.end_ns - x.start_ns for x in parts)
        assert total_ns == (whole_ns or 0)


def test_without_times_there_is_nothing() -> None:
    source = migrate(FakeQemu(devices("a"), "10.0", "none"))
    target = receive(FakeQemu(devices("a"), "10.0", "none"))
    found = phases(source.timeline(), target.timeline(Side.DESTINATION))
    assert found.phases == ()
    assert "no times" in found.not_observable[0].why
    assert metrics(found) == {}


def test_a_breakdown_with_a_gap_cannot_be_made() -> None:
    whole = Blackout(10, True, "", 100)
    good = (
        BlackoutPhase(N.P2P_ARCS, 100, 104),
        BlackoutPhase(N.START_ARCS, 104, 110),
    )
    assert Breakdown(whole, good).phase(N.START_ARCS) == good[1]
    for bad in (
        good[:1],
        good[1:],
        (good[0], replace(good[1], start_ns=105)),
        (good[0], replace(good[1], end_ns=111)),
        (),
    ):
        with pytest.raises(ValueError, match="phases"):
            Breakdown(whole, bad)


def test_devices_log_times_what_the_trace_cannot() -> None:
    source = migrate(FakeQemu(devices("a"), "9.0", "thread"))
    target = receive(FakeQemu(devices("b"), "9.0", "thread"))
    sides = source.timeline(), target.timeline(Side.DESTINATION)
    arc = next(
        x for x in sides[0].arcs if x.requested.name == "PRE_COPY_P2P"
    )
    assert arc.done is not None
    assert arc.done.time_ns is not None
    begin_ns, end_ns = arc.done.time_ns - 70_123, arc.done.time_ns + 400
    log = (
        "p2psim-log version=1 clock=CLOCK_REALTIME\n"
        f"{begin_ns} request from=PRE_COPY to=PRE_COPY_P2P\n"
        f"{end_ns} result to=PRE_COPY_P2P state=PRE_COPY_P2P ret=0\n"
    )
    said = {"a": read_device_log(io.BytesIO(log.encode()), "a.log")}
    found = phases(replace(sides[0], logs=said), sides[1])
    assert metrics(found)["device.a.pre-copy-p2p"] == 70_123
    unseen = {x.what for x in found.not_observable}
    assert "a PRE_COPY>PRE_COPY_P2P" not in unseen
    assert "a PRE_COPY_P2P>STOP_COPY" in unseen


def test_figures_of_runs_that_tell_different_things() -> None:
    whole = real()
    lines = [
        x for x in REAL_LINES[Side.SOURCE] if b"non-iterable-saved" not in x
    ]
    less = real(lines)
    merged = blind([whole, less])
    assert merged == {
        N.DIRTY_SYNC, N.NON_ITERABLE, N.DEVICE_LOADED, N.STREAM_END
    }
    for found in (whole, less):
        figures = metrics(found, merged)
        assert "phase.non-iterable-state" not in figures
        assert sum(
            value for name, value in figures.items() if "phase." in name
        ) == figures["blackout"]
    assert metrics(whole, merged)["phase.load-done"] == (
        metrics(less, merged)["phase.load-done"]
    )


def test_a_device_of_one_name_on_both_sides() -> None:
    figures = metrics(fake("10.0"))
    assert "device.source:a.stop-copy" in figures
    assert "device.destination:a.running" in figures


def test_bundle(tmp_path: Path) -> None:
    found = read_run(open_bundle(make_bundle(tmp_path / "b"))).breakdown
    assert found.phases
    assert found.beside.qmp_downtime_ms == 20
    assert metrics(found)["qmp.downtime"] == 20_000_000


def test_a_bundle_whose_blackout_has_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    good = read_run(bundle).breakdown
    monkeypatch.setattr(
        "vfio_p2p.verdict.reading.phases",
        lambda *_: replace(good, phases=good.phases[1:]),
    )
    with pytest.raises(UnevenError, match="there is a gap before"):
        assert read_run(bundle).breakdown
    found = assess(bundle)
    assert found.verdict is Verdict.ERROR
    assert "there is a gap before" in found.notes[0]
    # No command ends in a traceback.
    assert main(["report", str(bundle.path)]) == 5
    assert "there is a gap before" in capsys.readouterr().err


def test_stop_to_resume() -> None:
    def line(event: str, us: int) -> bytes:
        return (
            b'{"time_ns": 1, "dir": "<-", "msg": {"event": "%s", '
            b'"timestamp": {"seconds": 1, "microseconds": %d}}}\n'
            % (event.encode(), us)
        )

    source = line("STOP", 5) + b"cut off" + line("STOP", 20) + b"[[[\n"
    source += line("STOP", 90)
    source += line("STOP", 30).replace(b"STOP", b"S\x80OP")
    assert stop_to_resume_ns(source, line("RESUME", 50)) == 45_000
    source = source.replace(b"cut off", b"")
    assert stop_to_resume_ns(source, line("RESUME", 50)) == 30_000
    assert stop_to_resume_ns(source, b"") is None
    assert stop_to_resume_ns(b"", line("RESUME", 50)) is None


def test_order_of_names_is_the_order_of_sides() -> None:
    sides = [name.side for name in PhaseName]
    assert [side for side, _ in itertools.groupby(sides)] == list(Side)


def test_expected_downtime() -> None:
    def answers(*pairs: tuple[str, int]) -> bytes:
        return b"".join(
            b'{"time_ns": 1, "dir": "<-", "msg": {"return": '
            b'{"status": "%s", "expected-downtime": %d}}}\n'
            % (status.encode(), expected)
            for status, expected in pairs
        )

    told = answers(("active", 900), ("active", 300), ("device", 300_000))
    noise = b'{"msg": {"event": "STOP"}}\n{"msg": {"return": {}}}\n{"ms'
    assert expected_downtime_ms(noise + b"\n" + told + noise) == 300
    assert expected_downtime_ms(answers(("setup", 300))) is None
    assert expected_downtime_ms(b"") is None
