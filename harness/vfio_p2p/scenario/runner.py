# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive one scenario: its QEMUs, their devices, QMP, time limits.

The same runner works inside the testbed and on a host.  It judges nothing:
it leaves traces, transcripts and a `Result`.  What it leaves in the folder
that it is given::

    result.json
    source/         trace.log  qmp.jsonl  stderr.txt
    destination/    the same
    source-2/       the same, of the second QEMU with the source's devices;
                    and so on, where a scenario takes more than two QEMUs
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

from vfio_p2p.machine.errors import OutputLimitError, VMError
from vfio_p2p.machine.qemu import Qemu
from vfio_p2p.scenario.argv import Launcher, qemu_argv
from vfio_p2p.scenario.course import Course
from vfio_p2p.scenario.outcome import result
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.session import Session
from vfio_p2p.side import Side

# Of all QEMUs. With what else there is it must fit into the mailbox of a
# sealed VM; a run that ends leaves less than a hundredth of that.
OUTPUT_LIMIT_BYTES = 48 << 20
_OUTPUT_POLL_S = 1.0


async def _watch_output(vms: Sequence[Qemu]) -> NoReturn:
    """Wait until they have written too much, and blame the worst."""
    while True:
        sizes = [
            (sum(x.stat().st_size for x in vm.directory.iterdir()), vm.side)
            for vm in vms
        ]
        if sum(size for size, _ in sizes) > OUTPUT_LIMIT_BYTES:
            raise OutputLimitError(max(sizes)[1], OUTPUT_LIMIT_BYTES)
        await asyncio.sleep(_OUTPUT_POLL_S)


async def _run_within_limits(session: Session) -> None:
    steps = asyncio.create_task(session.run())
    watch = asyncio.create_task(_watch_output(session.vms))
    try:
        await asyncio.wait(
            (steps, watch), return_when=asyncio.FIRST_COMPLETED
        )
        if steps.done():
            steps.result()
        else:
            watch.result()
    finally:
        for task in (steps, watch):
            task.cancel()
        await asyncio.gather(steps, watch, return_exceptions=True)


async def run(
    course: Course,
    launchers: Mapping[Side, Launcher],
    devices: Mapping[Side, Sequence[str]],
    out: Path,
    before_migration: Callable[[], None] | None = None,
) -> Result:
    """Run one scenario.

    :param course: What is to happen.
    :param launchers: How to start the QEMUs, by the side whose devices they
        get.
    :param devices: vfio-pci's properties for each device, by side.
    :param out: Existing empty folder for what it leaves.
    :param before_migration: Called when both sides run, before the first
        migration.
    :return: How it ended, which is also in ``result.json``.
    """
    error: VMError | None = None
    made: Counter[Side] = Counter()
    async with AsyncExitStack() as stack:
        # sun_path is short, and `out` may not be.
        private = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="vfio-p2p-")
        )

        async def make(side: Side) -> Qemu:
            made[side] += 1
            again = f"-{made[side]}" if made[side] > 1 else ""
            name = f"{side}{again}"
            directory = out / name
            directory.mkdir()
            argv = qemu_argv(
                launchers[side],
                course,
                name,
                devices[side],
                incoming=name != Side.SOURCE,
            )
            return await stack.enter_async_context(
                Qemu(name, argv, directory)
            )

        session = Session(
            course, make, stack, Path(private), before_migration
        )
        await session.prepare()
        try:
            await _run_within_limits(session)
        except VMError as err:
            error = err
            await session.wind_up(err)
        statuses = {vm.side: vm.status for vm in session.vms}
    found = result(session, error, statuses)
    (out / "result.json").write_bytes(found.to_json())
    return found
