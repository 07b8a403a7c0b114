# SPDX-License-Identifier: GPL-2.0-or-later
"""The program in the VM: it runs one scenario and posts the results.

images/testbed/init starts it as ``python -m vfio_p2p.places.sealed.inside``.
If there is no job yet, it stops the VM at once, and goes on when the VM goes
on: by then there is one.  In between, the host takes a snapshot of the VM.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import shutil
import time
import traceback
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from vfio_p2p.devices.driver import Driver, VfioDevice
from vfio_p2p.devices.mtty import mtty_devices
from vfio_p2p.devices.p2psim import simulated_devices
from vfio_p2p.devices.p2pvf import function_devices
from vfio_p2p.machine.errors import HarnessError, TestbedError
from vfio_p2p.places.sealed.mailbox import has_job, opened, post, receive
from vfio_p2p.scenario.argv import Launcher
from vfio_p2p.scenario.course import Course, course_from_json
from vfio_p2p.scenario.runner import run
from vfio_p2p.side import Side
from vfio_p2p.tells import Tells

COURSE = Path("job/course.json")
QEMU = Path("qemu")
# In the folder of a QEMU that does not write the usual log.
TELLS = "tells"
ERROR = "error.txt"

_DRIVER = Path("/modules/driver")
_OUT = Path("/out")
_ROOT = Path("/")

# PCI ids of pvpanic-pci, and its event "panicked" (QEMU's
# docs/specs/pvpanic.rst).
_PVPANIC = ("0x1b36", "0x0011")
_PANICKED = 1
# From linux/random.h: _IO('R', 0x07).
_RNDRESEEDCRNG = 0x5207
# Several periods of each timer in the VM; the kernel's tick is the slowest,
# with 4 ms.
_PHASE_NS = 16_000_000


def _launcher(side: Side) -> Launcher:
    # A QEMU brings the loader and the libraries of the machine that built it,
    # so that the image may have others.
    folder = _ROOT / QEMU / side
    if not folder.exists():
        # Both sides have the same program.
        folder = _ROOT / QEMU / Side.SOURCE
    tells = folder / TELLS
    return Launcher(
        argv=(
            f"{folder}/lib/ld.so",
            "--library-path",
            f"{folder}/lib",
            f"{folder}/qemu-system-x86_64",
        ),
        firmware=Path("/usr/share/seabios"),
        tells=Tells(tells.read_text()) if tells.exists() else Tells.LOG,
    )


def _devices(
    driver: Driver, course: Course, side: Side
) -> AbstractContextManager[tuple[VfioDevice, ...]]:
    specs = course.each_device()
    match driver:
        case Driver.P2PSIM:
            return simulated_devices(side.prefix, specs, side)
        case Driver.MTTY:
            return mtty_devices(side.prefix, specs)
        case Driver.P2PVF:
            return function_devices(side, specs)


def run_job(course: Course, driver: Driver, out: Path) -> None:
    """Run one scenario.

    :param course: The course of the run.
    :param driver: The kernel module that provides the devices.
    :param out: An existing empty folder for the files of the run.
    :raise HostError: When the kernel refuses a device.
    """
    with ExitStack() as stack:
        devices: dict[Side, tuple[VfioDevice, ...]] = {
            side: stack.enter_context(_devices(driver, course, side))
            for side in Side
        }
        properties = {
            side: [device.qemu_properties for device in of_side]
            for side, of_side in devices.items()
        }

        def start_traffic() -> None:
            for device in devices[Side.SOURCE]:
                device.start_traffic()

        launchers = {side: _launcher(side) for side in Side}
        asyncio.run(run(course, launchers, properties, out, start_traffic))
        logs = out / "devices"
        logs.mkdir()
        for of_side in devices.values():
            for device in of_side:
                if log := device.log():
                    (logs / f"{device.name}.log").write_bytes(log)


def _stop_the_vm() -> None:
    """Stop the VM here; return when the host lets it go on.

    :raise TestbedError: When it has no device for this.
    """
    for device in sorted(Path("/sys/bus/pci/devices").iterdir()):
        ids = tuple(
            (device / name).read_text().strip()
            for name in ("vendor", "device")
        )
        if ids == _PVPANIC:
            break
    else:
        raise TestbedError("the VM has neither a job nor pvpanic")
    (device / "enable").write_text("1")
    start = int((device / "resource").read_text().split()[0], 16)
    page, offset = divmod(start, mmap.PAGESIZE)
    # The device's own file is less than a page, and mmap refuses it.
    fd = os.open("/dev/mem", os.O_RDWR | os.O_SYNC)
    try:
        with mmap.mmap(
            fd, mmap.PAGESIZE, offset=page * mmap.PAGESIZE
        ) as registers:
            registers[offset] = _PANICKED
    finally:
        os.close(fd)


def _sow(seed: int) -> None:
    """Make everything that is random in the VM depend on the seed.

    The kernel's tick and other timers are as old as the VM.  The wait puts
    them into another phase with each seed.
    """
    with open("/dev/urandom", "wb", buffering=0) as file:
        file.write(seed.to_bytes(8, "little"))
        fcntl.ioctl(file, _RNDRESEEDCRNG)
    wait_ns = int.from_bytes(os.urandom(8), "little") % _PHASE_NS
    time.sleep(wait_ns / 1e9)


def main() -> None:
    """Do the job, and post its files, or the error that prevented it."""
    with opened() as mailbox:
        _OUT.mkdir()
        try:
            if not has_job(mailbox):
                _stop_the_vm()
            _sow(receive(mailbox, _ROOT))
            driver = Driver(_DRIVER.read_text())
            course = course_from_json((_ROOT / COURSE).read_bytes())
            run_job(course, driver, _OUT)
            post(mailbox, _OUT)
        except Exception as err:
            # The console gets it as well, and is kept when a run fails.
            traceback.print_exc()
            what, hint = f"inside the VM: {err!r}", ""
            if isinstance(err, HarnessError):
                what, hint = err.what, err.hint
            shutil.rmtree(_OUT)
            _OUT.mkdir()
            (_OUT / ERROR).write_text(f"{what}\n{hint}\n")
            post(mailbox, _OUT)


if __name__ == "__main__":
    main()
