# SPDX-License-Identifier: GPL-2.0-or-later
"""Files with several scenarios, and the expected results of faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p.errors import ScenarioError, UsageError
from vfio_p2p.scenario.load import load, names, parse
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.scenario.step import PLAIN
from vfio_p2p.side import Side

GOOD = """\
name = "all"
summary = "common"

[[devices]]
[[devices]]

[expect.base]
outcome = "refused"
message = "no"

[[cases]]
name = "one"
side = "source"
faults = ["arc PRE_COPY PRE_COPY_P2P 1 fail EIO"]

[cases.expect.patched]
outcome = "timed-out"
hangs = {src0 = "PRE_COPY>PRE_COPY_P2P"}
ends = {src0 = "PRE_COPY"}

[[cases]]
name = "two"
summary = "its own"
device = 1
side = "destination"
faults = ["reset 1 fail EIO"]
steps = [{do = "stop"}]
expect.patched = {outcome = "crashed", message = "x"}

[[cases]]
name = "control"
"""


def refusal(text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        parse(text.encode(), "x.toml")
    return caught.value


def test_each_case_is_a_scenario() -> None:
    one, two, control = parse(GOOD.encode(), "x.toml")
    assert [x.name for x in (one, two, control)] == [
        "all-one", "all-two", "all-control",
    ]
    assert [x.summary for x in (one, two)] == ["common", "its own"]
    assert one.devices[0].faults == ("arc PRE_COPY PRE_COPY_P2P 1 fail EIO",)
    assert one.devices[0].fault_side is Side.SOURCE
    assert not one.devices[1].faults
    assert two.devices[1].fault_side is Side.DESTINATION
    assert not any(x.faults for x in (*control.devices, two.devices[0]))
    assert one.steps == control.steps == PLAIN
    assert len(two.steps) == 1
    assert {x.expect.base.outcome for x in (one, two, control)} == {
        Outcome.REFUSED
    }
    assert one.expect.patched.ends == {"src0": "PRE_COPY"}
    assert two.expect.patched.outcome is Outcome.CRASHED
    assert control.expect.patched.outcome is Outcome.MIGRATED
    assert len({x.digest for x in (one, two, control)}) == 3


def test_a_case_has_another_number_of_devices() -> None:
    text = GOOD.replace('name = "control"', 'name = "control"\ncount = 5')
    *others, control = parse(text.encode(), "x.toml")
    assert [x.count for x in control.devices] == [5, 1]
    assert [x.count for x in control.each_device()] == [5] * 5 + [1]
    assert [[x.count for x in y.devices] for y in others] == [[1, 1]] * 2
    second = text.replace("count = 5", "count = 5\ndevice = 1")
    assert [x.count for x in parse(second.encode(), "x")[2].devices] == [1, 5]


def line(number: int, text: str) -> str:
    lines = GOOD.splitlines()
    lines[number - 1] = text
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("number", "text", "key", "why"),
    [
        (12, 'name = "One"', "cases.0.name", "regex"),
        (13, 'side = "both"', "cases.0.side", "both"),
        (13, "colour = 1", "cases.0.colour", "unknown"),
        (13, "", "cases.0.side", "both a side and"),
        (14, "", "cases.0.side", "both a side and"),
        (14, 'faults = ["arc 1"]', "cases.0.faults", "is none of"),
        (14, 'faults = ["arc STOP RUNNING 1 fail EIO"]', "cases.0.f", "arc"),
        (17, 'outcome = "fine"', "cases.0.expect.patched.outcome", "fine"),
        (18, 'hangs = {a = "b"}', "cases.0.expect.patched.hangs", "an arc"),
        (18, 'hangs = {"" = "b"}', "cases.0.expect.patched.hangs", "regex"),
        (19, 'ends = {src0 = "x"}', "cases.0.expect.patched.ends", "'x'"),
        (22, 'name = "one"', "cases.1.name", "another"),
        (24, "device = 2", "cases.1.device", "2 tables"),
        (24, "count = 0", "cases.1.count", ">= 1"),
        (27, 'steps = [{do = "fly"}]', "cases.1.steps", "fly"),
    ],
)
def test_bad_case(number: int, text: str, key: str, why: str) -> None:
    found = refusal(line(number, text))
    # A missing key is reported on the line of its table.
    tables = {12: 11, 13: 11, 14: 13} if not text else {}
    assert found.line == tables.get(number, number)
    assert key in found.what
    assert why in found.what


def test_a_hang_that_ends_in_time() -> None:
    found = refusal(line(17, 'outcome = "migrated"'))
    assert found.line == 18
    assert "hangs: the outcome must be timed-out" in found.what


def test_a_case_that_does_not_fit_its_file() -> None:
    found = refusal(line(28, 'expect.patched = {outcome = "cancelled"}'))
    assert (found.line, "no step can lead to" in found.what) == (28, True)


@pytest.mark.parametrize("cases", ["[]", "3", "{}"])
def test_no_cases(cases: str) -> None:
    refusal(f"cases = {cases}\n{GOOD.partition('[[cases]]')[0]}")


def test_case_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    assert load(f"{path}:two").name == "all-two"
    for what in (path, f"{path}:three", f"{path}:"):
        with pytest.raises(UsageError) as caught:
            load(what)
        assert f"{path}:CASE" in caught.value.hint
        assert "one" in caught.value.hint
    path.write_text(GOOD.partition("[[cases]]")[0])
    assert load(path).name == "all"
    with pytest.raises(UsageError, match="no case 'one'"):
        load(f"{path}:one")
    with pytest.raises(UsageError, match="no scenario"):
        load(f"{tmp_path / 'other.toml'}:one")


def test_traffic_after_a_late_cancel() -> None:
    """One file has the scenario for each number of devices."""
    for name, count in (("two", 2), ("four", 4), ("eight", 8)):
        found = load(f"cancelled-after-stop-with-traffic-{name}-devices")
        assert len(found.each_device()) == count
        assert found.summary.startswith(f"{name} devices")
        assert all(x.peers == "mesh" for x in found.devices)
        assert found.expect.upstream((10, 2)).breaks == ()
        assert found.expect.upstream((11, 1)).breaks == (
            "barrier", "conservation",
        )


def test_library_has_cases() -> None:
    found = [load(name) for name in names() if "-fault-" in name]
    assert found
    for scenario in found:
        assert any(device.faults for device in scenario.devices)


KEYS = """\
name = "all"
since = "10.0"

[[devices]]
precopy_info_v2 = true

[properties]
migration-events = "on"

[migration]
capabilities = {multifd = true}
parameters = {multifd-channels = 4}

[[cases]]
name = "own"
since = "11.1"
until = "11.2"
count = 3
reinit_drain = 1
properties = {x-no-mmap = "on"}
globals = {"migration.x" = "on"}
capabilities = {switchover-ack = true}
parameters = {multifd-channels = 2}
expect.since."11.1" = {outcome = "cancelled"}

[[cases]]
name = "plain"
"""


def test_what_a_case_adds() -> None:
    text = KEYS.replace("outcome = \"cancelled\"", "breaks = [\"order\"]")
    own, plain = parse(text.encode(), "x.toml")
    (device,) = own.devices
    assert (device.count, device.reinit_drain) == (3, 1)
    assert device.precopy_info_v2
    assert own.properties == {"migration-events": "on", "x-no-mmap": "on"}
    assert own.globals == {"migration.x": "on"}
    assert own.migration.capabilities == {
        "multifd": True, "switchover-ack": True,
    }
    assert own.migration.parameters == {"multifd-channels": 2}
    assert (own.since, own.until) == ("11.1", "11.2")
    assert own.expect.since["11.1"].breaks == ("order",)
    (device,) = plain.devices
    assert (device.count, device.reinit_drain) == (1, 0)
    assert plain.properties == {"migration-events": "on"}
    assert (plain.since, plain.until) == ("10.0", "")
    assert plain.migration.parameters == {"multifd-channels": 4}


def test_wrong_values_of_a_case() -> None:
    found = refusal(KEYS.replace("reinit_drain = 1", "reinit_drain = -1"))
    assert "reinit_drain" in str(found)
    assert found.line == 19
    found = refusal(KEYS)
    assert "no step can lead to cancelled" in str(found)
    found = refusal(KEYS.replace("precopy_info_v2 = true", ""))
    assert "only with precopy_info_v2" in str(found)
