# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host has; the agent's command ``inventory`` finds it out."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from vfio_p2p.errors import HostError

FORMAT = 1

Kind = Literal["pf", "vf", "function"]
ModuleState = Literal["loaded", "available", "built-in", ""]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of everything in an inventory."""


class HostFacts(_Part, frozen=True):
    """The machine and its kernel.

    :param name: The name that it gives itself.
    :param boot_id: Differs each time it starts.
    :param kernel: The kernel's release.
    :param cpu: The CPU's model.
    :param cores: The number of CPUs.
    :param memory_kib: The size of its memory.
    :param numa_nodes: The number of NUMA nodes.
    :param load: The load of the last 1, 5 and 15 minutes.
    :param time_ns: Its clock, when the inventory was taken.
    :param python: The version of the Python that took it.
    :param iproute2: The version of iproute2; empty without it.
    :param devlink: The path of ``devlink``; empty without it.
    :param kvm: Whether the caller may use KVM.
    :param iommu_groups: The number of IOMMU groups.
    :param iommu: The names of the IOMMUs.
    :param modules: How kernel modules are there; empty means not at all.
    :param programs: Whether programs that were asked for can be run.
    """

    name: str
    boot_id: str
    kernel: str
    cpu: str
    cores: int
    memory_kib: int
    numa_nodes: int
    load: tuple[float, float, float]
    time_ns: int
    python: str
    iproute2: str
    devlink: str
    kvm: bool
    iommu_groups: int
    iommu: tuple[str, ...]
    modules: dict[str, ModuleState]
    programs: dict[str, bool]


class Caller(_Part, frozen=True):
    """The user who took the inventory.

    :param uid: The user's number.
    :param user: The user's name.
    :param memlock_bytes: How much memory a process may lock; None means any
        amount.
    :param root: Whether it is root.
    :param sudo: Whether the user may become root without a password.
    """

    uid: int
    user: str
    memlock_bytes: int | None
    root: bool
    sudo: bool


class VfioNode(_Part, frozen=True):
    """The node in ``/dev/vfio`` through which a function is used.

    :param path: The node of the function's IOMMU group; empty without one.
    :param exists: Whether it is there.
    :param uid: Whose it is.
    :param gid: Whose group's it is.
    :param mode: Its permissions in octal digits.
    :param usable: Whether the caller may open it.
    :param cdev: The name of the function's own node, on kernels that have
        IOMMUFD.
    """

    path: str
    exists: bool
    uid: int | None
    gid: int | None
    mode: str
    usable: bool
    cdev: str


class DeviceUser(_Part, frozen=True):
    """A process that has a function open.

    :param pid: The process.
    :param name: Its program.
    :param user: The user who runs it.
    """

    pid: int
    name: str
    user: str


class Migratability(_Part, frozen=True):
    """What a function's driver says about migration.

    :param source: ``debugfs`` or ``probe``; empty if nobody was asked.
    :param flags: ``stop_copy``, ``p2p``, ``pre_copy``, and from debugfs
        ``dirty_tracking``.
    :param error: Why the driver could not be asked.
    """

    source: Literal["debugfs", "probe", ""]
    flags: tuple[str, ...]
    error: str


class DevlinkDevice(_Part, frozen=True):
    """What ``devlink`` says about a PF.

    :param handle: Its name there.
    :param eswitch_mode: ``legacy``, ``switchdev``, or empty if unknown.
    :param fw_version: The version of its firmware.
    :param psid: The kind of board that the firmware is for.
    :param error: What could not be found out.
    """

    handle: str
    eswitch_mode: str
    fw_version: str
    psid: str
    error: str


class VfPort(_Part, frozen=True):
    """The port of a VF in its card's switch.

    :param handle: Its name for ``devlink``.
    :param caps: What its function can do, e.g. ``migratable``.
    """

    handle: str
    caps: dict[str, str]


class CardFirmware(_Part, frozen=True):
    """What the tools of a card's maker say.

    :param fw_version: The version of the firmware.
    :param psid: The kind of board that the firmware is for.
    :param config: The settings that take effect with the next start.
    """

    fw_version: str = ""
    psid: str = ""
    config: dict[str, str] = msgspec.field(default_factory=dict)


class PciFunction(_Part, frozen=True):
    """A PCI function that is virtual, can have VFs, or belongs to VFIO.

    :param address: Its address.
    :param kind: ``pf``, ``vf``, or ``function`` if it is neither.
    :param vendor: The vendor's number in hexadecimal digits.
    :param device: The device's number in hexadecimal digits.
    :param class_code: Its class in hexadecimal digits.
    :param driver: The driver that has it; empty without one.
    :param driver_override: The only driver that may take it, if set.
    :param iommu_group: Its IOMMU group; None without one.
    :param group_members: The addresses of all functions of the group.
    :param numa_node: The NUMA node that it is at; None if unknown.
    :param pf: The address of a VF's PF.
    :param vf_index: The number of a VF.
    :param numvfs: How many VFs a PF has.
    :param totalvfs: How many VFs a PF can have.
    :param autoprobe: Whether drivers take the new VFs of a PF.
    :param netdevs: Its network devices.
    :param bond: The bond that its network device is a part of.
    :param routes: Why it must not be touched: ``default`` for the default
        route, ``ssh`` for the connection over which we came.
    :param vfio: Its node in ``/dev/vfio``.
    :param users: The processes that have it open.
    :param users_complete: Whether there can be no others.
    :param busy: Whether its group is in use, if that was tried.
    :param migration: What its driver says about migration.
    :param devlink: What devlink says about a PF.
    :param port: The port of a VF.
    :param firmware: What the tools of the card's maker say.
    """

    address: str
    kind: Kind
    vendor: str
    device: str
    class_code: str = msgspec.field(name="class")
    driver: str
    driver_override: str
    iommu_group: int | None
    group_members: tuple[str, ...]
    numa_node: int | None
    pf: str
    vf_index: int | None
    numvfs: int | None
    totalvfs: int | None
    autoprobe: bool | None
    netdevs: tuple[str, ...]
    bond: str
    routes: tuple[str, ...]
    vfio: VfioNode
    users: tuple[DeviceUser, ...]
    users_complete: bool
    busy: bool | None
    migration: Migratability
    devlink: DevlinkDevice | None
    port: VfPort | None
    firmware: CardFirmware

    @property
    def id(self) -> str:
        """The numbers of vendor and device, as ``lspci -n`` prints them."""
        return f"{self.vendor}:{self.device}"

    @property
    def fw_version(self) -> str:
        """The version of the firmware, by whoever knows it."""
        told = self.devlink.fw_version if self.devlink else ""
        return told or self.firmware.fw_version

    @property
    def psid(self) -> str:
        """The kind of board, by whoever knows it."""
        told = self.devlink.psid if self.devlink else ""
        return told or self.firmware.psid


class Inventory(_Part, frozen=True):
    """A host, the caller, and the functions that matter.

    :param format: The version of the format.
    :param host: The machine.
    :param caller: The user.
    :param functions: The functions, by address.
    """

    format: Literal[1]
    host: HostFacts
    caller: Caller
    functions: tuple[PciFunction, ...]

    def find(self, address: str) -> PciFunction | None:
        """Return the function at an address; None if there is none."""
        found = (x for x in self.functions if x.address == address)
        return next(found, None)

    def vfs_of(self, pf: PciFunction) -> tuple[PciFunction, ...]:
        """Return the VFs of a PF in the order of their numbers."""
        vfs = (x for x in self.functions if x.pf == pf.address)
        return tuple(sorted(vfs, key=lambda x: (x.vf_index or 0, x.address)))

    def vfs_for(
        self, pf: PciFunction, driver: str
    ) -> tuple[PciFunction, ...]:
        """Return the VFs of a PF in the order in which to take them.

        Those that somebody uses come last, and before them those that the
        driver does not have.

        :param pf: The PF.
        :param driver: The name of the variant driver.
        """

        def rank(vf: PciFunction) -> tuple[bool, bool]:
            return bool(vf.users or vf.busy), vf.driver != driver

        # Sorting keeps the order of those that are alike.
        return tuple(sorted(self.vfs_of(pf), key=rank))


def decode(document: Any, host: str) -> Inventory:
    """Convert what the agent printed.

    :param document: The values of its JSON document.
    :param host: The name of the host, for messages.
    :raise HostError: When it is no inventory of this version.
    """
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise HostError(
            f"{host}: the agent's inventory has format {found!r}, and not "
            f"{FORMAT}",
            "Let vfio-p2p send its own agent.",
        )
    try:
        return msgspec.convert(document, Inventory)
    except msgspec.ValidationError as err:
        raise HostError(
            f"{host}: the agent's inventory is damaged: {err}",
            "Please report it.",
        ) from None
