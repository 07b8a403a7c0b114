# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps and expectations in scenario files."""

from __future__ import annotations

import pytest
from vfio_p2p.errors import ScenarioError
from vfio_p2p.scenario.load import load, names, parse
from vfio_p2p.scenario.model import Scenario, from_json, release
from vfio_p2p.scenario.step import (
    PLAIN,
    Kill,
    Migrate,
    Reset,
    Status,
    Stop,
    Wait,
)
from vfio_p2p.side import Side
from vfio_p2p.uapi import DeviceState

HEAD = 'name = "x"\ndevices = [{}, {root_port = true}]\n'
SEQUENCE = """\
[[expect.patched.sequences]]
on = "source"
states = ["RUNNING_P2P STOP", "STOP_COPY"]
since = "8.2"
until = "10.2"
"""


def scenario(text: str) -> Scenario:
    (found,) = parse((HEAD + text).encode(), "x.toml")
    return found


def refusal(text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        scenario(text)
    return caught.value


def test_steps() -> None:
    found = scenario(
        "steps = [\n"
        '{do = "migrate", cut_bytes = 5}, {do = "stop"},\n'
        '{do = "kill", on = "destination"}, {do = "reset"},\n'
        '{do = "wait", status = "pre-switchover"},\n'
        "]\n"
    )
    assert found.steps == (
        Migrate(cut_bytes=5),
        Stop(),
        Kill(on=Side.DESTINATION),
        Reset(),
        Wait(status=Status.PRE_SWITCHOVER),
    )
    assert [str(step) for step in found.steps] == [
        "migrate 5", "stop source", "kill destination",
        "reset source", "wait source pre-switchover",
    ]
    assert from_json(found.to_json()) == found


def test_plain_migration_is_what_happens_otherwise() -> None:
    assert scenario("").steps == PLAIN
    written = 'steps = [{do = "migrate"}, {do = "wait", status="completed"}]'
    assert scenario(written).digest == scenario("").digest


@pytest.mark.parametrize(
    ("step", "key", "why"),
    [
        ("{}", "steps.0", "do"),
        ('{do = "dance"}', "steps.0.do", "dance"),
        ('{do = "stop", on = "moon"}', "steps.0.on", "moon"),
        ('{do = "stop", colour = 1}', "steps.0.colour", "unknown"),
        ('{do = "cancel", on = "source"}', "steps.0.on", "unknown"),
        ('{do = "migrate", cut_bytes = -1}', "steps.0.cut_bytes", "0"),
        ('{do = "wait"}', "steps.0.status", "either"),
        (
            '{do = "wait", status = "active", trace = "x"}',
            "steps.0.status",
            "either",
        ),
        ('{do = "wait", status = "happy"}', "steps.0.status", "happy"),
        ('{do = "wait", status = "active"}', "steps", "1 waits for"),
        ('{do = "unplug"}', "steps.0", "device"),
        ('{do = "unplug", device = 0}', "steps", "root_port"),
        ('{do = "unplug", device = 2}', "steps", "no device 2"),
    ],
)
def test_wrong_step(step: str, key: str, why: str) -> None:
    found = refusal(f"steps = [{step}]\n")
    assert found.line == 3
    assert str(found).startswith(f"x.toml:3: {key}")
    assert why in str(found)


def test_sequence() -> None:
    (found,) = scenario(SEQUENCE).expect.patched.sequences
    assert found.requests == (
        DeviceState.RUNNING_P2P, DeviceState.STOP, DeviceState.STOP_COPY,
    )
    assert [
        version
        for version in ("8.1.5", "8.2", "10.0.13 (x)", "10.2.9", "10.3")
        if found.holds_for(version)
    ] == ["8.2", "10.0.13 (x)", "10.2.9"]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("STOP_COPY", "FLY", "'FLY' is not a state"),
        ('"8.2"', '"new"', "since: 'new' is not a release"),
        ('"10.2"', '"10"', "until: '10' is not a release"),
        ('"source"', '"source-"', "on: "),
        ('on = "source"', "", "on"),
        ("until", "device = 2\nuntil", "a sequence names a device"),
        (
            'patched.sequences]]\non = "source"',
            'followups.mend.sequences]]\non = "source"\ndevice = 2',
            "a sequence names a device",
        ),
        ("patched", "followups.Mend", "expect.followups"),
    ],
)
def test_wrong_sequence(old: str, new: str, why: str) -> None:
    assert why in str(refusal(SEQUENCE.replace(old, new)))


@pytest.mark.parametrize(
    "text",
    [
        'guest = {moon = "running"}',
        'migration = {source = "happy"}',
        'guest = ["running"]',
    ],
)
def test_wrong_expectation(text: str) -> None:
    assert "expect.base" in str(refusal(f"[expect.base]\n{text}\n"))


@pytest.mark.parametrize("text", ["", "ten", "10", ".1", "1.99999", "x10.0"])
def test_no_release(text: str) -> None:
    with pytest.raises(ValueError, match="is not a release"):
        release(text)


@pytest.mark.parametrize("name", names())
def test_library_expects_what_can_be_there(name: str) -> None:
    found = load(name)
    assert found.summary
    turns = sum(str(step) == "turn" for step in found.steps)
    for expected in (found.expect.base, found.expect.patched):
        qemus = {*expected.guest, *expected.migration}
        qemus |= {sequence.on for sequence in expected.sequences}
        for qemu in qemus - {"source", "destination"}:
            migrations = sum(isinstance(x, Migrate) for x in found.steps)
            assert turns or migrations > 1, qemu
