# SPDX-License-Identifier: GPL-2.0-or-later
"""The course of a run, as data: everything that the runner has to know.

The expected result of the run is not a part of the course: see
`vfio_p2p.scenario.expect`.  The runner does not need it, and so it does not
go into the testbed's VM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p.scenario.device import (
    DMA_BASE,
    LATER,
    Device,
    Peers,
    check_properties,
)
from vfio_p2p.scenario.slots import check_slots, present, starting
from vfio_p2p.scenario.step import (
    PLAIN,
    Cancel,
    Incoming,
    Kill,
    Migrate,
    Plug,
    Status,
    Step,
    Turn,
    Unplug,
    Wait,
)
from vfio_p2p.scenario.values import (
    GlobalName,
    Integer,
    MachineName,
    Name,
    PropertyName,
    PropertyValue,
    Seconds,
    Strict,
)

# The memory that both sides together may take of the testbed's VM.  In tests,
# 608 MiB of device memory with 32 MiB of RAM fit, and 768 MiB with 128 MiB
# did not.
_MEMORY_MIB = 640
# The firmware uses memory at the end.
_DMA_END_BYTES = 16 << 20


class GuestProgram(StrEnum):
    """The program that the VM runs.

    `firmware` is QEMU's firmware and nothing else.  `heartbeat` replaces it
    with the program in images/guest, which writes a counter to every device.
    """

    FIRMWARE = "firmware"
    HEARTBEAT = "heartbeat"


class Guest(Strict, frozen=True, kw_only=True):
    """The VM that migrates.

    :param ram_mib: The VM's memory.
    :param machine: QEMU's machine type; with a version, as in
        ``pc-q35-10.0``, two releases of QEMU can have the same machine.
    :param paused: Whether the VM is left paused at the start (``-S``).
    :param only_migratable: Whether QEMU refuses whatever would block a
        migration (``-only-migratable``).
    :param witness: Whether the VM has a virtio device as well.  Each run of
        its run-state handler, which has no prepare callback, is traced.  It
        needs the program `heartbeat`, which leaves that device alone.
    :param program: The program that the VM runs.
    :param heartbeat_period_us: The time between two heartbeats.  Each of them
        writes a counter to every device.
    :param dirty_pages_per_s: The number of pages that the program
        ``heartbeat`` writes to in a second, one after another.
    :param dirty_blocks_per_s: The number of blocks of 4 KiB in each device's
        memory that it writes to in a second, one after another.
    """

    ram_mib: Annotated[int, Meta(ge=16, le=1024)] = 64
    machine: MachineName = "q35"
    paused: bool = False
    only_migratable: bool = False
    witness: bool = False
    program: GuestProgram = GuestProgram.FIRMWARE
    # The range that 16 bits of the PIT's clock can count, and that the guest
    # can keep up with.
    heartbeat_period_us: Annotated[int, Meta(ge=200, le=50_000)] = 1000
    dirty_pages_per_s: Annotated[int, Meta(ge=0, le=65536)] = 0
    dirty_blocks_per_s: Annotated[int, Meta(ge=0, le=4096)] = 0

    def __post_init__(self) -> None:
        for name in ("dirty_pages_per_s", "dirty_blocks_per_s"):
            if getattr(self, name) and self.program is GuestProgram.FIRMWARE:
                raise ValueError(
                    f"{name}: only the program 'heartbeat' dirties memory"
                )
        if self.witness and self.program is GuestProgram.FIRMWARE:
            raise ValueError(
                "witness: it needs the program 'heartbeat', since firmware "
                "uses the witness"
            )


class Tls(StrEnum):
    """How both sides prove who they are when a migration is encrypted."""

    PSK = "psk"


class Migration(Strict, frozen=True, kw_only=True):
    """Capabilities and parameters of the migration, set on both sides.

    :param capabilities: Migration capabilities, by QMP's names.
    :param parameters: Migration parameters, by QMP's names.
    :param tls: With `psk`, migrations are encrypted, and both sides have the
        same key.  A QEMU without GnuTLS is skipped.
    """

    capabilities: dict[str, bool] = msgspec.field(
        default_factory=lambda: {"return-path": True}
    )
    parameters: dict[str, Integer | str | bool] = msgspec.field(
        default_factory=dict
    )
    tls: Tls | None = None


class Limits(Strict, frozen=True, kw_only=True):
    """Time limits in seconds, on the clock of the machine that runs it.

    :param launch_s: The limit for a QEMU to start.
    :param command_s: The limit for a QMP command.
    :param migrate_s: The limit for each wait for a migration, a snapshot or a
        line of the trace.
    :param settle_s: The limit for the effects of a command, such as a reset or
        an unplug.
    :param quit_s: The limit for a QEMU to quit.
    """

    launch_s: Seconds = 60.0
    command_s: Seconds = 30.0
    migrate_s: Seconds = 120.0
    settle_s: Seconds = 30.0
    quit_s: Seconds = 30.0


class Outcome(StrEnum):
    """How a run can end; only `migrated` has a blackout.

    `idle` means that all steps were done and that none of them was a
    migration. `crashed` means that a QEMU died of a signal that no step sent.
    """

    IDLE = "idle"
    MIGRATED = "migrated"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    REJECTED = "command-rejected"
    FAILED = "migration-failed"
    TIMEOUT = "timed-out"
    CRASHED = "crashed"
    OUTPUT = "output-limit"
    LOST = "connection-lost"


class Course(Strict, frozen=True, kw_only=True):
    """Devices, a guest, and the steps of a run.

    :param name: The name of the scenario.
    :param devices: The devices that each side has.
    :param guest: The VM that migrates.
    :param migration: Capabilities and parameters of the migration.
    :param properties: Properties of QEMU's vfio-pci for every device, which
        override those that a place gives its devices, e.g.
        ``x-no-mmap = "off"``.
    :param globals: Defaults of properties in QEMU, on both sides, by
        ``DRIVER.PROPERTY``, e.g. ``migration.switchover-ack-legacy``.
    :param steps: The steps, in order.
    :param limits: The time limits.
    """

    name: Name
    devices: Annotated[tuple[Device, ...], Meta(min_length=1)]
    guest: Guest = Guest()
    migration: Migration = Migration()
    properties: dict[PropertyName, PropertyValue] = msgspec.field(
        default_factory=dict
    )
    globals: dict[GlobalName, PropertyValue] = msgspec.field(
        default_factory=dict
    )
    steps: tuple[Step, ...] = PLAIN
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        check_properties(self.properties)
        self._check_steps()
        self._check_memory()
        self._check_guest()
        self._check_dma()
        self._check_peers()

    def _check_steps(self) -> None:
        devices = self.each_device()
        for device in self.slots():
            if device >= len(devices) or not devices[device].root_port:
                raise ValueError(
                    f"steps: there is no device {device} with a root_port"
                )
        check_slots(self.steps)
        self._check_files()
        done: set[type[Step]] = set()
        for number, step in enumerate(self.steps, 1):
            done.add(type(step))
            if isinstance(step, Wait) and step.status and Migrate not in done:
                raise ValueError(
                    f"steps: step {number} waits for a migration before the "
                    "first one begins"
                )

    def _check_files(self) -> None:
        """Check that each file is read, and only after it was written."""
        unread = 0
        written = False
        for number, step in enumerate((*self.steps, None), 1):
            match step:
                case Migrate(through=through):
                    if unread:
                        break
                    unread = number if through else 0
                    written = False
                case Wait(status=Status.COMPLETED):
                    written = True
                case Incoming():
                    if not unread:
                        raise ValueError(
                            f"steps: step {number} has no file to read"
                        )
                    if not written:
                        raise ValueError(
                            f"steps: step {number} reads a file that may not "
                            "be whole; put a 'wait' for 'completed' before it"
                        )
                    unread = 0
                case Cancel() | Kill():
                    unread = 0
                case Turn() | None:
                    if unread:
                        break
        if unread:
            raise ValueError(
                f"steps: the file that step {unread} writes needs a step "
                "'incoming'"
            )

    def _check_guest(self) -> None:
        beats = self.guest.program is GuestProgram.HEARTBEAT
        if beats and any(x.root_port for x in self.devices):
            raise ValueError(
                "guest: the program 'heartbeat' does not find devices "
                "behind a root_port"
            )

    def _check_dma(self) -> None:
        wanted = sum(x.dma_bytes for x in self.each_device())
        if not wanted:
            return
        if self.guest.dirty_pages_per_s:
            raise ValueError(
                "devices: dma_bytes: the guest writes to the same memory, "
                "because of dirty_pages_per_s"
            )
        room = (self.guest.ram_mib << 20) - DMA_BASE - _DMA_END_BYTES
        if wanted > room:
            raise ValueError(
                f"devices: the devices write to {wanted >> 20} MiB of the "
                f"guest's memory, and {max(room, 0) >> 20} MiB are free for "
                "it; raise ram_mib"
            )

    def _check_peers(self) -> None:
        kinds = Counter(device.peers for device in self.each_device())
        if kinds[Peers.PAIRS] % 2:
            raise ValueError(
                "devices: the number of devices with peers = 'pairs' must "
                "be even"
            )
        if kinds[Peers.MESH] == 1:
            raise ValueError(
                "devices: one device alone cannot have peers = 'mesh'"
            )

    def _check_memory(self) -> None:
        size_bytes = sum(device.size_bytes for device in self.each_device())
        needed_mib = 2 * (self.guest.ram_mib + -(-size_bytes >> 20))
        if needed_mib > _MEMORY_MIB:
            raise ValueError(
                f"devices: source and destination need {needed_mib} MiB for "
                "all size_bytes and ram_mib, and the testbed has room for "
                f"{_MEMORY_MIB} MiB"
            )

    def to_json(self) -> bytes:
        """Encode it with all defaults: equal courses give equal bytes.

        What was added to the format later is left out if it is not used, so
        that older scenarios keep their digests.
        """
        every = msgspec.to_builtins(self)
        for name in ("properties", "globals"):
            if not every[name]:
                del every[name]
        for device in every["devices"]:
            for name, unused in LATER.items():
                if device[name] == unused:
                    del device[name]
        if self.guest.machine == Guest().machine:
            del every["guest"]["machine"]
        for key in ("only_migratable", "witness", "dirty_blocks_per_s"):
            if not every["guest"][key]:
                del every["guest"][key]
        if not self.migration.tls:
            del every["migration"]["tls"]
        for step in every["steps"]:
            if step["do"] == "migrate" and not step["through"]:
                del step["through"]
        return msgspec.json.format(
            msgspec.json.encode(every, order="sorted"), indent=1
        )

    def each_device(self) -> tuple[Device, ...]:
        """Return every single device, in the order of QEMU's arguments."""
        return tuple(
            device for device in self.devices for _ in range(device.count)
        )

    def vfio_properties(
        self, given: Mapping[str, str], device: Device | None = None
    ) -> dict[str, str]:
        """Return the properties of vfio-pci that a device gets.

        :param given: Those that the place gives the device, which the
            scenario overrides.
        :param device: The device, whose own properties come last; None
            leaves them out.
        """
        own = device.properties if device else {}
        return {**given, **self.properties, **own}

    def slots(self) -> set[int]:
        """Return the numbers of the devices that steps plug or unplug."""
        return {
            step.device
            for step in self.steps
            if isinstance(step, Plug | Unplug)
        }

    def starting(self) -> tuple[int, ...]:
        """Return the numbers of the devices that are there at the start."""
        return starting(len(self.each_device()), self.steps)

    def present(self, done: int | None = None) -> tuple[int, ...]:
        """Return the devices that are there, in the order of their plugging.

        :param done: After how many of the steps; by default, after all.
        """
        return present(len(self.each_device()), self.steps, done)


def course_from_json(data: bytes) -> Course:
    """Decode a course.

    :param data: The course as JSON.
    :raise msgspec.ValidationError: When it is not a course.
    """
    return msgspec.json.decode(data, type=Course)
