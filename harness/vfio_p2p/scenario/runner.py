# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one scenario: start its QEMUs, do its steps, keep its time limits.

The same runner works in the testbed's VM and on a host.  It does not judge
the run, but leaves traces, transcripts and a `Result` in a folder::

    result.json
    source/         trace.log  qmp.jsonl  stderr.txt
    destination/    the same
    source-2/       the same for the second QEMU with the source's devices,
                    and so on, if a scenario needs more than two QEMUs
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
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

# For all QEMUs together.  Everything that a run leaves must fit into the
# mailbox of a sealed VM.  A run that ends normally leaves less than a
# hundredth of this.
OUTPUT_LIMIT_BYTES = 48 << 20
_OUTPUT_POLL_S = 1.0

Make = Callable[[Side, str, Path], Awaitable[Qemu]]
Kind = Callable[
    [Course, Callable[[Side], Awaitable[Qemu]], AsyncExitStack, Path], Session
]


async def _watch_output(vms: Sequence[Qemu]) -> NoReturn:
    """Wait until the QEMUs have written too much; blame the worst one."""
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


async def run_with(
    course: Course,
    make: Make,
    out: Path,
    private: Path,
    session: Kind = Session,
) -> Result:
    """Run one scenario with QEMUs that somebody else makes.

    :param course: The course of the run.
    :param make: Makes the QEMU for the devices of a side; it gets the name of
        the QEMU and an existing empty folder for its files.
    :param out: An existing empty folder for the files of the run.
    :param private: A folder for sockets and disk images.
    :param session: Makes the session.
    :return: How the run ended; ``result.json`` holds the same.
    """
    error: VMError | None = None
    made: Counter[Side] = Counter()
    async with AsyncExitStack() as stack:

        async def add(side: Side) -> Qemu:
            made[side] += 1
            again = f"-{made[side]}" if made[side] > 1 else ""
            name = f"{side}{again}"
            directory = out / name
            directory.mkdir()
            return await stack.enter_async_context(
                await make(side, name, directory)
            )

        playing = session(course, add, stack, private)
        await playing.prepare()
        try:
            await _run_within_limits(playing)
        except VMError as err:
            error = err
            await playing.wind_up(err)
        statuses = {vm.side: vm.status for vm in playing.vms}
    found = result(playing, error, statuses)
    (out / "result.json").write_bytes(found.to_json())
    return found


async def run(
    course: Course,
    launchers: Mapping[Side, Launcher],
    devices: Mapping[Side, Sequence[Mapping[str, str]]],
    out: Path,
    before_migration: Callable[[], None] | None = None,
) -> Result:
    """Run one scenario.

    :param course: The course of the run.
    :param launchers: How to start QEMU, by the side whose devices it gets.
        To end QEMU with this process, see `vfio_p2p.machine.process.bound`.
    :param devices: The properties of vfio-pci that select each device, by
        side.
    :param out: An existing empty folder for the files of the run.
    :param before_migration: Called when both sides are up, before the first
        migration.
    :return: How the run ended; ``result.json`` holds the same.
    """

    async def make(side: Side, name: str, directory: Path) -> Qemu:
        argv = qemu_argv(
            launchers[side],
            course,
            name,
            devices[side],
            incoming=name != Side.SOURCE,
        )
        return Qemu(name, argv, directory, launchers[side].tells)

    # The path of a socket must be short (sun_path), and `out` may be long.
    with tempfile.TemporaryDirectory(prefix="vfio-p2p-") as private:
        return await run_with(
            course,
            make,
            out,
            Path(private),
            partial(
                Session, before_migration=before_migration, devices=devices
            ),
        )
