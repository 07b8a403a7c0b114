# SPDX-License-Identifier: GPL-2.0-or-later
"""Latency profiles: their files, and how scenarios use them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from reports import run_document
from vfio_p2p.cli import main
from vfio_p2p.cli.entry import make_parser
from vfio_p2p.devices import Driver
from vfio_p2p.devices.p2psim import settings_of
from vfio_p2p.downtime.compare import compare
from vfio_p2p.errors import ScenarioError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.setting import Setting
from vfio_p2p.progress import SILENT
from vfio_p2p.report import html, mail, text
from vfio_p2p.report.commands import commands
from vfio_p2p.report.comparison import compared_sets, comparison_lines
from vfio_p2p.report.document import Document
from vfio_p2p.report.runs import failed_run
from vfio_p2p.report.sections import ComparedRuns
from vfio_p2p.scenario.device import LoadIn, OnBadStream, ResetWay
from vfio_p2p.scenario.load import load, load_profile, parse, profiles
from vfio_p2p.scenario.model import Device, Flag, Scenario, from_json
from vfio_p2p.scenario.profile import ArcLatency, Profile, latencies
from vfio_p2p.verdict.assess import Assessment

STOP = "STOP_COPY>STOP"


def scenario(keys: str) -> Scenario:
    return parse(f'name = "x"\n[[devices]]\n{keys}\n'.encode(), "x.toml")[0]


def test_the_profiles_of_the_package() -> None:
    assert profiles() == [
        "cx7", "cx7-multifd", "heavy", "hisi-acc", "pds", "qat", "virtio",
        "xe", "zero",
    ]  # fmt: skip
    for name in profiles():
        profile = load_profile(name)
        assert profile.name == name
        # p2psim takes only single arcs, and each has a latency.
        assert len(profile.arcs) in (0, 14)


def test_cx7_has_the_figures_of_the_docs() -> None:
    # The arcs that a device takes with a patched tree, in microseconds.
    path = (
        "PRE_COPY>PRE_COPY_P2P", "PRE_COPY_P2P>STOP_COPY",
        "STOP>RUNNING_P2P", "RUNNING_P2P>RUNNING",
    )
    # ... and the time of the 61504 bytes that are left when it has stopped.
    for name, arcs_us, data_us in (
        ("cx7", 236_000, 210_000), ("cx7-multifd", 226_000, 115_000),
    ):  # fmt: skip
        found = load_profile(name)
        assert sum(found.latency_us[arc] for arc in path) == arcs_us
        assert "RESUMING>STOP" not in found.latency_us
        assert found.data
        ns = found.data.write_ns_per_kib * 61504 // 1024
        assert abs(ns // 1000 - data_us) < 500
    heavy = load_profile("heavy").latency_us
    assert heavy.pop(path[0]) == 300_000
    cx7 = load_profile("cx7").latency_us
    del cx7[path[0]]
    assert heavy == cx7


def with_profile(name: str, profile: str) -> Scenario:
    """Load a scenario with the latencies of a profile."""
    return load_for(name, Setting(profile=profile), SILENT)


def test_profile_of_a_device() -> None:
    found = scenario('profile = "cx7"')
    (device,) = found.devices
    assert device.latency_us == load_profile("cx7").latency_us
    assert device.profile == "cx7"
    assert latencies(found) == "profile cx7, a model"


def test_own_latencies_override() -> None:
    found = scenario(
        f'profile = "cx7"\nlatency_us = {{ "{STOP}" = 7, "STOP>RUNNING" = 8 }}'
    )
    latency_us = found.devices[0].latency_us
    assert latency_us[STOP] == 7
    assert latency_us["STOP>RUNNING"] == 8
    assert latency_us["PRE_COPY_P2P>STOP_COPY"] == 216_000
    assert found.devices[0].load_in is LoadIn.WRITE
    assert latencies(found) == (
        f"profile cx7, but {STOP}, STOP>RUNNING, a model"
    )


def test_a_recorded_scenario_needs_no_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = scenario('profile = "cx7"')
    monkeypatch.setattr(
        "vfio_p2p.resources.images", lambda: tmp_path
    )
    again = from_json(found.to_json())
    assert again == found
    assert again.digest == found.digest
    assert again.devices[0].latency_us[STOP] == 31_000


def test_profile_is_part_of_the_identity() -> None:
    plain = load("one-device")
    digests = {
        with_profile("one-device", name).digest
        for name in profiles()
        if set(load_profile(name).flags) == set(Flag)
    }
    assert len(digests | {plain.digest}) == 6


def test_a_profile_replaces_the_latencies_of_a_scenario() -> None:
    plain = load("two-devices")
    found = with_profile("two-devices", "cx7")
    assert found.name == "two-devices-cx7"
    assert found.expect == plain.expect
    (device,) = found.devices
    assert device.count == 2
    assert device.latency_us == load_profile("cx7").latency_us
    zero = with_profile("two-devices", "zero")
    assert zero.devices == (Device(count=2, profile="zero"),)


def test_a_long_name_is_shortened() -> None:
    found = load_profile("cx7").replace(
        Scenario(name="x" * 63, devices=(Device(),))
    )
    assert from_json(found.to_json()) == found
    assert found.name.endswith("x-cx7")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ('profile = "cx8"', "x.toml:3: devices.0.profile: no profile 'cx8'"),
        ("profile = 7", "x.toml:3: devices.0.profile: Expected `str`"),
        (
            'flags = ["stop_copy"]\nprofile = "cx7"',
            "x.toml:4: devices.0.profile: the profile cx7 is for devices",
        ),
    ],
)
def test_a_wrong_profile_of_a_device(keys: str, why: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(keys)
    assert caught.value.what.startswith(why)


GOOD = 'format = 1\nname = "x"\nsummary = "x"\n'
ARC = f'[[arcs]]\narc = "{STOP}"\nus = 5\nsource = "assumed"\n'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD, "missing required field `arcs`"),
        (GOOD + "[[arcs]]\n", "4: arcs.0"),
        (GOOD + ARC.replace('"assumed"', '""'), "7: arcs.0.source"),
        (GOOD + ARC.replace("= 5", "= -5"), "6: arcs.0.us"),
        (GOOD + ARC.replace("= 5", "= 5.5"), "6: arcs.0.us"),
        (GOOD + ARC.replace(">", "-"), "arcs: 'STOP_COPY-STOP' is not an"),
        (GOOD + ARC + ARC, "arcs: STOP_COPY>STOP is listed twice"),
        (GOOD + ARC + "colour = 3\n", "8: arcs.0.colour"),
        (GOOD.replace("1", "2") + ARC, "1: format: format 2 is newer"),
        ("format = 1\nname = 'x'\narcs = []\n", "field `summary`"),
    ],
)
def test_a_file_that_is_not_a_profile(
    tmp_path: Path, data: str, why: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD + ARC)
    assert load_profile(path).latency_us == {STOP: 5}
    path.write_text(data)
    with pytest.raises(ScenarioError) as caught:
        load_profile(path)
    if why[0].isdigit():
        why = f"{path}:{why}"
    assert why in caught.value.what


def test_bad_arguments() -> None:
    make_parser("run")
    with pytest.raises(UsageError, match="no profile 'cx8'") as caught:
        with_profile("one-device", "cx8")
    assert "cx7" in caught.value.hint
    mtty = Setting(driver=Driver.MTTY, profile="cx7")
    with pytest.raises(UsageError, match="is for p2psim"):
        load_for("one-device", mtty, SILENT)
    with pytest.raises(UsageError, match="does not fit one-device-without"):
        with_profile("one-device-without-p2p", "cx7")


@pytest.mark.parametrize("mode", ["--mutants", "--per-patch"])
def test_modes_that_have_their_own_latencies(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", mode, "--profile", "cx7"]) == 2
    assert "Leave out --profile" in capsys.readouterr().err


def test_ways_of_a_driver() -> None:
    """A device can have its own ways, and a profile its own flags."""
    found = scenario(
        'profile = "cx7"\non_bad_stream = "keep"\nwrite_ns_per_kib = 7'
    )
    (device,) = found.devices
    assert device.load_in is LoadIn.WRITE
    assert device.reset is ResetWay.DEFER
    assert device.write_ns_per_kib == 7
    assert latencies(found) == (
        "profile cx7, but write_ns_per_kib, on_bad_stream, a model"
    )
    # What is p2psim's own way is said like any other.
    said = 'profile = "cx7"\nload_in = "resuming_stop"\nwrite_ns_per_kib = 0'
    (device,) = scenario(said).devices
    assert device.load_in is LoadIn.RESUMING_STOP
    assert device.write_ns_per_kib == 0
    assert ("load_in", "resuming_stop") in settings_of(device)
    # A profile replaces what the scenario's devices have of their own.
    (device,) = load_profile("cx7").replace(found).devices
    assert device.write_ns_per_kib == 3_500_000
    (device,) = scenario(
        'profile = "pds"\nflags = ["p2p", "stop_copy"]'
    ).devices
    assert device.on_bad_stream is OnBadStream.KEEP
    assert device.load_in is LoadIn.RESUMING_STOP
    with pytest.raises(ScenarioError, match=r"flags stop_copy, p2p$"):
        scenario('profile = "pds"')


@pytest.mark.parametrize("name", profiles())
def test_every_profile_has_its_sources(name: str) -> None:
    found = load_profile(name)
    assert found.name == name
    assert name == "zero" or found.driver
    device = found.of(Device(flags=found.flags))
    assert device.profile == name


def test_profiles_are_for_devices_with_all_flags() -> None:
    profile = Profile(
        format=1, name="x", summary="x",
        arcs=(ArcLatency(arc=STOP, us=5, source="assumed"),),
    )
    devices = (profile.of(Device()), Device(), profile.of(Device(count=2)))
    assert latencies(Scenario(name="x", devices=devices)) == (
        "profile x, a model"
    )
    assert latencies(load("one-device")) == ""
    with pytest.raises(ValueError, match="flags stop_copy, p2p, pre_copy"):
        profile.of(Device(flags=(Flag.STOP_COPY, Flag.PRE_COPY)))


def test_reports_say_that_it_is_a_model(tmp_path: Path) -> None:
    said = "profile cx7, a model"
    found = run_document(tmp_path)
    runs = tuple(
        msgspec.structs.replace(
            run, scenario=f"{run.scenario}-cx7", latencies=said
        )
        for run in found.runs
    )
    found = msgspec.structs.replace(found, runs=runs)
    name = found.runs[0].scenario
    assert f"{said}, in {name}" in " ".join(mail.render(found).split())
    assert f"{said}, in {name}" in html.render(found)
    command = commands(found)[0]
    assert f"run {name.removesuffix('-cx7')} --profile cx7 " in command
    one = failed_run(
        "base", "x-cx7", 1, Assessment(Verdict.PASS, ""), latencies=said
    )
    shown = text.render(Document.of((one, one)))
    assert f"latencies of x-cx7: {said}" in shown
    side = ComparedRuns(
        name="a", qemu="QEMU", scenario="x-cx7", latencies=said
    )
    assert f"latencies: {said}" in comparison_lines(
        compared_sets(side, side, compare([], []))
    )
