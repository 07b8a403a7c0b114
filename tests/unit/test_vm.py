# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process, apart from the runner."""

from __future__ import annotations

import asyncio

from bench import Bench, fakes
from qemu.qmp import Message
from vfio_p2p.machine.qemu import Qemu
from vfio_p2p.side import Side


async def test_a_wait_ends_when_cancelled(bench: Bench) -> None:
    """A wait ends even if an event and the time limit coincide."""
    argv = [*fakes(bench.plan())[Side.SOURCE].argv, "-name", "source"]
    event = Message({"event": "MIGRATION_PASS"})
    finished = False
    async with Qemu("source", argv, bench.folder) as vm:
        await vm.start(60)
        turns = 0
        while not finished:
            task = asyncio.create_task(vm.next_event("test"))
            await vm.events.put(event)
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            await asyncio.wait([task])
            assert finished or task.cancelled(), f"after {turns} turns"
            turns += 1
            if not finished and not vm.events.empty():
                await vm.events.get()
    assert turns > 2
