# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive one migration: two QEMUs, their devices, QMP, time limits.

The same runner works inside the testbed and on a host.  It judges nothing:
it leaves traces, transcripts and a `Result`.  What it leaves in the folder
that it is given::

    result.json
    source/       trace.log  qmp.jsonl  stderr.txt
    destination/  the same
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.errors import (
    CommandError,
    ConnectionLostError,
    LaunchError,
    MigrationFailedError,
    OutputLimitError,
    StepTimeoutError,
    VMError,
)
from harness.scenario.model import Outcome, Scenario
from harness.scenario.result import Result
from harness.vm.qemu import TRACE_LOG, Qemu

SOURCE = "source"
DESTINATION = "destination"
SIDES = (SOURCE, DESTINATION)

_POLL_S = 0.1

# Of one side. Both, and what else there is, must fit into the mailbox of a
# sealed VM; a run that ends leaves less than a hundredth of that.
OUTPUT_LIMIT_BYTES = 24 << 20
_OUTPUT_POLL_S = 1.0


@dataclass(frozen=True)
class Program:
    """The QEMU under test.

    :param argv: What to run, e.g. a dynamic loader and the binary.
    :param firmware: Folder with ``bios-256k.bin``.
    """

    argv: tuple[str, ...]
    firmware: Path


@dataclass(frozen=True)
class _Downtime:
    """What `query-migrate` says of the time that it took."""

    downtime_ms: int | None = None
    total_time_ms: int | None = None


def _qemu_argv(
    program: Program, scenario: Scenario, side: str, devices: Sequence[str]
) -> list[str]:
    argv = [
        *program.argv,
        *("-name", side),
        *("-machine", "q35,accel=tcg"),
        *("-m", str(scenario.guest.ram_mib)),
        *("-L", str(program.firmware)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        # An option ROM that only Windows guests look for.
        *("-global", "apic-common.vapic=off"),
    ]
    specs = scenario.each_device()
    if any(spec.unplug for spec in specs):
        # ACPI's way needs a guest that acknowledges it.
        argv += [
            *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
        ]
    for number, (spec, properties) in enumerate(
        zip(specs, devices, strict=True)
    ):
        where = ""
        if spec.unplug:
            port = f"port{number}"
            argv += ["-device", f"pcie-root-port,id={port},chassis={number}"]
            # A function without function 0 goes at once, with no word to
            # the guest (hw/pci/pcie.c, pcie_cap_slot_unplug_request_cb()).
            where = f"bus={port},addr=0.1,"
        argv += ["-device", f"vfio-pci,id=vfio{number},{where}{properties}"]
    if side == DESTINATION:
        argv += ["-incoming", "defer"]
    return argv


async def _prepare(vm: Qemu, scenario: Scenario) -> None:
    limit_s = scenario.limits.command_s
    wanted = {**scenario.migration.capabilities, "events": True}
    await vm.execute(
        "migrate-set-capabilities",
        {
            "capabilities": [
                {"capability": name, "state": state}
                for name, state in wanted.items()
            ]
        },
        limit_s=limit_s,
    )
    if scenario.migration.parameters:
        await vm.execute(
            "migrate-set-parameters",
            dict(scenario.migration.parameters),
            limit_s=limit_s,
        )


async def _unplug(vm: Qemu, scenario: Scenario) -> None:
    """Take out the devices that are not to migrate, one after another."""
    limits = scenario.limits
    for number, spec in enumerate(scenario.each_device()):
        if not spec.unplug:
            continue
        name = f"vfio{number}"
        await vm.execute("device_del", {"id": name}, limit_s=limits.command_s)
        async with vm.step("unplug", limits.settle_s):
            while True:
                match await vm.next_event("unplug"):
                    case {"event": "DEVICE_DELETED", "data": {"device": d}}:
                        if d == name:
                            break


async def _reaches(vm: Qemu, scenario: Scenario, wanted: str) -> None:
    """Wait until the migration has a status, as this side sees it."""
    limits = scenario.limits
    async with vm.step("migration", limits.migrate_s):
        while True:
            match await vm.next_event("migration"):
                case {"event": "MIGRATION", "data": {"status": status}}:
                    if status == wanted:
                        return
                    if status in ("completed", "failed", "cancelled"):
                        break
    why = "no reason"
    # A destination exits; only the source is still there to be asked.
    if vm.side == SOURCE:
        info = await vm.execute("query-migrate", limit_s=limits.command_s)
        match info:
            case {"error-desc": str(why)}:
                pass
    raise MigrationFailedError(vm.side, f"migration {status}: {why}")


async def _both_ended(
    source: Qemu, destination: Qemu, scenario: Scenario
) -> None:
    """Wait until both sides have completed; if not, say who is to blame."""
    ends = [
        asyncio.create_task(_reaches(vm, scenario, "completed"))
        for vm in (source, destination)
    ]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_EXCEPTION)
        # When one has failed the other ends as well, or it hangs.
        await asyncio.wait(ends, timeout=scenario.limits.settle_s)
    finally:
        for end in ends:
            end.cancel()
        found = await asyncio.gather(*ends, return_exceptions=True)
    errors = [end for end in found if isinstance(end, Exception)]
    if errors:
        raise min(errors, key=_distance)


def _distance(err: Exception) -> int:
    """How far an error is from what caused it; of equals the source's is
    first: a destination whose source gave up exits, and that is no second
    fault.
    """
    match err:
        case ConnectionLostError(crashed=True):
            return 0
        case StepTimeoutError():
            return 2
    return 1


async def _settled(vm: Qemu, scenario: Scenario) -> _Downtime:
    """Read QMP's downtime until two answers agree.

    8.1 says "completed" before it fills the figure in (facts/testbed.md).
    """
    limits = scenario.limits
    last: object = None
    async with vm.step("downtime", limits.settle_s):
        while True:
            info = await vm.execute("query-migrate", limit_s=limits.command_s)
            match info:
                case {"downtime": int(part), "total-time": int(total)}:
                    if info == last:
                        return _Downtime(part, total)
            last = info
            await asyncio.sleep(_POLL_S)


async def _cleaned_up(vm: Qemu, scenario: Scenario) -> None:
    """Wait for the source's cleanup, which follows "completed".

    QMP does not show it; a ``quit`` before it would end the devices in
    another order than a management tool that waits a moment.  It is over
    when each device has said so, which all of 8.1 to 11.1 do in the same
    words at the end (facts 4.2); savevm_state_cleanup is its beginning.
    """
    step = "cleanup of the migration"
    log = vm.directory / TRACE_LOG
    devices = sum(not device.unplug for device in scenario.each_device())
    async with vm.step(step, scenario.limits.settle_s):
        while not (
            log.exists()
            and log.read_bytes().count(b"vfio_save_cleanup ") >= devices
        ):
            await vm.check_alive(step)
            await asyncio.sleep(_POLL_S)


async def _cancel(source: Qemu, scenario: Scenario) -> None:
    """Cancel the migration in its iterative phase."""
    await _reaches(source, scenario, "active")
    limits = scenario.limits
    await source.execute("migrate_cancel", limit_s=limits.command_s)
    await _reaches(source, scenario, "cancelled")
    await _cleaned_up(source, scenario)


async def _migrate(
    source: Qemu,
    destination: Qemu,
    scenario: Scenario,
    uri: str,
    before_migrate: Callable[[], None],
) -> _Downtime:
    limits = scenario.limits
    for vm in (source, destination):
        await _unplug(vm, scenario)
        await _prepare(vm, scenario)
    await destination.execute(
        "migrate-incoming", {"uri": uri}, limit_s=limits.command_s
    )
    before_migrate()
    await source.execute("migrate", {"uri": uri}, limit_s=limits.command_s)
    if scenario.migration.cancel:
        await _cancel(source, scenario)
        # It takes the end of its stream for a fault, and exits.
        await destination.ended("exit after cancel", limits.quit_s)
        return _Downtime()
    await _both_ended(source, destination, scenario)
    await _cleaned_up(source, scenario)
    return await _settled(source, scenario)


def _outcome(err: VMError) -> Outcome:
    match err:
        case LaunchError():
            return Outcome.REFUSED
        case CommandError():
            return Outcome.REJECTED
        case StepTimeoutError():
            return Outcome.TIMEOUT
        case OutputLimitError():
            return Outcome.OUTPUT
        case ConnectionLostError():
            return Outcome.LOST
    return Outcome.FAILED


async def _drive(
    scenario: Scenario,
    vms: Mapping[str, Qemu],
    uri: str,
    before_migrate: Callable[[], None],
) -> _Downtime:
    for vm in vms.values():
        await vm.start(scenario.limits.launch_s)
    downtime = await _migrate(
        vms[SOURCE], vms[DESTINATION], scenario, uri, before_migrate
    )
    for side, vm in vms.items():
        if side == SOURCE or not scenario.migration.cancel:
            await vm.quit(scenario.limits.quit_s)
    return downtime


async def _watch_output(vms: Iterable[Qemu]) -> NoReturn:
    """Wait until one has written too much."""
    while True:
        for vm in vms:
            files = vm.directory.iterdir()
            if sum(x.stat().st_size for x in files) > OUTPUT_LIMIT_BYTES:
                raise OutputLimitError(vm.side, OUTPUT_LIMIT_BYTES)
        await asyncio.sleep(_OUTPUT_POLL_S)


async def _drive_within_limits(
    scenario: Scenario,
    vms: Mapping[str, Qemu],
    uri: str,
    before_migrate: Callable[[], None],
) -> _Downtime:
    drive = asyncio.create_task(_drive(scenario, vms, uri, before_migrate))
    watch = asyncio.create_task(_watch_output(vms.values()))
    try:
        await asyncio.wait(
            (drive, watch), return_when=asyncio.FIRST_COMPLETED
        )
        return drive.result() if drive.done() else watch.result()
    finally:
        for task in (drive, watch):
            task.cancel()
        await asyncio.gather(drive, watch, return_exceptions=True)


async def run(
    scenario: Scenario,
    program: Program,
    devices: Mapping[str, Sequence[str]],
    out: Path,
    before_migrate: Callable[[], None] = lambda: None,
) -> Result:
    """Run one scenario.

    :param scenario: What is to happen.
    :param program: The QEMU under test, the same on both sides.
    :param devices: By side, vfio-pci's properties for each device.
    :param out: Existing empty folder for what it leaves.
    :param before_migrate: Called once both sides run.
    :return: How it ended, which is also in ``result.json``.
    """
    error: VMError | None = None
    downtime = _Downtime()
    statuses: dict[str, int | None] = {}
    async with AsyncExitStack() as stack:
        # sun_path is short, and `out` may not be.
        private = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="vfio-p2p-")
        )
        vms = {}
        for side in SIDES:
            directory = out / side
            directory.mkdir()
            argv = _qemu_argv(program, scenario, side, devices[side])
            vms[side] = await stack.enter_async_context(
                Qemu(side, argv, directory)
            )
        try:
            downtime = await _drive_within_limits(
                scenario, vms, f"unix:{private}/migration", before_migrate
            )
        except VMError as err:
            error = err
            # A QEMU that still answers ends as it would for a user, so
            # that its traces are whole; the others are killed.
            for vm in vms.values():
                with suppress(VMError):
                    if vm.running:
                        await vm.quit(scenario.limits.quit_s)
        statuses = {side: vm.status for side, vm in vms.items()}
    if error is None:
        cancelled = scenario.migration.cancel
        result = Result(
            outcome=Outcome.CANCELLED if cancelled else Outcome.MIGRATED,
            exit_states=statuses,
            qmp_downtime_ms=downtime.downtime_ms,
            qmp_total_time_ms=downtime.total_time_ms,
        )
    else:
        result = Result(
            outcome=_outcome(error),
            side=error.side,
            step=getattr(error, "step", ""),
            # QMP's JSON can hold half a surrogate pair; ours must not.
            message=error.what.encode(errors="backslashreplace").decode(),
            stderr=getattr(error, "message", ""),
            exit_states=statuses,
        )
    (out / "result.json").write_bytes(result.to_json())
    return result
