# SPDX-License-Identifier: GPL-2.0-or-later
"""Simulated devices, with folders in the place of configfs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vfio_p2p.devices import kernelfs, p2psim
from vfio_p2p.devices.p2psim import peers_of, settings_of, simulated_devices
from vfio_p2p.errors import HostError
from vfio_p2p.scenario.course import Course
from vfio_p2p.scenario.device import LoadIn, OnBadStream, ResetWay
from vfio_p2p.scenario.model import Device, Flag, Peers
from vfio_p2p.side import Side


class Configfs:
    """A record of the requests to the kernel, in order.

    :param root: The folder that replaces configfs.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.told: list[tuple[str, str, str]] = []
        self.refuses: tuple[str, str, str] | None = None
        monkeypatch.setattr(p2psim, "CONFIGFS", root)
        monkeypatch.setattr(kernelfs, "write", self.write)

    def write(self, path: Path, text: str) -> None:
        """Record a write to an attribute."""
        entry = (path.parent.name, path.name, text)
        self.told.append(entry)
        if entry == self.refuses:
            raise HostError("p2psim refused it")
        if entry[1:] == ("live", "1"):
            sysfs = path.with_name("sysfs_path")
            sysfs.write_text(f"/sys/devices/{entry[0]}\n")
        if entry[1:] == ("live", "0"):
            # The kernel removes attributes together with the folder.
            path.with_name("sysfs_path").unlink(missing_ok=True)


@pytest.fixture
def configfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configfs:
    """An empty configfs."""
    return Configfs(tmp_path, monkeypatch)


SPEC = Device(
    flags=(Flag.STOP_COPY, Flag.P2P),
    size_bytes=8192,
    initial_bytes=100,
    latency_us={"RUNNING>RUNNING_P2P": 7},
)


def test_devices_live_and_go(configfs: Configfs) -> None:
    with simulated_devices(
        "src", (SPEC, Device()), "source"
    ) as devices:
        assert [device.name for device in devices] == ["src0", "src1"]
        assert devices[0].qemu_properties == {
            "sysfsdev": "/sys/devices/src0",
            "enable-migration": "on",
        }
        assert {path.name for path in configfs.root.iterdir()} == {
            "src0", "src1",
        }
    assert list(configfs.root.iterdir()) == []


def test_what_the_kernel_is_told(configfs: Configfs) -> None:
    with simulated_devices("dst", (SPEC,), "destination"):
        pass
    told = [entry[1:] for entry in configfs.told]
    assert told[-2:] == [("live", "1"), ("live", "0")]
    assert set(told[:-2]) == {
        ("flags", "stop_copy p2p"),
        ("size_bytes", "8192"),
        ("initial_bytes", "100"),
        ("dirty_bytes", "0"),
        ("dma_logging", "0"),
        ("latency_us", "RUNNING RUNNING_P2P 7"),
    }
    # The kernel refuses more initial bytes than the size that is set.
    assert told.index(("size_bytes", "8192")) < told.index(
        ("initial_bytes", "100")
    )


def test_a_device_with_dma_logging_may_be_left_out(
    configfs: Configfs,
) -> None:
    with simulated_devices(
        "src", (Device(dma_logging=True),), "source"
    ) as (device,):
        assert device.qemu_properties["enable-migration"] == "auto"
    assert ("dma_logging", "1") in [entry[1:] for entry in configfs.told]


def test_new_initial_data_are_set_only_if_wanted() -> None:
    plain = dict(settings_of(Device()))
    assert not plain.keys() & {"precopy_info_v2", "reinit_drain"}
    spec = Device(precopy_info_v2=True, reinit_query=2)
    found = dict(settings_of(spec))
    assert found.items() - plain.items() == {
        ("precopy_info_v2", "1"), ("reinit_drain", "0"),
        ("reinit_query", "2"),
    }  # fmt: skip


def test_ways_of_a_driver_are_set_only_if_wanted() -> None:
    plain = dict(settings_of(Device()))
    spec = Device(
        read_ns_per_kib=7,
        write_ns_per_kib=8,
        load_in=LoadIn.WRITE,
        on_bad_stream=OnBadStream.KEEP,
        reset=ResetWay.DEFER,
    )
    found = dict(settings_of(spec))
    assert not plain.keys() & {"read_ns_per_kib", "load_in", "reset"}
    assert found.items() - plain.items() == {
        ("read_ns_per_kib", "7"), ("write_ns_per_kib", "8"),
        ("load_in", "write"), ("on_bad_stream", "keep"), ("reset", "defer"),
    }  # fmt: skip
    # What older scenarios did not have leaves their digests as they are.
    course = Course(name="x", devices=(Device(),)).to_json()
    assert not any(name.encode() in course for name in found.keys() - plain)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"reinit_drain": 1}, "only with precopy_info_v2"),
        ({"reinit_query": 1}, "only with precopy_info_v2"),
        (
            {"precopy_info_v2": True, "flags": (Flag.STOP_COPY,)},
            "lack pre_copy",
        ),
    ],
)
def test_new_initial_data_need(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Device(**wrong)


N = Device()
P = Device(peers=Peers.PAIRS)
M = Device(peers=Peers.MESH)


@pytest.mark.parametrize(
    ("specs", "peers"),
    [
        ((), ()),
        ((N, N), ((), ())),
        ((P, P), ((1,), (0,))),
        ((P, P, P), ((1,), (0,), ())),
        ((P, N, P, P, P), ((2,), (), (0,), (4,), (3,))),
        ((M,), ((),)),
        ((M, N, M, M), ((2, 3), (), (0, 3), (0, 2))),
        ((M, P, P, M), ((3,), (2,), (1,), (0,))),
    ],
)
def test_who_sends_to_whom(
    specs: tuple[Device, ...], peers: tuple[tuple[int, ...], ...]
) -> None:
    assert peers_of(specs) == peers


def test_peers(configfs: Configfs) -> None:
    specs = (
        Device(peers=Peers.MESH),
        Device(),
        Device(peers=Peers.MESH, peer_period_us=100, peer_completion_us=7),
        Device(peers=Peers.MESH),
    )
    with simulated_devices("dst", specs, "destination") as devices:
        assert [device.has_peers for device in devices] == [
            True, False, True, True,
        ]
    told = [entry[1:] for entry in configfs.told if entry[0] == "dst2"]
    first = told.index(("peer_group", "dst"))
    # Before its number is known, any peer might be the device itself.
    assert told[first : first + 5] == [
        ("peer_group", "dst"),
        ("peer_id", "2"),
        ("peers", "0 3"),
        ("peer_period_us", "100"),
        ("peer_completion_us", "7"),
    ]
    assert told[-2:] == [("live", "1"), ("live", "0")]
    assert not [x for x in configfs.told if x[0] == "dst1" and "peer" in x[1]]


def test_traffic(configfs: Configfs) -> None:
    specs = (P, P, Device())
    with simulated_devices("src", specs, "source") as devices:
        devices[1].start_traffic()
        devices[2].start_traffic()
        assert configfs.told[-1] == ("src1", "traffic", "1")


@pytest.mark.parametrize("side", Side)
def test_faults_of_a_side(configfs: Configfs, side: Side) -> None:
    lines = ("save 1 short 1", "reset 1 fail EIO")
    specs = (
        Device(faults=lines, fault_side=side),
        Device(),
    )
    for name in ("source", "destination"):
        with simulated_devices(name, specs, name):
            pass
    assert [x for x in configfs.told if x[1] == "faults"] == [
        (f"{side}0", "faults", "save 1 short 1\nreset 1 fail EIO")
    ]


def test_device_that_is_refused_takes_the_others_along(
    configfs: Configfs,
) -> None:
    configfs.refuses = ("src1", "live", "1")
    with (
        pytest.raises(HostError),
        simulated_devices("src", (SPEC, SPEC), "source"),
    ):
        pytest.fail("there is only one")
    assert list(configfs.root.iterdir()) == []


def test_devices_go_when_the_run_fails(configfs: Configfs) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        simulated_devices("s", (SPEC,), "source"),
    ):
        raise KeyboardInterrupt
    assert list(configfs.root.iterdir()) == []


def test_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2psim, "CONFIGFS", tmp_path / "nothing")
    with (
        pytest.raises(HostError) as caught,
        simulated_devices("s", (SPEC,), "source"),
    ):
        pytest.fail("there is none")
    assert "Load the kernel module p2psim" in caught.value.hint


def test_text_ends_with_a_newline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p2psim, "CONFIGFS", tmp_path)
    (tmp_path / "src0").mkdir()
    path = tmp_path / "src0" / "traffic"
    path.touch()
    device = p2psim.SimulatedDevice(
        "src0", Path("/sys/devices/src0"), has_peers=True
    )
    device.start_traffic()
    # With a newline, so that no text is nothing: a write of 0 bytes does
    # not reach configfs, and would leave the default.
    assert path.read_bytes() == b"1\n"


def test_attribute_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Plain folders have no attributes to write to.
    monkeypatch.setattr(p2psim, "CONFIGFS", tmp_path)
    with (
        pytest.raises(HostError) as caught,
        simulated_devices("s", (SPEC,), "source"),
    ):
        pytest.fail("there is none")
    assert "refused 'stop_copy p2p' for flags of s0" in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2psim, "DEBUGFS", tmp_path)
    (tmp_path / "src0").mkdir()
    (tmp_path / "src0" / "log").write_bytes(b"arcs")
    device = p2psim.SimulatedDevice("src0", Path("/sys/devices/src0"))
    assert device.log() == b"arcs"
