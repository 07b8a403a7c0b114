# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files: their contents, and errors in them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfio_p2p.errors import ScenarioError, UsageError
from vfio_p2p.scenario.load import load, load_profile, names, parse
from vfio_p2p.scenario.model import (
    Device,
    Flag,
    Limits,
    Outcome,
    Peers,
    Scenario,
    from_json,
)
from vfio_p2p.side import Side

GOOD = """\
# A comment.
name = "two"

[[devices]]
flags = ["stop_copy", "p2p"]

[[devices]]
count = 2

[devices.latency_us]
"RUNNING>RUNNING_P2P" = 1000

[migration]
capabilities = { return-path = false, multifd = true }

[migration.parameters]
max-bandwidth = 1000000

[limits]
launch_s = 10

[expect.base]
outcome = "refused"
message = "no"
"""


def refusal(text: str | bytes) -> ScenarioError:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ScenarioError) as caught:
        parse(data, "x.toml")
    assert caught.value.exit_code == 2
    return caught.value


def test_good_scenario() -> None:
    (found,) = parse(GOOD.encode(), "x.toml")
    assert found.name == "two"
    assert [device.has_precopy for device in found.each_device()] == [
        False, True, True,
    ]
    assert found.devices[1].latency_us == {"RUNNING>RUNNING_P2P": 1000}
    assert found.limits == Limits(launch_s=10.0)
    assert found.migration.parameters == {"max-bandwidth": 1000000}
    assert found.expect.base.outcome is Outcome.REFUSED
    assert found.expect.patched.outcome is Outcome.MIGRATED


@pytest.mark.parametrize("name", names())
def test_scenarios_that_come_with_the_tool(name: str) -> None:
    assert load(name).name == name


def test_not_found() -> None:
    with pytest.raises(UsageError, match="no scenario 'nonsense'") as caught:
        load("nonsense")
    assert "vfio-p2p scenario list" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        load("two-device")
    assert "two-devices" in caught.value.hint


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scenario"):
        load(tmp_path)


def test_own_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    assert load(path) == load(str(path))
    assert parse(GOOD.encode(), "") == (load(path),)


def test_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    path.write_text(GOOD + "#" * (1 << 20))
    with pytest.raises(ScenarioError, match="larger than 1 MiB"):
        load(path)


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.toml"
    os.mkfifo(path)
    for read in (load, load_profile):
        with pytest.raises(ScenarioError, match="not a regular file"):
            read(path)


def line(number: int, text: str) -> str:
    """Return GOOD with another line."""
    lines = GOOD.splitlines()
    lines[number - 1] = text
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("number", "text", "key", "why"),
    [
        (2, "name = 5", "name", "str"),
        (2, 'name = "Two Devices"', "name", "regex"),
        (2, 'name = "two\\n"', "name", "regex"),
        (3, "colour = 1", "colour", "unknown field"),
        (5, "colour = 1", "devices.0.colour", "unknown field"),
        (5, 'flags = "p2p"', "devices.0.flags", "array"),
        (5, 'flags = ["stop_copy", "p4p"]', "devices.0.flags", "p4p"),
        (5, "size_bytes = 4095", "devices.0.size_bytes", "4096"),
        (5, "latency_us = 3", "devices.0.latency_us", "object"),
        (5, "latency_us = { colour = 3 }", "devices.0.lat", "'colour'"),
        (5, "latency_us.colour = 3", "devices.0.latency_us", "'colour'"),
        (5, "initial_bytes = 65537", "devices.0.initial_bytes", "more"),
        (5, "dirty_bytes = 65537", "devices.0.dirty_bytes", "more"),
        (5, 'flags = ["p2p"]', "devices.0.flags", "stop_copy"),
        (5, 'flags = ["p2p", "p2p"]', "devices.0.flags", "twice"),
        (5, 'latency_us = { "RUNNING" = 1 }', "devices.0.lat", "arc"),
        (5, 'latency_us = { "STOP>FLY" = 1 }', "devices.0.lat", "arc"),
        (5, 'latency_us = { "STOP>STOP>STOP" = 1 }', "devices.0.lat", "arc"),
        (5, 'latency_us = { " - at `[5].x" = 1 }', "devices.0.lat", "arc"),
        (5, 'peers = "ring"', "devices.0.peers", "ring"),
        (5, "peers = [1]", "devices.0.peers", "str"),
        (5, "peer_period_us = 9", "devices.0.peer_period_us", ">= 10"),
        (5, "peer_period_us = 60000001", "devices.0.peer_period_us", "<= 6"),
        (5, "peer_completion_us = -1", "devices.0.peer_completion_us", "0"),
        (5, 'faults = "reset 1 fail EIO"', "devices.0.faults", "array"),
        (5, 'faults = ["reset 1 fail EIO"]', "devices.0.faults", "which side"),
        (5, 'faults = ["reset 1"]', "devices.0.faults", "'reset 1' is none"),
        (5, 'fault_side = "source"', "devices.0.fault_side", "no faults"),
        (5, 'fault_side = "both"', "devices.0.fault_side", "both"),
        (8, "count = 0", "devices.1.count", "1"),
        (8, "count = 33", "devices.1.count", "32"),
        (8, "count = true", "devices.1.count", "int"),
        (8, "count = 1.5", "devices.1.count", "int"),
        (8, 'initial_bytes = "x"', "devices.1.initial_bytes", "int"),
        (10, "[devices.latency_ms]", "devices.1.latency_ms", "unknown"),
        (11, '"RUNNING>STOP" = "x"', "devices.1.latency_us.RUNN", "int"),
        (11, '"RUNNING>STOP" = -1', "devices.1.latency_us", "0"),
        (13, "[migrations]", "migrations", "unknown field"),
        (14, "capabilities = { x = 1 }", "migration.capabilities.x", "bool"),
        (17, "max-bandwidth = []", "migration.parameters.max-b", "array"),
        (17, f"x = {10**30}", "migration.parameters.x", "<= 9"),
        (17, f"x = {1 << 63}", "migration.parameters.x", "<= 9"),
        (17, f"x = {-(1 << 63) - 1}", "migration.parameters.x", ">= -9"),
        (19, "[limit]", "limit", "unknown field"),
        (20, "launch_s = 0", "limits.launch_s", "> 0"),
        (20, "launch_s = 4000", "limits.launch_s", "3600"),
        (20, "launch_ms = 1", "limits.launch_ms", "unknown field"),
        (22, "[expect.stock]", "expect.stock", "unknown field"),
        (23, 'outcome = "dunno"', "expect.base.outcome", "dunno"),
        (24, 'message = " "', "expect.base.message", "refused"),
        (24, 'message = ["a", " "]', "expect.base.message", "a part of"),
        (24, "message = []", "expect.base.message", "is empty"),
        (24, "message = 3", "expect.base.message", "str"),
    ],
)
def test_wrong_line(number: int, text: str, key: str, why: str) -> None:
    found = refusal(line(number, text))
    assert found.line == number
    assert str(found).startswith(f"x.toml:{number}: {key}")
    assert why in str(found)


@pytest.mark.parametrize(
    ("number", "text", "why"),
    [
        (2, "", "name"),
        (4, 'flags = ["p2p"]\n[[devices]]', "flags"),
    ],
)
def test_missing_or_misplaced(number: int, text: str, why: str) -> None:
    assert why in str(refusal(line(number, text)))


@pytest.mark.parametrize(
    ("peers", "count", "why"),
    [
        ("pairs", 1, "must be even"),
        ("pairs", 3, "must be even"),
        ("mesh", 1, "one device alone"),
    ],
)
def test_peers_without_a_peer(peers: str, count: int, why: str) -> None:
    found = refusal(
        f'name = "x"\n[[devices]]\npeers = "{peers}"\ncount = {count}\n'
    )
    assert why in str(found)


def test_inline_tables() -> None:
    text = 'name = "x"\n\ndevices = [\n  { count = 1 },\n  { count = 0 },\n]\n'
    found = refusal(text)
    assert found.line == 5
    assert "devices.1.count" in str(found)


def test_second_of_many_tables() -> None:
    tables = "".join(
        f"\n[[devices]]\ncount = {count}\n" for count in (1, 2, 99, 4)
    )
    found = refusal(f'name = "x"\n{tables}')
    assert found.line == 10
    assert "devices.2.count" in str(found)


def test_text_that_looks_like_a_key() -> None:
    text = 'summary = """\ncount = 1\n[guest]\nram_mib = 1\n"""\n' + line(
        20, "[guest]\nram_mib = 1"
    )
    found = refusal(text)
    assert "guest.ram_mib" in str(found)
    assert found.line == 26


def test_syntax_error() -> None:
    found = refusal(line(8, "count = = 1"))
    assert found.line == 8
    assert "not TOML" in str(found)


def test_syntax_error_at_the_end() -> None:
    found = refusal('name = "x"\ndevices = [')
    assert found.line == 2


def test_key_twice() -> None:
    found = refusal(line(3, 'name = "again"'))
    assert found.line == 3


def test_not_utf8() -> None:
    found = refusal(line(8, "count = 1").encode() + b"\nsummary = '\xff'")
    assert found.line == 25
    assert "UTF-8" in str(found)


def test_not_text_at_all() -> None:
    refusal(bytes(range(256)))


def test_empty() -> None:
    assert "name" in str(refusal(""))


@pytest.mark.parametrize(
    ("count", "size_mib", "ram_mib", "fits"),
    [
        (4, 64, 64, True),
        (4, 64, 65, False),
        (5, 64, 16, False),
        (1, 64, 256, True),
        (1, 64, 257, False),
        (1, 0, 319, True),
        (1, 0, 320, False),
        (1, 0, 1024, False),
    ],
)
def test_more_than_the_testbed_has_room_for(
    count: int, size_mib: int, ram_mib: int, fits: bool
) -> None:
    text = (
        f'name = "x"\n[guest]\nram_mib = {ram_mib}\n[[devices]]\n'
        f"count = {count}\nsize_bytes = {size_mib << 20 or 4096}\n"
    )
    if fits:
        assert parse(text.encode(), "x.toml")
        return
    found = refusal(text)
    assert str(found).startswith("x.toml:4: devices: source and destination")
    assert "the testbed has room for 640 MiB" in str(found)


@pytest.mark.parametrize("text", ["name = 'x'", "name = 'x'\ndevices = []"])
def test_no_devices(text: str) -> None:
    assert "devices" in str(refusal(text))


CANCELLED = """\
name = "x"
devices = [{}]
steps = [{do = "migrate"}, {do = "cancel"}]

[expect]
base.outcome = "cancelled"
patched.outcome = "cancelled"
"""


def test_cancelled() -> None:
    (found,) = parse(CANCELLED.encode(), "x.toml")
    assert found.expect.base.outcome is Outcome.CANCELLED
    assert found.expect.base.message == ""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (', {do = "cancel"}', "", "no step can lead to cancelled"),
        (
            'base.outcome = "cancelled"\npatched.outcome = "cancelled"',
            "",
            "",
        ),
        ('{do = "migrate"}, ', "", ""),
    ],
)
def test_outcomes_that_no_step_leads_to(
    old: str, new: str, why: str
) -> None:
    text = CANCELLED.replace(old, new)
    assert text != CANCELLED
    if not why:
        assert parse(text.encode(), "x.toml")
        return
    err = refusal(text)
    assert err.line == 5
    assert f"expect: {why}" in err.what


def test_newer_format() -> None:
    found = refusal(f"format = 2\nnew_thing = 1\n{GOOD}")
    assert "format 2 is newer" in str(found)
    assert found.line == 1


@pytest.mark.parametrize(
    "value", ["[" * 5000 + "]" * 5000, "9" * 5000, "9" * 100, "-0x1", "1e999"]
)
def test_absurd_values(value: str) -> None:
    refusal(f"format = {value}")


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    refusal(data)


@given(
    st.integers(1, GOOD.count("\n")),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_line(number: int, text: str) -> None:
    try:
        parse(line(number, text).encode(), "x.toml")
    except ScenarioError as err:
        assert err.line is None or 1 <= err.line <= 100  # noqa: PT017


TREES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "devices", "count", "limits", "flags"]),
        inner,
    ),
)


@given(
    st.sampled_from(["name", "devices", "guest", "limits", "migration"]), TREES
)
def test_any_value(key: str, value: object) -> None:
    def spell(tree: object) -> str:
        match tree:
            case dict():
                pairs = (f"{k} = {spell(v)}" for k, v in tree.items())
                return "{" + ", ".join(pairs) + "}"
            case list():
                return "[" + ", ".join(map(spell, tree)) + "]"
            case bool():
                return str(tree).lower()
            case str():
                return msgspec.json.encode(tree).decode()
        return str(tree)

    with pytest.raises(ScenarioError):
        parse(f"{key} = {spell(value)}".encode(), "x.toml")


LATENCIES = st.dictionaries(
    st.sampled_from(["RUNNING>STOP", "STOP>RUNNING", "STOP_COPY>STOP"]),
    st.integers(0, 60_000_000),
)
DEVICES = st.builds(
    Device,
    # No device is without a peer.
    count=st.sampled_from([2, 4]),
    flags=st.sampled_from([(), (Flag.STOP_COPY,), tuple(Flag)]),
    size_bytes=st.integers(4096, 16 << 20),
    initial_bytes=st.integers(0, 4096),
    dirty_bytes=st.integers(0, 4096),
    latency_us=LATENCIES,
    peers=st.sampled_from(Peers),
    peer_period_us=st.integers(10, 1000),
    peer_completion_us=st.integers(0, 1000),
    faults=st.just(("reset 1 fail EIO",)),
    fault_side=st.sampled_from(Side),
)


@given(
    st.lists(DEVICES, min_size=1, max_size=3),
    st.floats(0.001, 3600),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_round_trip(
    devices: list[Device], limit_s: float, summary: str
) -> None:
    scenario = Scenario(
        name="x",
        summary=summary,
        devices=tuple(devices),
        limits=Limits(migrate_s=limit_s),
    )
    again = from_json(scenario.to_json())
    assert again == scenario
    assert again.to_json() == scenario.to_json()
    assert again.digest == scenario.digest


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("# A comment.\n", "format = 1\n\n"),
        GOOD.replace("launch_s = 10", "launch_s = 1_0.0 # seconds"),
        GOOD.replace("[[devices]]\ncount = 2", "[[devices]]\n'count' = 0x2"),
        GOOD.replace(
            "{ return-path = false, multifd = true }",
            "{ multifd = true, return-path = false }",
        ),
    ],
)
def test_spelling_does_not_count(text: str) -> None:
    assert text != GOOD
    (want,) = parse(GOOD.encode(), "a")
    (found,) = parse(text.encode(), "b")
    assert found.digest == want.digest


def test_content_counts() -> None:
    (want,) = parse(GOOD.encode(), "a")
    (other,) = parse(GOOD.replace("1000", "1001").encode(), "a")
    assert other.digest != want.digest
    assert from_json(want.to_json()).digest == want.digest
