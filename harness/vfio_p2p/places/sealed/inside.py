# SPDX-License-Identifier: GPL-2.0-or-later
"""The program in the VM: it runs one scenario and posts the results.

images/testbed/init starts it as ``python -m vfio_p2p.places.sealed.inside``.
"""

from __future__ import annotations

import asyncio
import shutil
import traceback
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from vfio_p2p.devices.driver import Driver, VfioDevice
from vfio_p2p.devices.mtty import mtty_devices
from vfio_p2p.devices.p2psim import simulated_devices
from vfio_p2p.devices.p2pvf import function_devices
from vfio_p2p.machine.errors import HarnessError
from vfio_p2p.places.sealed.mailbox import post
from vfio_p2p.scenario.argv import Launcher
from vfio_p2p.scenario.course import Course, course_from_json
from vfio_p2p.scenario.runner import run
from vfio_p2p.side import Side
from vfio_p2p.tells import Tells

COURSE = Path("/job/course.json")
DRIVER = Path("/modules/driver")
OUT = Path("/out")
QEMU = Path("/qemu")
# In the folder of a QEMU that does not write the usual log.
TELLS = "tells"
ERROR = "error.txt"


def _launcher(side: Side) -> Launcher:
    # A QEMU brings the loader and the libraries of the machine that built it,
    # so that the image may have others.
    folder = QEMU / side
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


def main() -> None:
    """Do the job, and post its files, or the error that prevented it."""
    OUT.mkdir()
    try:
        driver = Driver(DRIVER.read_text())
        run_job(course_from_json(COURSE.read_bytes()), driver, OUT)
        post(OUT)
    except Exception as err:
        # The console gets it as well, and is kept when a run fails.
        traceback.print_exc()
        what, hint = f"inside the VM: {err!r}", ""
        if isinstance(err, HarnessError):
            what, hint = err.what, err.hint
        shutil.rmtree(OUT)
        OUT.mkdir()
        (OUT / ERROR).write_text(f"{what}\n{hint}\n")
        post(OUT)


if __name__ == "__main__":
    main()
