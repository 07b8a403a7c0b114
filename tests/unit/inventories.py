# SPDX-License-Identifier: GPL-2.0-or-later
"""An inventory of a host with a ConnectX-7 on which all is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from vfio_p2p.devices.vf.check import check
from vfio_p2p.devices.vf.inventory import (
    Caller,
    CardFirmware,
    DeviceUser,
    DevlinkDevice,
    HostFacts,
    Inventory,
    Migratability,
    PciFunction,
    VfioNode,
    VfPort,
)
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.devices.vf.wanted import HostsWanted, HostWanted, Needed

PF = "0000:01:00.0"
VFS = tuple(f"0000:01:00.{number}" for number in range(2, 6))
FIRMWARE = "28.43.1014"
PSID = "MT_0000000834"

changed = msgspec.structs.replace
Change = Callable[[Inventory], Inventory]

_NODE = VfioNode("", False, None, None, "", False, "")
_NOTHING = Migratability("", (), "")


def pf(**fields: Any) -> PciFunction:
    """Return a PF with four VFs."""
    return changed(
        PciFunction(
            address=PF, kind="pf", vendor="15b3", device="1021",
            class_code="020000", driver="mlx5_core", driver_override="",
            iommu_group=20, group_members=(PF,), numa_node=0, pf="",
            vf_index=None, numvfs=4, totalvfs=8, autoprobe=False,
            netdevs=("eth0",), bond="", routes=(), vfio=_NODE, users=(),
            users_complete=True, busy=None, migration=_NOTHING,
            devlink=DevlinkDevice(
                f"pci/{PF}", "switchdev", FIRMWARE, PSID, ""
            ),
            port=None,
            firmware=CardFirmware(FIRMWARE, PSID, {
                "SRIOV_EN": "1", "VF_MIGRATION_MODE": "2",
                "LINK_TYPE_P1": "2", "NUM_OF_VFS": "8",
            }),
        ),
        **fields,
    )  # fmt: skip


def vf(index: int, **fields: Any) -> PciFunction:
    """Return a VF that is bound and free."""
    return changed(
        pf(),
        address=VFS[index], kind="vf", device="101e",
        driver="mlx5_vfio_pci", driver_override="mlx5_vfio_pci",
        iommu_group=30 + index, group_members=(VFS[index],), pf=PF,
        vf_index=index, numvfs=None, totalvfs=None, autoprobe=None,
        netdevs=(), devlink=None, firmware=CardFirmware(),
        vfio=VfioNode(
            f"/dev/vfio/{30 + index}", True, 1000, 1000, "0600", True, ""
        ),
        migration=Migratability(
            "debugfs", ("stop_copy", "p2p", "pre_copy"), ""
        ),
        port=VfPort(f"pci/{PF}/{index + 1}", {
            "migratable": "enable", "roce": "disable",
        }),
        **fields,
    )  # fmt: skip


def good() -> Inventory:
    """Return a host on which a migration has all that it needs."""
    return Inventory(
        1,
        HostFacts(
            name="box", boot_id="b", kernel="6.12.95", cpu="X", cores=8,
            memory_kib=1 << 24, numa_nodes=2, load=(0, 0, 0), time_ns=0,
            python="3.9.2", iproute2="6.15.0", devlink="/sbin/devlink",
            kvm=True, iommu_groups=40, iommu=("dmar0",),
            modules={"mlx5_vfio_pci": "loaded"}, programs={"/qemu": True},
        ),
        Caller(1000, "ci", None, False, False),
        (pf(), *(vf(index) for index in range(4))),
    )  # fmt: skip


def host(**fields: Any) -> Change:
    """Return the change of what is known of the machine."""
    return lambda x: changed(x, host=changed(x.host, **fields))


def caller(**fields: Any) -> Change:
    """Return the change of what is known of the user."""
    return lambda x: changed(x, caller=changed(x.caller, **fields))


def function(address: str, **fields: Any) -> Change:
    """Return the change of a function."""

    def change(inventory: Inventory) -> Inventory:
        functions = (
            changed(x, **fields) if x.address == address else x
            for x in inventory.functions
        )
        return changed(inventory, functions=tuple(functions))

    return change


def node(address: str, **fields: Any) -> Change:
    """Return the change of a function's node."""
    return lambda x: _of(x, address, "vfio", fields)


def devlink(**fields: Any) -> Change:
    """Return the change of what devlink says about the PF."""
    return lambda x: _of(x, PF, "devlink", fields)


def settings(**fields: str) -> Change:
    """Return the change of some of the firmware's settings."""

    def change(inventory: Inventory) -> Inventory:
        before = inventory.functions[0].firmware.config
        after = {x: y for x, y in {**before, **fields}.items() if y}
        return _of(inventory, PF, "firmware", {"config": after})

    return change


def without(*addresses: str) -> Change:
    """Return the change that takes functions away."""

    def change(inventory: Inventory) -> Inventory:
        left = (x for x in inventory.functions if x.address not in addresses)
        return changed(inventory, functions=tuple(left))

    return change


def _of(
    inventory: Inventory, address: str, part: str, fields: dict[str, Any]
) -> Inventory:
    found = inventory.find(address)
    new = changed(getattr(found, part), **fields)
    return function(address, **{part: new})(inventory)


OPTIONS = " --at box"
PREPARE = f"vfio-p2p host prepare{OPTIONS}"
BOX = HostWanted(
    "box", needed=(Needed(count=4),), qemus=("/qemu",), options=OPTIONS
)  # fmt: skip
# A user of a device.
USER = DeviceUser(77, "qemu-system-x86_64", "eve")


def of(needed: Needed, driver: str = "") -> HostWanted:
    """Return the wish for some functions of the host."""
    return HostWanted("box", driver, (needed,), options=OPTIONS)


def lines(
    inventory: Inventory, wanted: HostWanted = BOX, ram_mib: int = 64
) -> tuple[CheckLine, ...]:
    """Return what the preflight says about a host."""
    return check([inventory], HostsWanted((wanted,), ram_mib))


def odd(found: tuple[CheckLine, ...]) -> list[CheckLine]:
    """Return the lines that are wrong or not known."""
    return [x for x in found if not x.ok]
