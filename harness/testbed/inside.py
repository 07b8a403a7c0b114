# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in the VM: one scenario, and the way out for its bundle.

Started by images/testbed/init as ``python -m harness.testbed.inside``.
"""

from __future__ import annotations

import asyncio
import shutil
import traceback
from contextlib import ExitStack
from pathlib import Path

from harness.device.p2psim import SimulatedDevice, simulated_devices
from harness.errors import HarnessError
from harness.scenario.argv import Program
from harness.scenario.model import Scenario, from_json
from harness.scenario.runner import DESTINATION, SOURCE, run
from harness.testbed.mailbox import post

SCENARIO = Path("/job/scenario.json")
OUT = Path("/out")
# The loader and the libraries of the machine that built QEMU come along,
# so that they need not be those of the image.
PROGRAM = Program(
    argv=(
        "/qemu/lib/ld.so",
        "--library-path",
        "/qemu/lib",
        "/qemu/qemu-system-x86_64",
    ),
    firmware=Path("/usr/share/seabios"),
)
ERROR = "error.txt"

_PREFIXES = {SOURCE: "src", DESTINATION: "dst"}


def run_job(scenario: Scenario, out: Path) -> None:
    """Run one scenario on simulated devices.

    :param scenario: What is to happen.
    :param out: Existing empty folder for what it leaves.
    :raise HostError: When the devices cannot be had.
    """
    specs = scenario.each_device()
    with ExitStack() as stack:
        devices: dict[str, tuple[SimulatedDevice, ...]] = {
            side: stack.enter_context(simulated_devices(prefix, specs))
            for side, prefix in _PREFIXES.items()
        }
        properties = {
            side: [device.qemu_properties for device in of_side]
            for side, of_side in devices.items()
        }
        asyncio.run(run(scenario, PROGRAM, properties, out))
        logs = out / "devices"
        logs.mkdir()
        for of_side in devices.values():
            for device in of_side:
                (logs / f"{device.name}.log").write_bytes(device.log())


def main() -> None:
    """Do the job; say on the way out what went wrong, if anything did."""
    OUT.mkdir()
    try:
        run_job(from_json(SCENARIO.read_bytes()), OUT)
        post(OUT)
    except Exception as err:
        # On the console as well: it is kept when a run fails.
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
