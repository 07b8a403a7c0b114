# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes of QEMU that a host has, as its agent describes them."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from vfio_p2p.attach.target import Target, TargetKind
from vfio_p2p.errors import SkipError
from vfio_p2p.machine.host import Host


class Socket(msgspec.Struct, frozen=True):
    """A QMP monitor of a QEMU.

    :param kind: ``unix`` or ``tcp``.
    :param address: Its path, or its ``HOST:PORT``.
    :param held: Whether a client is connected, or waits to be.
    """

    kind: str
    address: str
    held: bool


class Log(msgspec.Struct, frozen=True):
    """Where the traces of a QEMU go.

    :param path: The file; empty if there is none that can be read.
    :param how: What leads there, or why nothing does.
    """

    path: str
    how: str


class Process(msgspec.Struct, frozen=True):
    """The process of a QEMU, as the agent describes it.

    :param pid: Its number.
    :param name: Its program.
    :param user: Its user.
    :param argv: Its command line.
    :param started: When it began, in ticks since its host did.
    :param threads: The numbers of its threads.
    :param guest: The name of its guest.
    :param devices: Its VFIO devices, by the names that its traces have.
    :param incoming: Where it waits for a migration, as ``-incoming`` has
        it; empty if it was not started to be migrated to.
    :param log: Where its traces go.
    :param timestamps: Whether its messages have times.
    :param monitors: Its QMP monitors.
    :param complete: Whether all of it could be looked at.
    """

    pid: int
    name: str
    user: str
    argv: list[str]
    started: int
    threads: list[int]
    guest: str
    devices: list[str]
    incoming: str
    log: Log
    timestamps: bool
    monitors: list[Socket]
    complete: bool


class _Found(msgspec.Struct):
    qemus: list[Process]
    complete: bool


async def qemus_of(host: Host) -> list[Process]:
    """Return the QEMUs of a host.

    :param host: The host.
    :raise HostError: When the host does not answer.
    """
    answer = await host.agent(["qemus"])
    return msgspec.convert(answer, _Found).qemus


async def find_process(
    host: Host,
    target: Target,
    uuid: str = "",
    thread: int | None = None,
    others: Collection[int] = (),
) -> Process:
    """Find the process that a user has named.

    :param host: Its host.
    :param target: What names it; a domain is found by its UUID.
    :param uuid: The UUID of the domain.
    :param thread: The number of a thread of the domain's QEMU, if known.
    :param others: The processes of other QEMUs of the same UUID.
    :raise SkipError: When there is none.
    """
    if target.kind is TargetKind.PID:
        answer = await host.agent(["qemus", "--pid", target.value])
        return msgspec.convert(answer, Process)
    found = await qemus_of(host)
    if target.kind is TargetKind.DOMAIN:
        mine = [x for x in found if uuid in x.argv and x.pid not in others]
        # Two QEMUs of one host have the same UUID if its domains migrate
        # from one libvirt to another; who is migrated to is the youngest.
        mine.sort(key=lambda x: (thread in x.threads, x.started))
        if mine:
            return mine[-1]
    for process in found:
        if any(same(target, monitor) for monitor in process.monitors):
            return process
    raise SkipError(
        f"{host.name}: no QEMU that can be seen has {target}",
        "'vfio-p2p watch --list' lists the QEMUs of this host. A process of "
        "another user is seen in full by root only.",
    )


def same(target: Target, monitor: Socket) -> bool:
    """Return whether a monitor is what a user has named.

    :param target: What names it.
    :param monitor: The monitor.
    """
    if target.kind != monitor.kind:
        return False
    if target.kind is TargetKind.TCP:
        return (
            target.value.rpartition(":")[2]
            == monitor.address.rpartition(":")[2]
        )
    return target.value == monitor.address
