# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs between two hosts, whose clocks differ by a known offset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bundles import good_source, make_bundle
from qemu_log import FakeQemu, devices, migrate, receive
from vfio_p2p.bundle.manifest import manifest_from_json
from vfio_p2p.bundle.provenance import (
    FunctionProvenance,
    HostProvenance,
    MachineProvenance,
)
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.clock import ClockOffset
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document, from_json, to_json
from vfio_p2p.report.formats import REPORTS, render
from vfio_p2p.report.runs import run_of
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import read_run

MS = 10**6


def machine(name: str) -> MachineProvenance:
    """One machine with two functions."""
    return MachineProvenance(
        name=name,
        hostname=f"{name}.example",
        kernel="6.12.95",
        cpu="A CPU",
        cores=2,
        driver="mlx5",
        functions=tuple(
            FunctionProvenance(
                address=f"0000:08:00.{number}",
                ids="15b3:101e",
                firmware="28.43.1014",
                psid="MT_0000000838",
                numa_node=1,
            )
            for number in (2, 3)
        ),
        load=(0.5, 0.25, 0.125),
    )


def run_with(
    path: Path, ahead_ns: int, clock: ClockOffset | None
) -> Bundle:
    """A run whose destination's clock is ahead."""
    target = FakeQemu(devices("dst0", "dst1"))
    target.begin_ns += ahead_ns
    return open_bundle(
        make_bundle(
            path,
            source=good_source(),
            destination=receive(target).log(),
            # The devices' own logs have the clock of their host as well.
            logs={f"dst{number}": None for number in (0, 1)},
            place=HostProvenance(
                name="both",
                source=machine("a"),
                destination=machine("b"),
                transport="tcp",
                clock=clock,
            ),
        )
    )


def offset(offset_ns: int, bound_ns: int) -> ClockOffset:
    return ClockOffset(
        offset_ns=offset_ns,
        bound_ns=bound_ns,
        round_trip_ns=2 * bound_ns,
        exchanges=60,
        via="UDP",
    )


def test_both_sides_may_have_devices_of_one_name(tmp_path: Path) -> None:
    names = ("0000:01:10.0", "0000:01:10.2")
    found = assess(
        open_bundle(
            make_bundle(
                tmp_path / "x",
                source=migrate(FakeQemu(devices(*names))),
                destination=receive(FakeQemu(devices(*names))).log(),
                logs=dict.fromkeys(names),
                place=HostProvenance(
                    name="both", source=machine("a"), destination=machine("b")
                ),
            )
        )
    )
    assert (found.verdict, found.findings) == (Verdict.PASS, ())


def true_ns(path: Path) -> int:
    found = assess(open_bundle(make_bundle(path))).blackout_ns
    assert found is not None
    return found


@pytest.mark.parametrize("ahead_ns", [100 * MS, -100 * MS, 10**12, 0])
def test_the_blackout_is_right_within_its_bound(
    tmp_path: Path, ahead_ns: int
) -> None:
    error_ns, bound_ns = 1_500_000, 2 * MS
    bundle = run_with(
        tmp_path / "x", ahead_ns, offset(ahead_ns + error_ns, bound_ns)
    )
    found = assess(bundle)
    assert found.verdict is Verdict.PASS
    assert found.blackout_ns == true_ns(tmp_path / "sealed") - error_ns
    run = run_of(bundle, found)
    assert run.blackout_bound_ns == bound_ns
    away = [x for x in run.phases if x.side is Side.DESTINATION]
    assert [x for x in run.phases if x.bound_ns is not None] == away[:1]
    assert away[0].bound_ns == bound_ns
    assert sum(x.duration_ns for x in run.phases) == found.blackout_ns
    assert not run.exact


def test_contradicting_clocks_leave_no_blackout(tmp_path: Path) -> None:
    bundle = run_with(tmp_path / "x", -10_000 * MS, offset(0, 2 * MS))
    found = assess(bundle)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.blackout_ns is None
    (note,) = [x for x in found.notes if "clocks" in x]
    assert "more than the 2.000 ms by which they may be off" in note
    assert "before the source has" in note


def test_one_host_has_no_bound(tmp_path: Path) -> None:
    bundle = run_with(tmp_path / "x", 0, None)
    assert assess(bundle).blackout_ns == true_ns(tmp_path / "sealed")
    assert read_run(bundle).breakdown.blackout.bound_ns is None
    assert run_of(bundle).blackout_bound_ns is None


def test_management_s_figure_is_shifted_too(tmp_path: Path) -> None:
    ahead_ns = 50 * MS
    bundle = run_with(tmp_path / "x", ahead_ns, offset(ahead_ns, MS))

    def event(name: str, at_us: int) -> bytes:
        return (
            f'{{"msg": {{"event": "{name}", "timestamp": '
            f'{{"seconds": 5, "microseconds": {at_us}}}}}}}\n'
        ).encode()

    files = {
        **bundle.files,
        "source/qmp.jsonl": event("STOP", 1000),
        "destination/qmp.jsonl": event("RESUME", 61_000),
    }
    reading = read_run(replace(bundle, files=files))
    assert reading.breakdown.beside.stop_to_resume_ns == 10 * MS


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_says_it(tmp_path: Path, name: str) -> None:
    bundle = run_with(tmp_path / "x", 0, offset(0, 2_345_000))
    document = Document.of((run_of(bundle),), qemu="QEMU 10.0.99")
    assert from_json(to_json(document).encode(), "x") == document
    text = render(name, document)
    if name == "perfetto":      # it shows lanes, and no figures
        return
    assert "2345000" in text or "2.345" in text
    if name in ("mail", "html"):
        assert "mlx5" in text


def test_only_a_host_needs_the_newer_format(tmp_path: Path) -> None:
    of_host = run_with(tmp_path / "x", 0, offset(1, 2))
    sealed = open_bundle(make_bundle(tmp_path / "sealed"))
    assert (of_host.manifest.format, sealed.manifest.format) == (3, 2)
    assert manifest_from_json(of_host.manifest.to_json()) == of_host.manifest
