# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrate a QEMU that somebody else started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from vfio_p2p.attach.monitor import Monitor
from vfio_p2p.attach.qemu import AttachedQemu
from vfio_p2p.attach.target import TargetKind
from vfio_p2p.errors import CommandError, UsageError, VMError
from vfio_p2p.scenario.course import Migration
from vfio_p2p.side import Side

_DEFER = "defer"
_BEGUN = {
    "setup", "active", "device", "pre-switchover", "postcopy-active",
    "postcopy-paused", "postcopy-recover", "wait-unplug",
}  # fmt: skip


@dataclass(frozen=True)
class Drive:
    """A migration that is wanted.

    :param uri: Where to, as the source has it; empty means where the
        destination listens.
    :param migration: The capabilities and parameters to set on both sides
        before.  They stay set.
    """

    uri: str = ""
    migration: Migration = field(
        default_factory=lambda: Migration(capabilities={})
    )


@asynccontextmanager
async def driving(
    qemus: Mapping[Side, AttachedQemu], wanted: Drive
) -> AsyncIterator[None]:
    """Begin a migration, and cancel it if the block is left by an exception.

    :param qemus: The QEMUs by side.
    :param wanted: The migration.
    :raise UsageError: When it cannot be begun as it is wanted.
    :raise VMError: When a QEMU refuses, or is gone.
    """
    source = _monitor(qemus[Side.SOURCE])
    destination = qemus.get(Side.DESTINATION)
    uri = _address(destination, wanted)
    for qemu in qemus.values():
        await _configure(qemu, wanted.migration)
    if destination and destination.process.incoming == _DEFER:
        await _monitor(destination).execute("migrate-incoming", {"uri": uri})
    await source.execute("migrate", {"uri": uri})
    try:
        yield
    except BaseException:
        # QEMU may be gone, and the migration may be over.
        with suppress(VMError):
            match await source.execute("query-migrate"):
                case {"status": str(status)} if status in _BEGUN:
                    await source.execute("migrate_cancel")
        raise


def _monitor(qemu: AttachedQemu) -> Monitor:
    if qemu.target.kind is TargetKind.DOMAIN:
        raise UsageError(
            f"{qemu.name}: a domain of libvirt is migrated by libvirt",
            "Start 'vfio-p2p record', and then 'virsh migrate'.",
        )
    if qemu.monitor is None:
        raise UsageError(
            f"{qemu.name}: it cannot be told to migrate: {qemu.why}",
            "Start QEMU with one more -qmp.",
        )
    return qemu.monitor


def _address(destination: AttachedQemu | None, wanted: Drive) -> str:
    """Return where the destination listens, as the source has it."""
    if destination is None:
        if wanted.uri:
            return wanted.uri
        raise UsageError(
            "it is not known where to migrate to",
            "Name the destination with --destination, or where it listens "
            "with --uri.",
        )
    incoming = destination.process.incoming
    if not incoming:
        raise UsageError(
            f"{destination.name}: this QEMU does not wait for a migration",
            "Start it with '-incoming defer'.",
        )
    if wanted.uri:
        return wanted.uri
    if incoming == _DEFER:
        raise UsageError(
            f"{destination.name}: it was started with '-incoming defer', and "
            "has to be told where to listen",
            "Name the address with --uri, e.g. '--uri unix:/run/m.sock'.",
        )
    # A socket that listens on all addresses has no one name.
    if not incoming.startswith("unix:"):
        raise UsageError(
            f"{destination.name}: it listens at {incoming}, which may have "
            "another name on the source's host",
            "Name it with --uri, e.g. '--uri tcp:HOST:PORT'.",
        )
    return incoming


async def _configure(qemu: AttachedQemu, migration: Migration) -> None:
    """Set capabilities and parameters; QEMU knows their names."""
    capabilities = {**migration.capabilities, "events": True}
    if qemu.monitor is None and not (
        migration.capabilities or migration.parameters
    ):
        return
    monitor = _monitor(qemu)
    try:
        await monitor.execute(
            "migrate-set-capabilities",
            {
                "capabilities": [
                    {"capability": name, "state": state}
                    for name, state in capabilities.items()
                ]
            },
        )
        if migration.parameters:
            await monitor.execute(
                "migrate-set-parameters", dict(migration.parameters)
            )
    except CommandError as err:
        raise UsageError(
            err.what,
            "QEMU's QMP reference lists what its release knows.",
        ) from err
