# SPDX-License-Identifier: GPL-2.0-or-later
"""The preflight: each thing that can be wrong has a line of its own."""

from __future__ import annotations

import pytest
from inventories import (
    BOX,
    PF,
    PREPARE,
    USER,
    VFS,
    Change,
    caller,
    changed,
    devlink,
    function,
    good,
    host,
    lines,
    node,
    odd,
    settings,
    vf,
    without,
)
from vfio_p2p.devices.vf.check import check, exit_code
from vfio_p2p.devices.vf.inventory import (
    CardFirmware,
    Inventory,
    Migratability,
    VfPort,
)
from vfio_p2p.devices.vf.wanted import HostsWanted


def test_all_is_well() -> None:
    found = lines(good())
    assert odd(found) == []
    assert exit_code(found) == 0
    assert all(x.host == "box" and x.is_ and x.wanted for x in found)
    assert not any(x.mend for x in found)
    assert len(found) > 25


FLAGS = ("stop_copy", "pre_copy")

CASES: dict[str, tuple[Change, str, bool | None, str, str]] = {
    "an old kernel": (
        host(kernel="6.1.0-13-amd64"),
        "kernel", False, "6.1.0-13-amd64", "Boot a later kernel",
    ),
    "a kernel without a version": (
        host(kernel="next"), "kernel", False, "next", "Boot a later",
    ),
    "no driver": (
        host(modules={"mlx5_vfio_pci": ""}),
        "module mlx5_vfio_pci", False, "not there",
        "CONFIG_MLX5_VFIO_PCI). Debian's kernels have not.",
    ),
    "nobody looked for the driver": (
        host(modules={}),
        "module mlx5_vfio_pci", None, "not looked for", "Boot a kernel",
    ),
    "no IOMMU": (
        host(iommu=(), iommu_groups=0),
        "IOMMU", False, "none, 0 groups", "intel_iommu=on",
    ),
    "an IOMMU without groups": (
        host(iommu_groups=0), "IOMMU", False, "dmar0, 0 groups", "VT-d",
    ),
    "groups without an IOMMU": (
        host(iommu=()), "IOMMU", False, "none, 40 groups", "VT-d",
    ),
    "an old iproute2": (
        host(iproute2="6.1.0"),
        "devlink", False, "iproute2 6.1.0", "apt-get install",
    ),
    "no devlink": (
        host(devlink=""),
        "devlink", False, "iproute2 6.15.0 without devlink", "apt-get",
    ),
    "no iproute2": (
        host(devlink="", iproute2=""),
        "devlink", False, "no iproute2", "apt-get install",
    ),
    "little locked memory": (
        caller(memlock_bytes=8 << 20),
        "locked memory of ci", False, "at most 8192 KiB",
        "'ci - memlock 67584' to /etc/security/limits.d",
    ),
    "as much as the guest has": (
        caller(memlock_bytes=64 << 20),
        "locked memory of ci", False, "at most 65536 KiB", "LimitMEMLOCK=",
    ),
    "no QEMU": (
        host(programs={"/qemu": False}),
        "QEMU", False, "/qemu is missing, or cannot be run", "ls -l /qemu",
    ),
    "nobody looked for QEMU": (
        host(programs={}), "QEMU", None, "/qemu was not looked for", "ls -l",
    ),
    "another card": (
        function(PF, device="101d"),
        f"{PF} card", False, "15b3:101d", "host list",
    ),
    "no driver of the PF": (
        function(PF, driver=""),
        f"{PF} driver", False, "none", "modprobe mlx5_core",
    ),
    "the default route": (
        function(PF, routes=("default",)),
        f"{PF} connections", False, "carries the default route",
        "Choose another card",
    ),
    "the SSH connection": (
        function(PF, routes=("default", "ssh")),
        f"{PF} connections", False,
        "carries the default route and carries the SSH connection",
        "another way",
    ),
    "a small card": (
        function(PF, totalvfs=1),
        f"{PF} possible VFs", False, "1", f"mlxconfig -d {PF} set NUM_OF_VFS",
    ),
    "no VFs": (
        lambda x: function(PF, numvfs=0)(without(*VFS)(x)),
        f"{PF} VFs", False, "0", f"Run '{PREPARE}'.",
    ),
    "old firmware": (
        devlink(fw_version="28.40.1000"),
        f"{PF} firmware", False, "28.40.1000", f"mstflint -d {PF} -i FILE",
    ),
    "firmware whose version has fewer digits": (
        devlink(fw_version="28.9.1000"),
        f"{PF} firmware", False, "28.9.1000", "burn",
    ),
    "an eswitch in legacy mode": (
        devlink(eswitch_mode="legacy"),
        f"{PF} eswitch", False, "legacy", f"Run '{PREPARE}'.",
    ),
    "link aggregation": (
        function(PF, bond="bond0"),
        f"{PF} bond", None, "part of bond0; not known",
        "ip link set eth0 nomaster",
    ),
    "unknown settings": (
        function(PF, firmware=CardFirmware()),
        f"{PF} settings", None, "not known",
        f"mlxconfig -d {PF} query SRIOV_EN VF_MIGRATION_MODE",
    ),
    "no SR-IOV in the firmware": (
        settings(SRIOV_EN="0"),
        f"{PF} SRIOV_EN", False, "0", f"mlxconfig -d {PF} set SRIOV_EN=1",
    ),
    "no migration in the firmware": (
        settings(VF_MIGRATION_MODE="0"),
        f"{PF} VF_MIGRATION_MODE", False, "0", "VF_MIGRATION_MODE=2",
    ),
    "firmware that knows no migration": (
        settings(VF_MIGRATION_MODE=""),
        f"{PF} VF_MIGRATION_MODE", False, "not there", "MODE=2",
    ),
    "InfiniBand": (
        settings(LINK_TYPE_P1="1"),
        f"{PF} LINK_TYPE_P1", False, "1", "LINK_TYPE_P1=2",
    ),
    "few VFs in the firmware": (
        settings(NUM_OF_VFS="1"),
        f"{PF} NUM_OF_VFS", False, "1", "NUM_OF_VFS=4",
    ),
    "another kind of VF": (
        function(VFS[0], device="1018"),
        f"{VFS[0]} device", False, "15b3:1018", "host list",
    ),
    "no group": (
        function(VFS[0], iommu_group=None, group_members=()),
        f"{VFS[0]} IOMMU group", False, "none", "IOMMU on",
    ),
    "a foreign member": (
        function(VFS[0], group_members=(VFS[0], "0000:00:1f.0")),
        f"{VFS[0]} IOMMU group", False, "30, with 0000:00:1f.0", "ACS",
    ),
    "migratable is off": (
        function(VFS[1], port=VfPort("p", {"migratable": "disable"})),
        f"{VFS[1]} migratable", False, "disable", f"Run '{PREPARE}'.",
    ),
    "migratable is not offered": (
        function(VFS[1], port=VfPort("p", {})),
        f"{VFS[1]} migratable", False, "not offered", PREPARE,
    ),
    "no port": (
        function(VFS[1], port=None),
        f"{VFS[1]} migratable", None, "not known", "devlink port show",
    ),
    "plain vfio-pci": (
        function(VFS[1], driver="vfio-pci"),
        f"{VFS[1]} driver", False, "vfio-pci, which migrates no device",
        f"Run '{PREPARE}'.",
    ),
    "the driver of the VF": (
        function(VFS[1], driver="mlx5_core"),
        f"{VFS[1]} driver", False, "mlx5_core", PREPARE,
    ),
    "no driver of the VF": (
        function(VFS[1], driver=""), f"{VFS[1]} driver", False, "none",
        PREPARE,
    ),
    "no P2P": (
        function(VFS[0], migration=Migratability("probe", FLAGS, "")),
        f"{VFS[0]} features", False, "stop_copy, pre_copy",
        "made migratable before it was bound",
    ),
    "no migration": (
        function(VFS[0], migration=Migratability("probe", (), "")),
        f"{VFS[0]} features", False, "no migration", PREPARE,
    ),
    "features that nobody asked for": (
        function(VFS[0], migration=Migratability("", (), "")),
        f"{VFS[0]} features", None, "not known", "--probe",
    ),
    "features that cannot be asked for": (
        function(VFS[0], migration=Migratability("", (), "x: denied")),
        f"{VFS[0]} features", None, "not known: x: denied", "--probe",
    ),
    "no rights": (
        node(VFS[0], usable=False, uid=0),
        f"{VFS[0]} /dev/vfio/30", False, "of user 0, mode 0600",
        "'chown ci /dev/vfio/30' as root",
    ),
    "in use": (
        function(VFS[0], users=(USER,)),
        f"{VFS[0]} users", False,
        "PID 77 (qemu-system-x86_64, user eve)", "Wait until it ends",
    ),
    "in use by a process that cannot be seen": (
        function(VFS[0], busy=True, users_complete=False),
        f"{VFS[0]} users", False, "an unknown process", "Wait",
    ),
    "processes that cannot be looked at": (
        function(VFS[0], users_complete=False),
        f"{VFS[0]} users", None, "not known: processes of other users",
        "--probe",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_thing_is_odd(name: str) -> None:
    change, subject, ok, is_, mend = CASES[name]
    found = lines(change(good()))
    (line,) = odd(found)
    assert (line.subject, line.ok) == (subject, ok)
    assert is_ in line.is_
    assert mend in line.mend
    assert line.mend.endswith(".")
    assert line.wanted
    assert exit_code(found) == (2 if ok is False else 0)


def test_each_thing_has_a_message_of_its_own() -> None:
    said = [
        odd(lines(change(good())))[0] for change, *_ in CASES.values()
    ]
    assert len({(x.subject, x.is_) for x in said}) == len(CASES)


@pytest.mark.parametrize(
    "change",
    [
        host(modules={"mlx5_vfio_pci": "available"}),
        host(modules={"mlx5_vfio_pci": "built-in"}),
        host(kernel="6.7"),
        host(kernel="7.0.1-x"),
        host(iproute2="6.2"),
        host(iproute2="10.0"),
        caller(memlock_bytes=66 << 20),
        devlink(fw_version="28.41.1000"),
        devlink(fw_version="", psid=""),
        # Its VFs have ports.
        devlink(eswitch_mode="", error="Operation not permitted"),
        function(PF, device="a2dc", devlink=None,
                 firmware=CardFirmware("32.41.1000", "P", {
                     "SRIOV_EN": "1", "VF_MIGRATION_MODE": "2",
                     "LINK_TYPE_P1": "2", "NUM_OF_VFS": "16",
                 })),
    ],
)
def test_nothing_is_wrong(change: Change) -> None:
    assert exit_code(lines(change(good()))) == 0


def test_the_mode_of_a_switch_that_only_root_may_ask_for() -> None:
    inventory = devlink(eswitch_mode="", error="denied")(good())
    for address in VFS:
        inventory = function(address, port=None)(inventory)
    line, *_ = odd(lines(inventory))
    assert (line.subject, line.ok) == (f"{PF} eswitch", None)
    # What is known counts, whatever else is.
    (line,) = odd(lines(devlink(eswitch_mode="legacy")(good())))
    assert line.is_ == "legacy"
    line, *_ = odd(lines(inventory))
    assert line.is_ == "not known: denied"
    assert f"'devlink dev eswitch show pci/{PF}' tells it, as" in line.mend


def test_the_attempt_to_open_a_device_says_enough() -> None:
    inventory = function(VFS[0], busy=False, users_complete=False)(good())
    assert odd(lines(inventory)) == []


def test_firmware_that_nobody_knows() -> None:
    inventory = function(
        PF, devlink=None, firmware=CardFirmware()
    )(good())
    found = {x.subject: x for x in odd(lines(inventory))}
    assert found[f"{PF} firmware"].ok is None
    assert found[f"{PF} firmware"].is_ == "not known"
    assert "devlink dev info" in found[f"{PF} firmware"].mend
    assert found[f"{PF} eswitch"].is_ == (
        "not known: devlink does not know it"
    )


def lab(inventory: Inventory) -> Inventory:
    """Return the host with the lab's card in place of a ConnectX."""
    inventory = function(
        PF, vendor="8086", device="10c9", driver="igb", devlink=None,
        firmware=CardFirmware(),
    )(host(modules={"p2pvf": "loaded"}, devlink="", iproute2="")(inventory))
    for address in VFS:
        inventory = function(
            address, vendor="8086", device="10ca", driver="p2pvf", port=None
        )(inventory)
    return inventory


def test_the_lab_needs_devlink_only_if_it_is_there() -> None:
    assert odd(lines(lab(good()))) == []
    told = devlink(eswitch_mode="legacy")(good()).functions[0].devlink
    inventory = function(PF, devlink=told)(lab(good()))
    assert [x.subject for x in odd(lines(inventory))] == [
        "devlink", f"{PF} eswitch", *(f"{x} migratable" for x in VFS)
    ]
    wanted = HostsWanted((BOX, BOX))
    assert odd(check([lab(good())] * 2, wanted)) == []


def test_a_vf_that_is_not_bound_has_no_users() -> None:
    bare = vf(0)
    gone = changed(bare.vfio, exists=False)
    inventory = function(VFS[0], driver="", vfio=gone)(good())
    assert [x.subject for x in odd(lines(inventory))] == [f"{VFS[0]} driver"]
