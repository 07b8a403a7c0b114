# SPDX-License-Identifier: GPL-2.0-or-later
"""What the preflight looks at of a card: its PF and what it can have."""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.devices.vf.drivers import numbers
from vfio_p2p.devices.vf.inventory import PciFunction
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.devices.vf.wanted import ChosenVfs, Scene

_WHY = {
    "default": "carries the default route",
    "ssh": "carries the SSH connection",
}
_VFS = "NUM_OF_VFS"


def card_lines(scene: Scene, card: ChosenVfs) -> Iterator[CheckLine]:
    """Examine a PF.

    :param scene: The host, and what is wanted of it.
    :param card: The PF, and the VFs that are needed of it.
    """
    name = scene.wanted.name
    for address in card.missing:
        yield CheckLine(
            name,
            address,
            False,
            "there is no such function",
            "a virtual function",
            f"{scene.wanted.listing} what is there.",
        )
    pf = card.pf
    if pf is None:
        if card.pf_address:
            yield _no_pf(scene, card)
        return
    if pf.kind != "pf":
        yield CheckLine(
            name,
            pf.address,
            False,
            f"{pf.id} cannot have virtual functions",
            "a physical function",
            f"{scene.wanted.listing} what is there.",
        )
        return
    yield from _identity(scene, pf)
    yield from _number(scene, card, pf)
    if scene.without_devlink(card):
        return
    yield from _firmware(scene, card, pf)
    if scene.driver.eswitch:
        yield from _eswitch(scene, card, pf)


def _no_pf(scene: Scene, card: ChosenVfs) -> CheckLine:
    there = ", ".join(
        x.address for x in scene.inventory.functions if x.kind == "pf"
    )
    return CheckLine(
        scene.wanted.name,
        card.pf_address,
        False,
        "there is no such physical function",
        f"one of {there}" if there else "a physical function with SR-IOV",
        f"{scene.wanted.listing} what is there.",
    )


def _identity(scene: Scene, pf: PciFunction) -> Iterator[CheckLine]:
    driver = scene.driver
    yield CheckLine(
        scene.wanted.name,
        f"{pf.address} card",
        pf.id in driver.pfs,
        pf.id,
        f"{' or '.join(driver.pfs)} ({driver.title})",
        f"Choose another card or another driver: {scene.wanted.listing} "
        "what is there.",
    )
    yield CheckLine(
        scene.wanted.name,
        f"{pf.address} driver",
        pf.driver in driver.pf_drivers,
        pf.driver or "none",
        " or ".join(driver.pf_drivers),
        f"Run 'modprobe {driver.pf_drivers[0]}' as root.",
    )
    yield CheckLine(
        scene.wanted.name,
        f"{pf.address} connections",
        not pf.routes,
        " and ".join(_WHY[x] for x in pf.routes) or "none of ours",
        "carries neither the default route nor the SSH connection",
        "Choose another card, or reach the host another way.",
    )


def _number(
    scene: Scene, card: ChosenVfs, pf: PciFunction
) -> Iterator[CheckLine]:
    host, address = scene.wanted.name, pf.address
    yield CheckLine(
        host,
        f"{address} possible VFs",
        (pf.totalvfs or 0) >= card.count,
        str(pf.totalvfs or 0),
        f"{card.count} or more",
        f"Run 'mlxconfig -d {address} set {_VFS}={card.count}' as root, and "
        "start the host again."
        if scene.driver.settings
        else "Ask for fewer, or choose another card.",
    )
    number = pf.numvfs or 0
    yield CheckLine(
        host,
        f"{address} VFs",
        number >= card.count,
        str(number),
        f"{card.count} or more",
        scene.prepare(card, replace=number > 0),
    )
    most = scene.driver.max_vfs
    if most is not None:
        yield CheckLine(
            host,
            f"{address} VFs at a time",
            _few_enough(card, most),
            str(card.count),
            f"at most {most} of one PF migrate at a time",
            "Ask for fewer, or take a further PF.",
        )


def _few_enough(card: ChosenVfs, most: int) -> bool | None:
    """Whether a card can migrate so many VFs at a time.

    Nobody says whether those that it receives count as well.
    """
    if card.count <= most:
        return True
    return False if card.of_a_side > most else None


def _firmware(
    scene: Scene, card: ChosenVfs, pf: PciFunction
) -> Iterator[CheckLine]:
    host, driver = scene.wanted.name, scene.driver
    oldest = driver.firmware.get(pf.id)
    if oldest:
        found = pf.fw_version
        yield CheckLine(
            host,
            f"{pf.address} firmware",
            numbers(found) >= numbers(oldest) if found else None,
            found or "not known",
            f"{oldest} or later",
            f"Burn it with 'mstflint -d {pf.address} -i FILE burn', and run "
            f"'mstfwreset -d {pf.address} reset', as root."
            if found
            else f"'devlink dev info pci/{pf.address}' tells it, as root.",
        )
    if not driver.settings:
        return
    settings = pf.firmware.config
    if not settings:
        wanted = (f"{x}={y}" for x, y in driver.settings.items())
        names = " ".join((*driver.settings, _VFS))
        yield CheckLine(
            host,
            f"{pf.address} settings",
            None,
            "not known",
            f"{', '.join(wanted)}, {_VFS}={card.count} or more",
            f"'mlxconfig -d {pf.address} query {names}' tells them, as root; "
            "Debian's package mstflint has it as mstconfig.",
        )
        return
    for name, value in driver.settings.items():
        yield _setting(scene, pf, name, value, settings.get(name) == value)
    number = settings.get(_VFS, "")
    yield _setting(
        scene,
        pf,
        _VFS,
        str(card.count),
        number.isdigit() and int(number) >= card.count,
    )


def _setting(
    scene: Scene, pf: PciFunction, name: str, value: str, ok: bool
) -> CheckLine:
    return CheckLine(
        scene.wanted.name,
        f"{pf.address} {name}",
        ok,
        pf.firmware.config.get(name, "not there"),
        f"{value} or more" if name == _VFS else value,
        f"Run 'mlxconfig -d {pf.address} set {name}={value}' and 'mstfwreset "
        f"-d {pf.address} reset' as root.",
    )


def _eswitch(
    scene: Scene, card: ChosenVfs, pf: PciFunction
) -> Iterator[CheckLine]:
    host, wanted = scene.wanted.name, scene.driver.eswitch
    mode, error = _mode(scene, pf)
    yield CheckLine(
        host,
        f"{pf.address} eswitch",
        mode == wanted if mode else None,
        mode or (f"not known: {error}" if error else "not known"),
        wanted,
        scene.prepare(card)
        if mode
        else f"'devlink dev eswitch show pci/{pf.address}' tells it, as "
        "root.",
    )
    if pf.bond:
        yield CheckLine(
            host,
            f"{pf.address} bond",
            None,
            f"part of {pf.bond}; not known whether this card's eswitch mode "
            "can be changed then",
            "no link aggregation",
            f"If changing it fails, take it out of the bond: 'ip link set "
            f"{pf.netdevs[0]} nomaster', as root.",
        )


def _mode(scene: Scene, pf: PciFunction) -> tuple[str, str]:
    """Return the mode of a card's switch, and why it is not known."""
    if pf.devlink is None:
        return "", "devlink does not know it"
    # Only root may ask for the mode. In legacy mode no VF has a port.
    if not pf.devlink.eswitch_mode and any(
        vf.port for vf in scene.inventory.vfs_of(pf)
    ):
        return "switchdev", ""
    return pf.devlink.eswitch_mode, pf.devlink.error
