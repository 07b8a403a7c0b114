# SPDX-License-Identifier: GPL-2.0-or-later
"""Places of real devices: what they play, and where the stream goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import DESTINATION, DEVICES, SCENARIO, SOURCE, Bench, fakes
from inventories import PF, VFS, function, good, without
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.devices import Driver
from vfio_p2p.devices.p2pvf import function_settings
from vfio_p2p.devices.vf.drivers import find_driver
from vfio_p2p.devices.vf.fitting import as_played, unplayable
from vfio_p2p.errors import HarnessError, SkipError, UsageError
from vfio_p2p.machine.host import LocalHost
from vfio_p2p.places import open_place
from vfio_p2p.places.hosts.accelerator import Accelerator
from vfio_p2p.places.hosts.config import Functions, parse_hosts
from vfio_p2p.places.hosts.machine import (
    Machine,
    choose_functions,
)
from vfio_p2p.places.hosts.play import Stage, Wire, play
from vfio_p2p.places.hosts.station import check_machines, stations_of
from vfio_p2p.qemu.program import KnownPrograms
from vfio_p2p.scenario.load import load, names
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side

HOSTS = """\
format = 1
[host.box]
driver = "mlx5"
source = {vfs = ["%s"]}
destination = {vfs = ["%s"]}
properties = {x-no-mmap = "on"}
parameters = {downtime-limit = 5000}
""" % (VFS[0], VFS[1])  # noqa: UP031


def refused(name: str, most: int = 16, *, told: bool = False) -> str:
    return unplayable(load(name), most, far=True, told=told)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("two-devices", ""),
        ("two-devices-with-heartbeat", ""),
        ("stop-and-cont", ""),
        ("two-devices-with-traffic", "send to one another"),
        ("one-device-without-p2p", "lack migration flags"),
        ("loaded-state-refused", "have faults"),
        ("large-device-state", "size of its devices' state"),
        ("stream-cut-in-precopy", "cut by a proxy"),
    ],
)
def test_what_real_devices_can_play(name: str, why: str) -> None:
    found = refused(name)
    assert (why in found) if why else not found


def test_the_lab_s_devices_can_be_told_more() -> None:
    ours = [name for name in names() if not refused(name, told=True)]
    plain = [name for name in names() if not refused(name)]
    assert set(plain) < set(ours)
    assert "loaded-state-refused" in ours
    assert "two-devices-with-traffic" not in ours


def test_more_devices_than_there_are() -> None:
    assert refused("four-devices", 3) == (
        "it needs 4 devices, and each side has 3"
    )
    assert not refused("four-devices", 4)


def test_real_devices_have_latencies_of_their_own() -> None:
    scenario = load("two-devices")
    assert scenario.devices[0].latency_us
    real = as_played(scenario, {"downtime-limit": 1}, told=False)
    assert [x.latency_us for x in real.devices] == [{}]
    assert real.migration.parameters == {"downtime-limit": 1}
    assert real.migration.capabilities == scenario.migration.capabilities
    lab = as_played(scenario, {}, told=True)
    assert lab.devices == scenario.devices


def test_expectations_name_the_devices_that_there_are() -> None:
    scenario = load("destination-fault-check-fails")
    assert "dst0" in scenario.expect.patched.ends
    names = {"dst0": "0000:01:10.0", "src1": "0000:02:10.2"}
    found = as_played(scenario, {}, told=True, names=names)
    assert "0000:01:10.0" in found.expect.patched.ends
    assert "dst0" not in found.expect.patched.ends
    why = unplayable(scenario, 4, far=True, told=True, alike=True)
    assert "name devices" in why
    plain = load("two-devices")
    assert not unplayable(plain, 4, far=True, told=True, alike=True)


@pytest.mark.parametrize(
    ("name", "far", "alike", "why"),
    [
        ("file-two-devices", True, False, ""),
        ("file-two-devices", True, True, "on one machine"),
        ("tls-one-device", False, False, ""),
        ("tls-one-device", True, False, "file on this machine"),
        ("tls-one-device", False, True, "file on this machine"),
        ("two-devices-with-witness", False, False, "virtio device"),
        ("plug-then-migrate", True, True, ""),
    ],
)
def test_what_needs_the_testbed(
    name: str, far: bool, alike: bool, why: str
) -> None:
    found = unplayable(load(name), 4, far=far, told=True, alike=alike)
    assert why in found
    assert bool(why) == bool(found)


def test_encryption_is_kept() -> None:
    played = as_played(load("tls-one-device"), {"max-bandwidth": 1}, told=True)
    assert played.migration.tls
    assert played.migration.parameters == {"max-bandwidth": 1}


def test_what_a_device_of_the_lab_is_told() -> None:
    device = load("loaded-state-refused").each_device()[0]
    assert device.fault_side is not None
    told = dict(function_settings(device, device.fault_side))
    assert told["faults"] == "\n".join(device.faults)
    other = next(x for x in Side if x is not device.fault_side)
    assert "faults" not in dict(function_settings(device, other))
    assert "dma_logging" not in told


def test_the_sides_of_a_place() -> None:
    hosts = parse_hosts(HOSTS.encode(), "hosts.toml")
    sides = stations_of("box", hosts.host["box"], hosts)
    source = sides[Side.SOURCE]
    assert source.parameters["downtime-limit"] == 5000
    found = source.properties(load("one-device"), Accelerator.TCG)
    assert found["x-no-mmap"] == "on"
    assert sides[Side.DESTINATION].functions.vfs == (VFS[1],)
    check_machines("box", sides.values(), {"box": good()})
    assert source.cards(good()) == {PF}
    assert source.cards(without(VFS[0])(good())) == set()


def test_a_driver_that_nobody_knows() -> None:
    text = HOSTS.replace("mlx5", "mlx6")
    hosts = parse_hosts(text.encode(), "hosts.toml")
    with pytest.raises(UsageError, match="mlx6") as caught:
        stations_of("box", hosts.host["box"], hosts)
    assert "'mlx5'" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "kind", "code", "said"),
    [
        ({"driver": "vfio-pci"}, UsageError, 2, "migrates no device"),
        ({"busy": True}, SkipError, 4, "an unknown process"),
    ],
)
def test_a_host_that_is_not_ready(
    change: dict[str, object], kind: type, code: int, said: str
) -> None:
    hosts = parse_hosts(HOSTS.encode(), "hosts.toml")
    sides = stations_of("box", hosts.host["box"], hosts)
    known = function(VFS[0], **change)(good())
    with pytest.raises(HarnessError) as caught:
        check_machines("box", sides.values(), {"box": known})
    assert said in str(caught.value)
    assert VFS[0] in str(caught.value)
    assert (type(caught.value), caught.value.exit_code) == (kind, code)


def machine() -> Machine:
    return Machine("box", LocalHost(), find_driver("mlx5"))


def test_functions_by_card_and_by_address() -> None:
    first = choose_functions(machine(), good(), Functions(pf=PF, count=2))
    assert [x.address for x in first] == list(VFS[:2])
    named = choose_functions(machine(), good(), Functions(vfs=VFS[1:3]))
    assert [x.address for x in named] == list(VFS[1:3])


def test_functions_that_are_not_there() -> None:
    with pytest.raises(SkipError, match="has 4 VFs, and 9 are wanted"):
        choose_functions(machine(), good(), Functions(pf=PF, count=9))
    with pytest.raises(UsageError, match="no function"):
        choose_functions(
            machine(), good(), Functions(pf="0000:99:00.0", count=1)
        )
    with pytest.raises(UsageError, match="there is no VF"):
        choose_functions(
            machine(), without(VFS[0])(good()), Functions(vfs=VFS[:1])
        )


def test_a_place_that_is_not_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS)
    found = open_place(PlaceChoice("box", hosts=path), KnownPrograms())
    assert (found.name, found.exact, found.capacity) == ("box", False, 1)
    for name, driver in (("bux", Driver.P2PSIM), ("box", Driver.MTTY)):
        with pytest.raises(UsageError):
            open_place(PlaceChoice(name, driver, path), KnownPrograms())


async def played(
    bench: Bench, wire: Wire | None = None, **plan: dict[str, object]
) -> Result:
    """Play a scenario on this machine, with fakes in QEMU's place."""
    host = LocalHost()
    launchers = fakes(bench.plan(**plan))
    bench.out.mkdir()
    try:
        folder = Path(await host.private_folder())
        stages = {
            side: Stage(
                host=host,
                folder=folder,
                launcher=launchers[side],
                devices=tuple(DEVICES[side]),
                arguments=("-extra", side),
            )
            for side in Side
        }
        return await play(SCENARIO, stages, bench.out, wire)
    finally:
        await host.close()


async def test_a_run_on_this_machine(bench: Bench) -> None:
    found = await played(bench)
    assert found.outcome is Outcome.MIGRATED
    for side in Side:
        argv = json.loads((bench.folder / f"{side}.argv").read_text())
        assert argv[argv.index("-extra") + 1] == side
    assert sent_uri(bench).startswith("unix:")
    assert sent_uri(bench, DESTINATION) == sent_uri(bench)
    # The testbed's runner sends the same commands.
    other = Bench(bench.folder / "other", bench.private)
    other.folder.mkdir()
    assert await other.run() == found
    assert bench.sent(SOURCE) == other.sent(SOURCE)


def sent_uri(bench: Bench, side: str = SOURCE) -> str:
    lines = (bench.out / side / "qmp.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        command = line["msg"].get("execute")
        if line["dir"] == "->" and command in ("migrate", "migrate-incoming"):
            uri: str = line["msg"]["arguments"]["uri"]
            return uri
    raise AssertionError("no migration")


@pytest.mark.parametrize(
    ("address", "written"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")]
)
async def test_a_pair_migrates_over_its_link(
    bench: Bench, address: str, written: str
) -> None:
    wire = Wire({Side.SOURCE: "192.0.2.1", Side.DESTINATION: address})
    found = await played(bench, wire)
    assert found.outcome is Outcome.MIGRATED
    assert sent_uri(bench, DESTINATION) == f"tcp:{written}:0"
    head, _, port = sent_uri(bench).rpartition(":")
    assert head == f"tcp:{written}"
    assert int(port) > 0


async def test_a_destination_that_does_not_tell_its_port(
    bench: Bench,
) -> None:
    wire = Wire({Side.SOURCE: "192.0.2.1", Side.DESTINATION: "127.0.0.1"})
    silent = [["send", '{"return": {}, "id": "ID"}\r\n']]
    found = await played(bench, wire, destination={"query-migrate": silent})
    assert found.outcome is Outcome.REJECTED
    assert "does not tell where it listens" in found.message
