# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of a QEMU under test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.scenario.course import Course, GuestProgram
from vfio_p2p.tells import Tells

# This file replaces the firmware and is in the same folder; see images/guest.
HEARTBEAT = "vfio-p2p-heartbeat.bin"

_IOMMUFD = "iommufd0"

# The trace event of each run of a virtio device's run-state handler.
WITNESS_EVENT = "virtio_set_status*"


@dataclass(frozen=True)
class Launcher:
    """How to start a QEMU under test.

    :param argv: The program and its first arguments, e.g. a dynamic loader
        and the binary.
    :param firmware: The folder with ``bios-256k.bin`` and `HEARTBEAT`.
    :param tells: How the QEMU tells of its migrations.
    """

    argv: tuple[str, ...]
    firmware: Path
    tells: Tells = Tells.LOG


def joined(properties: Mapping[str, str]) -> str:
    """Write properties as QEMU's ``-device`` takes them.

    :param properties: The properties.
    """
    return ",".join(map("=".join, properties.items()))


def qemu_argv(
    launcher: Launcher,
    course: Course,
    name: str,
    devices: Sequence[Mapping[str, str]],
    *,
    incoming: bool,
) -> list[str]:
    """Make the command line, without the options for QMP and tracing.

    :param launcher: The QEMU under test.
    :param course: The course of the run.
    :param name: The name that QEMU is given.
    :param devices: The properties of vfio-pci that the place gives to each
        device; the course may override them.
    :param incoming: Whether QEMU waits for a migration.
    """
    argv = [
        *launcher.argv,
        *("-name", name),
        *("-machine", f"{_machine(course)},accel=tcg"),
        *("-m", str(course.guest.ram_mib)),
        *("-L", str(launcher.firmware)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        # It loads an option ROM that only Windows guests look for.
        *("-global", "apic-common.vapic=off"),
    ]
    guest = course.guest
    if guest.program is GuestProgram.HEARTBEAT:
        numbers = (
            guest.heartbeat_period_us,
            guest.dirty_pages_per_s,
            guest.dirty_blocks_per_s,
        )
        told = " ".join(str(x) for x in numbers)
        argv += [
            *("-bios", HEARTBEAT),
            *("-fw_cfg", f"name=opt/vfio-p2p/heartbeat,string={told}"),
        ]
    for name, value in course.globals.items():
        argv += ["-global", f"{name}={value}"]
    if course.slots():
        # Unplugging through ACPI needs a guest that acknowledges it.
        argv += [
            *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
        ]
    if guest.only_migratable:
        argv += ["-only-migratable"]
    if any(device.iommufd for device in course.devices):
        argv += ["-object", f"iommufd,id={_IOMMUFD}"]
    for device in _devices(course, devices, launcher.tells):
        argv += ["-device", device]
    if guest.witness:
        argv += ["-device", "virtio-serial-pci", "-trace", WITNESS_EVENT]
    if incoming:
        argv += ["-incoming", "defer"]
    elif guest.paused:
        argv += ["-S"]
    return argv


def _machine(course: Course) -> str:
    """Return the machine type, the same machine in every build of QEMU."""
    name = course.guest.machine
    if name.startswith("pc-"):
        # By default, it has these if QEMU was built with them.
        return f"{name},hpet=off,vmport=off"
    return name


def _devices(
    course: Course, devices: Sequence[Mapping[str, str]], tells: Tells
) -> Iterator[str]:
    starting = course.starting()
    for number, (spec, given) in enumerate(
        zip(course.each_device(), devices, strict=True)
    ):
        if spec.root_port:
            yield f"pcie-root-port,id=port{number},chassis={number}"
        if number in starting:
            properties = device_properties(course, number, given, tells)
            yield f"vfio-pci,{joined(properties)}"


def device_properties(
    course: Course, number: int, given: Mapping[str, str], tells: Tells
) -> dict[str, str]:
    """Return all properties of a device, its id and its place included.

    :param course: The course of the run.
    :param number: The number of the single device, from 0.
    :param given: The properties that the place gives the device.
    :param tells: How the QEMU tells of its migrations.
    """
    spec = course.each_device()[number]
    where = {"id": f"vfio{number}"}
    if spec.root_port:
        where["bus"] = f"port{number}"
    if spec.iommufd:
        where["iommufd"] = _IOMMUFD
    if number in course.slots():
        # A function without a function 0 is removed at once, and the guest
        # is not asked (hw/pci/pcie.c, pcie_cap_slot_unplug_request_cb()).
        where["addr"] = "0.1"
    # A log tells more, and an event for each arc takes its time.
    events = {} if tells is Tells.LOG else {"migration-events": "on"}
    return {**where, **course.vfio_properties(given, spec), **events}
