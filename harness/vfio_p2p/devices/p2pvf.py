# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI virtual functions that migrate, by the variant driver p2pvf.

The testbed's VM has one emulated NVMe controller for each side, which has the
functions of that side.  images/p2pvf/README.md describes the driver, and its
interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.devices import kernelfs
from vfio_p2p.devices.p2psim import settings_of
from vfio_p2p.machine.errors import HostError
from vfio_p2p.scenario.device import Device
from vfio_p2p.side import Side

DRIVER = "p2pvf"
PCI = Path("/sys/bus/pci")
CONFIGFS = Path("/sys/kernel/config") / DRIVER
DEBUGFS = Path("/sys/kernel/debug") / DRIVER

# The functions of one controller: places/sealed/outer.py says how many.
MAX_DEVICES = 8
# The slots of the root ports, which number the buses behind them from 1.
PFS = {
    Side.SOURCE: "0000:01:00.0",
    Side.DESTINATION: "0000:02:00.0",
}
# devices/vf/drivers.toml gives the reasons.
PROPERTIES = {
    "enable-migration": "on",
    "x-no-mmap": "on",
    "x-pre-copy-dirty-page-tracking": "off",
}
# The driver that does nothing but have virtual functions.  Linux's own NVMe
# driver would use the controllers as disks.
_PF_DRIVER = "pci-pf-stub"


@dataclass(frozen=True)
class FunctionDevice:
    """A virtual function that is bound to p2pvf.

    :param name: Its PCI address, which is also its name in QEMU's traces.
    """

    name: str

    @property
    def qemu_properties(self) -> dict[str, str]:
        """The properties of QEMU's vfio-pci that the device needs."""
        return {"host": self.name, **PROPERTIES}

    def log(self) -> bytes:
        """Read the device's own log, with the kernel's clock."""
        return (DEBUGFS / self.name / "log").read_bytes()

    def start_traffic(self) -> None:
        """Do nothing: the functions have no peers."""


def address_of(side: Side, number: int) -> str:
    """Return the PCI address of a function in the testbed's VM.

    :param side: The side that has it.
    :param number: Its number, from 0.
    """
    slot, function = divmod(number + 1, 8)
    return f"{PFS[side][:8]}{slot:02x}.{function}"


def function_settings(spec: Device, side: Side) -> list[tuple[str, str]]:
    """Return the attributes of a function in configfs, and their values.

    :param spec: What the device is to be.
    :param side: The side of the device; only its own faults are set.
    """
    found = [x for x in settings_of(spec) if x[0] != "dma_logging"]
    if spec.fault_side is side:
        found.append(("faults", "\n".join(spec.faults)))
    return found


@contextmanager
def function_devices(
    side: Side, specs: tuple[Device, ...]
) -> Iterator[tuple[FunctionDevice, ...]]:
    """Make the functions of one side, and remove them afterwards.

    :param side: The side.
    :param specs: What the devices are to be, in their order.
    :raise HostError: When the kernel refuses a function.
    """
    pf = PCI / "devices" / PFS[side]
    if not pf.exists():
        raise HostError(
            f"the VM has no PCI device {pf.name}",
            "See the VM's console.",
        )
    _bind(pf, _PF_DRIVER)
    # The kernel would look for drivers, and bind none.
    kernelfs.write(pf / "sriov_drivers_autoprobe", "0")
    kernelfs.write(pf / "sriov_numvfs", str(len(specs)))
    configs = []
    try:
        devices = tuple(
            FunctionDevice(address_of(side, x)) for x in range(len(specs))
        )
        for device, spec in zip(devices, specs, strict=True):
            config = CONFIGFS / device.name
            config.mkdir()
            configs.append(config)
            _tell(config, function_settings(spec, side))
            _bind(PCI / "devices" / device.name, DRIVER)
        yield devices
    finally:
        kernelfs.write(pf / "sriov_numvfs", "0")
        for config in configs:
            config.rmdir()


def _tell(config: Path, settings: Iterable[tuple[str, str]]) -> None:
    for name, text in settings:
        kernelfs.write(config / name, text)


def _bind(device: Path, driver: str) -> None:
    """Bind a device without a driver to the given one."""
    kernelfs.write(device / "driver_override", driver)
    kernelfs.write(PCI / "drivers_probe", device.name)
    if not (device / "driver").exists():
        raise HostError(
            f"{driver} did not bind {device.name}",
            "See the kernel's log (dmesg) for the reason.",
        )
