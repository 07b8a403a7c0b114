# SPDX-License-Identifier: GPL-2.0-or-later
"""What the preflight looks at of each VF."""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.devices.vf.inventory import PciFunction
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.devices.vf.wanted import ChosenVfs, Scene

_PLAIN = "vfio-pci"
_NEEDED = ("stop_copy", "p2p")


def vf_lines(
    scene: Scene, card: ChosenVfs, vf: PciFunction
) -> Iterator[CheckLine]:
    """Examine one VF.

    :param scene: The host, and what is wanted of it.
    :param card: Its PF and the other VFs.
    :param vf: The VF.
    """
    yield CheckLine(
        scene.wanted.name,
        f"{vf.address} device",
        scene.driver.fits_vf(vf),
        vf.id if vf.kind == "vf" else f"{vf.id}, which is no VF",
        " or ".join(scene.driver.vfs),
        f"Choose another card or another driver: {scene.wanted.listing} "
        "what is there.",
    )
    yield from _group(scene, card, vf)
    if not scene.without_devlink(card):
        yield from _port(scene, card, vf)
    bound = vf.driver == scene.driver.driver
    yield _driver(scene, card, vf)
    if bound:
        yield _migration(scene, card, vf)
        yield _rights(scene, card, vf)
    if vf.vfio.exists or vf.vfio.cdev:
        yield _users(scene, vf)


def _group(
    scene: Scene, card: ChosenVfs, vf: PciFunction
) -> Iterator[CheckLine]:
    ours = {x.address for x in card.vfs}
    foreign = [x for x in vf.group_members if x not in ours]
    found = f"{vf.iommu_group}"
    if foreign:
        found += f", with {', '.join(foreign)}"
    yield CheckLine(
        scene.wanted.name,
        f"{vf.address} IOMMU group",
        vf.iommu_group is not None and not foreign,
        "none" if vf.iommu_group is None else found,
        "one without other devices",
        "Plug the card into a slot whose bridges have ACS, and switch ACS "
        "on in the firmware's set-up."
        if foreign
        else "Switch the IOMMU on.",
    )


def _port(
    scene: Scene, card: ChosenVfs, vf: PciFunction
) -> Iterator[CheckLine]:
    for name, wanted in scene.driver.port_caps.items():
        found = vf.port.caps.get(name) if vf.port else None
        yield CheckLine(
            scene.wanted.name,
            f"{vf.address} {name}",
            found == wanted if vf.port else None,
            found or ("not offered" if vf.port else "not known"),
            wanted,
            scene.prepare(card)
            if vf.port
            else "'devlink port show' tells it once the card is in "
            f"switchdev mode. {scene.prepare(card)}",
        )


def _driver(
    scene: Scene, card: ChosenVfs, vf: PciFunction
) -> CheckLine:
    found = vf.driver or "none"
    if vf.driver == _PLAIN:
        found += ", which migrates no device"
    return CheckLine(
        scene.wanted.name,
        f"{vf.address} driver",
        vf.driver == scene.driver.driver,
        found,
        scene.driver.driver,
        scene.prepare(card),
    )


def _migration(
    scene: Scene, card: ChosenVfs, vf: PciFunction
) -> CheckLine:
    told = vf.migration
    flags = ", ".join(told.flags) or "no migration"
    if not told.source:
        flags = f"not known: {told.error}" if told.error else "not known"
    return CheckLine(
        scene.wanted.name,
        f"{vf.address} features",
        {*_NEEDED} <= {*told.flags} if told.source else None,
        flags,
        " and ".join(_NEEDED),
        "The driver offers them only for a VF that was made migratable "
        f"before it was bound. {scene.prepare(card)}"
        if told.source
        else "Add --probe: it opens the device and asks the driver.",
    )


def _rights(
    scene: Scene, card: ChosenVfs, vf: PciFunction
) -> CheckLine:
    node, user = vf.vfio, scene.inventory.caller.user
    found = "not there"
    if node.exists:
        found = f"of user {node.uid}, mode {node.mode}"
    return CheckLine(
        scene.wanted.name,
        f"{vf.address} {node.path}",
        node.usable,
        found,
        f"{user} may read and write it",
        f"{scene.prepare(card)} Or run 'chown {user} {node.path}' as root, "
        "after each time that a driver is bound.",
    )


def _users(scene: Scene, vf: PciFunction) -> CheckLine:
    users = "; ".join(
        f"PID {x.pid} ({x.name}, user {x.user})" for x in vf.users
    )
    free: bool | None = not vf.users and not vf.busy
    found = users or ("an unknown process" if vf.busy else "nobody")
    if free and not vf.users_complete and vf.busy is None:
        free = None
        found = "not known: processes of other users cannot be looked at"
    return CheckLine(
        scene.wanted.name,
        f"{vf.address} users",
        free,
        found,
        "nobody",
        "Add --probe: it tries to open the device. Root sees all processes."
        if free is None
        else "Wait until it ends, or end it.",
    )
