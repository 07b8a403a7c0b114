# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wanted of hosts, and which of their functions it is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vfio_p2p.devices.vf.drivers import (
    VariantDriver,
    find_driver,
    load_drivers,
)
from vfio_p2p.devices.vf.inventory import Inventory, PciFunction
from vfio_p2p.errors import SkipError, UsageError

RAM_MIB = 64
# One for the source and one for the destination.
COUNT = 2


@dataclass(frozen=True)
class Needed:
    """The VFs of one side: the first ones of a PF, or named one by one.

    :param pf: The address of the PF; empty if the VFs are named, or if any
        PF will do.
    :param count: How many VFs of it.
    :param vfs: The addresses of VFs.
    """

    pf: str = ""
    count: int = COUNT
    vfs: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostWanted:
    """What is wanted of one host.

    :param name: The host's name, for messages.
    :param driver: The key of the variant driver; empty if any will do.
    :param needed: The VFs of each side that is on this host.
    :param qemus: The paths of the QEMUs that shall run there.
    :param options: The options of the command line that name the host, or
        the pair that it belongs to, after a space.
    :param known: Whether ``host prepare`` with these options knows the driver
        and the functions.
    """

    name: str
    driver: str = ""
    needed: tuple[Needed, ...] = (Needed(),)
    qemus: tuple[str, ...] = ()
    options: str = ""
    known: bool = True

    @property
    def listing(self) -> str:
        """Where to look for other functions, as a sentence's beginning."""
        return f"'vfio-p2p host list{self.options}' shows"


@dataclass(frozen=True)
class HostsWanted:
    """What is wanted of one host, or of two.

    :param hosts: What is wanted of each.
    :param ram_mib: The memory of a guest.
    """

    hosts: tuple[HostWanted, ...]
    ram_mib: int = RAM_MIB


@dataclass(frozen=True)
class ChosenVfs:
    """The functions that one side is about.

    :param pf_address: The address of the PF; empty if unknown.
    :param pf: The PF, if it is there.
    :param vfs: Those of its VFs that are there.
    :param missing: The addresses of the named VFs that are not there.
    :param count: How many VFs are needed.
    :param of_a_side: How many of them one QEMU takes.
    """

    pf_address: str
    pf: PciFunction | None
    vfs: tuple[PciFunction, ...]
    missing: tuple[str, ...]
    count: int
    of_a_side: int


@dataclass(frozen=True)
class Scene:
    """One host, with what is wanted of it.

    :param wanted: What is wanted.
    :param inventory: What the host has.
    :param driver: The variant driver.
    :param sides: The functions of each side.
    :param ram_mib: The memory of a guest.
    """

    wanted: HostWanted
    inventory: Inventory
    driver: VariantDriver
    sides: tuple[ChosenVfs, ...]
    ram_mib: int

    @property
    def cards(self) -> tuple[ChosenVfs, ...]:
        """The functions by PF, as both sides may have VFs of one."""
        found: dict[str, ChosenVfs] = {}
        for side in self.sides:
            before = found.get(side.pf_address)
            found[side.pf_address] = (
                _joined(before, side) if before else side
            )
        return tuple(found.values())

    def prepare(self, card: ChosenVfs, *, replace: bool = False) -> str:
        """Return what to do to have a card set up, a whole sentence.

        :param card: The card.
        :param replace: Whether VFs go that are there.
        """
        words = [f"vfio-p2p host prepare{self.wanted.options}"]
        if not self.wanted.known:
            key = next(
                name
                for name, driver in load_drivers().items()
                if driver is self.driver
            )
            words.append(
                f"--pf {card.pf_address} --count {card.count} --driver {key}"
            )
        if replace:
            words.append("--replace")
        return f"Run '{' '.join(words)}'."

    def without_devlink(self, card: ChosenVfs) -> bool:
        """Whether nothing is wanted of devlink for a card.

        :param card: The card.
        """
        pf = card.pf
        return self.driver.devlink_optional and not (pf and pf.devlink)


def scene(inventory: Inventory, wanted: HostWanted, ram_mib: int) -> Scene:
    """Find the functions that are meant.

    :param inventory: What the host has.
    :param wanted: What is wanted of it.
    :param ram_mib: The memory of a guest.
    :raise SkipError: When the host has nothing that the driver migrates.
    :raise UsageError: When there is no such driver.
    """
    driver = _driver(inventory, wanted)
    sides = tuple(
        side
        for each in wanted.needed
        for side in _sides(inventory, driver, each, wanted.name)
    )
    return Scene(wanted, inventory, driver, sides, ram_mib)


def _driver(inventory: Inventory, wanted: HostWanted) -> VariantDriver:
    if wanted.driver:
        return find_driver(wanted.driver)
    named = {
        address
        for each in wanted.needed
        for address in (each.pf, *each.vfs)
        if address
    }
    meant = [
        function
        for function in inventory.functions
        if not named or function.address in named
    ]
    for driver in load_drivers().values():
        if any(_fits(driver, function) for function in meant):
            return driver
    if named and not meant:
        raise UsageError(
            f"{wanted.name} has no virtual function, and none that can have "
            f"them, at {', '.join(sorted(named))}",
            f"{wanted.listing} what is there.",
        )
    titles = "; ".join(x.title for x in load_drivers().values())
    raise SkipError(
        f"{wanted.name} has no function that a variant driver migrates",
        f"Choose a host that has one of these: {titles}.",
    )


def _fits(driver: VariantDriver, function: PciFunction) -> bool:
    return driver.fits_pf(function) or driver.fits_vf(function)


def _sides(
    inventory: Inventory,
    driver: VariantDriver,
    needed: Needed,
    host: str,
) -> Iterator[ChosenVfs]:
    if needed.vfs:
        yield from _named(inventory, needed)
    elif needed.pf:
        yield _first(inventory, driver, needed.pf, needed.count)
    else:
        pfs = list(_pfs(inventory, driver))
        if not pfs:
            raise SkipError(
                f"{host} has no function for the driver {driver.driver}",
                f"Choose a host that has one of these: {driver.title}.",
            )
        best = max(pfs, key=lambda x: _rank(inventory, driver, x))
        yield _first(inventory, driver, best.address, needed.count)


def _named(inventory: Inventory, needed: Needed) -> Iterator[ChosenVfs]:
    found = [inventory.find(address) for address in needed.vfs]
    there = [x for x in found if x]
    missing = [
        address
        for address, x in zip(needed.vfs, found, strict=True)
        if x is None
    ]
    for pf in dict.fromkeys(x.pf for x in there):
        vfs = tuple(x for x in there if x.pf == pf)
        yield ChosenVfs(pf, inventory.find(pf), vfs, (), len(vfs), len(vfs))
    if missing:
        number = len(missing)
        yield ChosenVfs("", None, (), tuple(missing), number, number)


def _first(
    inventory: Inventory, driver: VariantDriver, address: str, count: int
) -> ChosenVfs:
    pf = inventory.find(address)
    vfs = inventory.vfs_for(pf, driver.driver)[:count] if pf else ()
    return ChosenVfs(address, pf, vfs, (), count, count)


def _pfs(
    inventory: Inventory, driver: VariantDriver
) -> Iterator[PciFunction]:
    """Yield the PFs that could do, by themselves or by their VFs."""
    for function in inventory.functions:
        if driver.fits_pf(function) or any(
            driver.fits_vf(x) for x in inventory.vfs_of(function)
        ):
            yield function


def _rank(
    inventory: Inventory, driver: VariantDriver, pf: PciFunction
) -> tuple[bool, int, int, int]:
    """Return a greater value for a PF that needs less to be done."""
    vfs = inventory.vfs_of(pf)
    bound = sum(x.driver == driver.driver for x in vfs)
    return not pf.routes, bound, len(vfs), pf.totalvfs or 0


def _joined(one: ChosenVfs, other: ChosenVfs) -> ChosenVfs:
    vfs = {x.address: x for x in (*one.vfs, *other.vfs)}
    return ChosenVfs(
        one.pf_address,
        one.pf,
        tuple(vfs.values()),
        (*one.missing, *other.missing),
        one.count + other.count,
        max(one.of_a_side, other.of_a_side),
    )
