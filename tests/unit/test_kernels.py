# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels of the testbed: which scenario gets which one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from vfio_p2p.choice import PlaceChoice, VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.devices.p2psim import simulated_devices
from vfio_p2p.errors import BuildError, UsageError
from vfio_p2p.places import open_place
from vfio_p2p.places.sealed import kernel, place
from vfio_p2p.places.sealed.compiler import Compiler
from vfio_p2p.places.sealed.kit import Kit
from vfio_p2p.plans.setting import Setting
from vfio_p2p.plans.workshop import Local
from vfio_p2p.progress import SILENT, silent
from vfio_p2p.qemu.program import KnownPrograms
from vfio_p2p.scenario import device
from vfio_p2p.scenario.argv import Launcher, qemu_argv
from vfio_p2p.scenario.device import Device, dma_addresses
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.needs import Need

PLAIN = load("two-devices")
IOMMUFD = load("iommufd-two-devices")


def scenario(**keys: Any) -> Scenario:
    """A scenario with one such device."""
    return Scenario(name="x", devices=(Device(**keys),))


def test_what_scenarios_need() -> None:
    assert PLAIN.needed == frozenset()
    assert IOMMUFD.needed == frozenset(Need)
    # Debian's kernel knows DMA logging, but has no reports.
    assert scenario(dma_logging=True).needed == frozenset()
    assert scenario(dma_bytes=4096).needed == frozenset()
    assert scenario(dma_bytes=4096, dma_logging=True).needed == {
        Need.DMA_LOGGING
    }
    own = msgspec.structs.replace(PLAIN, needs=(Need.IOMMUFD,))
    assert own.needed == {Need.IOMMUFD}
    assert own.digest != PLAIN.digest
    assert b"needs" not in PLAIN.to_json()
    for key in ("iommufd", "dma_bytes", "dma_period_us"):
        assert key.encode() not in PLAIN.to_json()


def test_the_first_kernel_that_will_do() -> None:
    assert VmKernel.for_needs(frozenset()) is VmKernel.DEBIAN
    assert VmKernel.for_needs(frozenset({Need.IOMMUFD})) is VmKernel.OWN


@pytest.mark.parametrize(
    ("choice", "what", "why"),
    [
        (PlaceChoice(), IOMMUFD, ""),
        (PlaceChoice(kernel=VmKernel.OWN), IOMMUFD, ""),
        (PlaceChoice(kernel=VmKernel.DEBUG), PLAIN, ""),
        (
            PlaceChoice(kernel=VmKernel.DEBIAN),
            IOMMUFD,
            "the kernel debian has no dma-logging, iommufd",
        ),
        (
            PlaceChoice(driver=Driver.P2PVF, kernel=VmKernel.OWN),
            PLAIN,
            "the kernel own has no PCI functions",
        ),
    ],
)
def test_what_a_kernel_cannot_do(
    choice: PlaceChoice, what: Scenario, why: str
) -> None:
    assert open_place(choice, KnownPrograms()).refusal(what) == why


def test_real_hosts_have_kernels_of_their_own(tmp_path: Path) -> None:
    choice = PlaceChoice(
        "box", hosts=tmp_path / "hosts.toml", kernel=VmKernel.OWN
    )
    with pytest.raises(UsageError, match="--kernel is for the testbed"):
        open_place(choice, KnownPrograms())


def test_only_what_is_needed_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[VmKernel] = []

    class FakeImage:
        kit = Kit(tmp_path, {})

    def get_image(_: object, __: object, which: VmKernel) -> FakeImage:
        built.append(which)
        return FakeImage()

    monkeypatch.setattr(place, "get_image", get_image)
    monkeypatch.setattr(place, "get_outer", lambda _: None)
    monkeypatch.setattr(place, "get_snapshot", lambda *_: None)
    usual = open_place(PlaceChoice(), KnownPrograms())
    usual.prepare(silent, [PLAIN, PLAIN])
    assert built == [VmKernel.DEBIAN]
    usual.prepare(silent, [PLAIN, IOMMUFD])
    assert built == [VmKernel.DEBIAN, VmKernel.OWN]
    only = open_place(PlaceChoice(kernel=VmKernel.DEBIAN), KnownPrograms())
    only.prepare(silent, [IOMMUFD])
    assert built == [VmKernel.DEBIAN, VmKernel.OWN]


def test_a_place_is_made_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def prepare(_: object, __: object, wanted: list[Scenario]) -> None:
        made.append([x.name for x in wanted])

    monkeypatch.setattr(place.SealedPlace, "prepare", prepare)
    local = Local()
    for wanted in ([PLAIN], [PLAIN, PLAIN], [PLAIN, IOMMUFD], [IOMMUFD]):
        local.prepare(Setting(), SILENT, wanted)
    assert made == [[PLAIN.name], [PLAIN.name, IOMMUFD.name]]
    local.prepare(Setting(boot=True), SILENT, [PLAIN])
    assert len(made) == 3


def test_a_configuration_that_linux_does_not_take(tmp_path: Path) -> None:
    (tmp_path / "usr" / "lib" / "linux-kbuild-6.12").mkdir(parents=True)
    conf = "root/usr/lib/linux-kbuild-6.12/scripts/kconfig/conf"
    (tmp_path / conf).parent.mkdir(parents=True)
    (tmp_path / conf).touch()
    kit = Kit(tmp_path, {"linux-image-6.12-amd64": "6.12"})
    builder = kernel._Builder(
        VmKernel.OWN, tmp_path, kit, Compiler({}, "gcc 12"), silent
    )
    (tmp_path / ".config").write_text("CONFIG_A=y\n# CONFIG_B is not set\n")
    builder._check_config("# more\nCONFIG_A=y\n# CONFIG_B is not set\n")
    with pytest.raises(BuildError, match="takes no CONFIG_B, CONFIG_C"):
        builder._check_config("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=m\n")


def test_the_later_part_of_a_configuration_wins() -> None:
    one = "# why\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_N=\"x\"\n"
    other = "# CONFIG_B is not set\nCONFIG_N=\"y\"\n# no option\n"
    assert kernel.merged([one, other]) == (
        "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=\"y\"\n"
    )


def test_arguments_of_devices_behind_an_iommufd() -> None:
    launcher = Launcher(("qemu",), Path("/bios"))
    given = [{"sysfsdev": "/sys/a"}, {"sysfsdev": "/sys/b"}]
    argv = qemu_argv(launcher, IOMMUFD, "source", given, incoming=False)
    assert argv.count("iommufd,id=iommufd0") == 1
    devices = [x for x in argv if x.startswith("vfio-pci")]
    assert all(",iommufd=iommufd0," in x for x in devices)
    argv = qemu_argv(launcher, PLAIN, "source", given, incoming=False)
    assert not any("iommufd" in x for x in argv)


def test_devices_write_to_memory_of_their_own() -> None:
    specs = (Device(dma_bytes=8192), Device(), Device(dma_bytes=4096))
    base = device.DMA_BASE
    assert dma_addresses(specs) == (base, base + 8192, base + 8192)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"dma_bytes": 100}, "not a number of whole pages"),
        ({"dma_bytes": 40 << 20}, "40 MiB .* 32 MiB are free"),
    ],
)
def test_dma_that_cannot_be(keys: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        scenario(**keys)


def test_dma_is_set_up_and_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[tuple[str, str, str]] = []

    def write(path: Path, text: str) -> None:
        told.append((path.parent.name, path.name, text))
        (path.parent / "sysfs_path").write_text("/sys/devices/p2psim/x\n")

    monkeypatch.setattr("vfio_p2p.devices.p2psim.CONFIGFS", tmp_path)
    monkeypatch.setattr("vfio_p2p.devices.kernelfs.write", write)
    specs = (Device(), Device(dma_bytes=8192, dma_period_us=50))
    with simulated_devices("src", specs, "source") as (plain, writer):
        plain.start_traffic()
        writer.start_traffic()
    assert ("src1", "dma_iova", str(16 << 20)) in told
    assert ("src1", "dma_bytes", "8192") in told
    assert ("src1", "dma_period_us", "50") in told
    assert [x for x in told if x[1] == "dma"] == [("src1", "dma", "1")]
    assert not any(x[1].startswith("dma_b") for x in told if x[0] == "src0")
