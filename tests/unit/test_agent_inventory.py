# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's inventory, of folders in place of a host's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host_tree import PF, VFS, HostTree, function, taken
from vfio_p2p.agent import caller, features, users
from vfio_p2p.agent import main as entry
from vfio_p2p.agent.inventory import inventory, run
from vfio_p2p.devices.vf.inventory import decode
from vfio_p2p.errors import HostError


def close(path: Path) -> None:
    """Take all rights to a file or folder away."""
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.chmod(0o755)
        pytest.skip("this user may read everything")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostTree:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    return HostTree(tmp_path)


def test_a_host_without_anything(tree: HostTree) -> None:
    found = taken(tree, "vfio_pci")
    assert found.functions == ()
    assert found.host.modules == {"vfio_pci": ""}
    assert (found.host.iommu_groups, found.host.iommu) == (0, ())
    assert (found.host.iproute2, found.host.devlink) == ("", "")
    assert (found.host.cpu, found.host.memory_kib) == ("", 0)
    assert found.host.load == (0, 0, 0)
    assert not found.host.kvm
    assert found.caller.uid == os.geteuid()
    assert not found.caller.sudo


def test_there_is_not_even_a_folder(tmp_path: Path) -> None:
    tree = HostTree(tmp_path / "host")
    (tmp_path / "host").rename(tmp_path / "gone")
    assert taken(tree).functions == ()


def test_the_host(tree: HostTree) -> None:
    tree.write(
        "proc/cpuinfo", "processor: 0\nmodel name : A B\n\nmodel name: C"
    )
    tree.write("proc/meminfo", "MemTotal:  2048 kB\nMemFree: 1 kB")
    tree.write("proc/loadavg", "0.50 1.25 2.00 1/100 3")
    tree.write("proc/sys/kernel/random/boot_id", "b-o-o-t")
    for name in ("node0", "node1", "possible"):
        tree.write(f"sys/devices/system/node/{name}/x", "")
    tree.write("sys/class/iommu/dmar0/x", "")
    tree.write("dev/kvm", "")
    host = taken(tree).host
    assert (host.cpu, host.memory_kib) == ("A B", 2048)
    assert host.load == (0.5, 1.25, 2)
    assert host.boot_id == "b-o-o-t"
    assert host.numa_nodes == 2
    assert host.iommu == ("dmar0",)
    assert host.kvm
    assert host.kernel == os.uname().release


def test_modules(tree: HostTree) -> None:
    release = os.uname().release
    tree.write(
        f"modules/{release}/modules.dep",
        "kernel/drivers/vfio/pci/mlx5/mlx5-vfio-pci.ko.xz: kernel/x.ko.xz\n"
        "kernel/drivers/vfio/pci/vfio-pci.ko: kernel/y.ko",
    )
    tree.write(f"modules/{release}/modules.builtin", "kernel/fs/ext4.ko")
    tree.write("sys/module/vfio_pci/initstate", "live")
    tree.write("sys/module/printk/parameters/time", "Y")
    names = ("vfio_pci", "mlx5_vfio_pci", "ext4", "printk", "x", "p2pvf")
    assert taken(tree, *names).host.modules == {
        "vfio_pci": "loaded",
        "mlx5_vfio_pci": "available",
        "ext4": "built-in",
        "printk": "built-in",
        "x": "",
        "p2pvf": "",
    }


def test_a_pf_and_its_vfs(tree: HostTree) -> None:
    tree.card(2)
    tree.link(
        f"sys/bus/pci/devices/{PF}/driver", "sys/bus/pci/drivers/igb"
    )
    tree.bind(VFS[1], "p2pvf")
    found = taken(tree)
    pf, one, other = found.functions
    assert (pf.address, pf.kind, pf.id) == (PF, "pf", "8086:10c9")
    assert (pf.driver, pf.driver_override) == ("igb", "")
    assert (pf.numvfs, pf.totalvfs, pf.autoprobe) == (2, 7, True)
    assert (pf.pf, pf.vf_index, pf.numa_node) == ("", None, None)
    assert pf.class_code == "020000"
    assert found.vfs_of(pf) == (one, other)
    assert (one.kind, one.pf, one.vf_index) == ("vf", PF, 0)
    assert (other.address, other.vf_index) == (VFS[1], 1)
    assert (other.driver, other.driver_override) == ("p2pvf", "p2pvf")
    assert (one.numvfs, one.totalvfs, one.autoprobe) == (None, None, None)
    assert other.iommu_group == 9
    assert other.group_members == (VFS[1],)
    assert other.numa_node == 0
    assert not one.vfio.exists
    node = tree.root / "dev/vfio/9"
    assert other.vfio.path == str(node)
    assert other.vfio.exists
    assert other.vfio.mode == "0600"
    assert other.vfio.uid == os.geteuid()
    assert other.vfio.usable


def test_functions_that_do_not_matter(tree: HostTree) -> None:
    tree.device("0000:00:01.0", vendor="0x8086", device="0x1")
    tree.device("0000:00:02.0", sriov_totalvfs=0)
    tree.device("0000:00:03.0")
    tree.group("0000:00:03.0", 3)
    tree.bind("0000:00:03.0", "vfio-pci")
    tree.write("sys/bus/pci/devices/0000:00:03.0/vfio-dev/vfio4/dev", "1:2")
    tree.device("0000:00:04.0")
    tree.group("0000:00:04.0", 3)
    # A kernel before 6.1.
    tree.device("0000:00:05.0")
    tree.group("0000:00:05.0", 5)
    tree.bind("0000:00:05.0", "vfio-pci")
    found, older = taken(tree).functions
    assert (found.address, found.kind) == ("0000:00:03.0", "function")
    assert (older.address, older.vfio.cdev) == ("0000:00:05.0", "")
    assert found.vfio.cdev == "vfio4"
    assert found.group_members == ("0000:00:03.0", "0000:00:04.0")


def test_unreadable_files_stay_empty(tree: HostTree) -> None:
    tree.card(1)
    for path in (tree.root / f"sys/bus/pci/devices/{VFS[0]}").iterdir():
        if path.is_file():
            close(path)
    close(tree.root / "proc/1/fd")
    found = function(tree, VFS[0])
    assert (found.id, found.driver_override) == (":", "")
    assert found.numa_node is None


def test_damaged_files_stay_empty(tree: HostTree) -> None:
    tree.card(1)
    folder = f"sys/bus/pci/devices/{PF}"
    tree.write(f"{folder}/sriov_numvfs", "many")
    tree.write(f"{folder}/numa_node", "")
    (tree.root / folder / "vendor").write_bytes(b"\xff\xfe\n")
    tree.write("proc/net/route", "Iface\n\neth0\teth1")
    tree.write("proc/net/ipv6_route", "0 1 2")
    found = function(tree, PF)
    assert (found.numvfs, found.numa_node) == (None, None)


@pytest.mark.parametrize(
    ("link", "used"),
    [
        ("/dev/vfio/8", True),
        ("/vfio/8", True),
        ("/dev/vfio/8 (deleted)", True),
        ("/dev/vfio/devices/vfio0", True),
        ("/dev/vfio/9", False),
        ("/dev/vfio/vfio", False),
        ("/dev/vfio/devices/vfio1", False),
        ("/tmp/vfio/8.txt", False),
        ("socket:[8]", False),
    ],
)
def test_users(tree: HostTree, link: str, used: bool) -> None:
    tree.card(2)
    tree.bind(VFS[0], "p2pvf")
    tree.write(f"sys/bus/pci/devices/{VFS[0]}/vfio-dev/vfio0/dev", "1:2")
    tree.process(77, "/usr/bin/qemu-system-x86_64 -m 64", "/dev/null", link)
    found = function(tree, VFS[0])
    assert found.users_complete
    assert [x.pid for x in found.users] == ([77] if used else [])
    if used:
        assert found.users[0].name == "qemu-system-x86_64"
        assert found.users[0].user == users.user_name(os.geteuid())
    assert function(tree, PF).users == ()


def test_a_device_without_its_group(tree: HostTree) -> None:
    """It was handed to the process, which may have any of them."""
    tree.card(2)
    for address in VFS[:2]:
        tree.bind(address, "p2pvf")
    tree.process(77, "vm", "anon_inode:[vfio-device]")
    tree.process(78, "vm", "anon_inode:[vfio-device]", "/dev/vfio/8")
    tree.process(os.getpid(), "we", "/dev/vfio/8", "/dev/vfio/9")
    assert [x.pid for x in function(tree, VFS[0]).users] == [78]
    assert [x.pid for x in function(tree, VFS[1]).users] == [77]
    tree.write(
        "proc/77/fdinfo/0",
        "pos: 0\nvfio-device-syspath: /sys/devices/pci0000:00/" + VFS[0],
    )
    assert [x.pid for x in function(tree, VFS[0]).users] == [77, 78]
    assert function(tree, VFS[1]).users == ()


def test_processes_that_are_hidden(tree: HostTree) -> None:
    tree.card(1)
    tree.bind(VFS[0], "p2pvf")
    assert function(tree, VFS[0]).users_complete
    (tree.root / "proc/1/fd").rmdir()
    (tree.root / "proc/1").rmdir()
    assert not function(tree, VFS[0]).users_complete
    # What has no node cannot be open.
    assert function(tree, PF).users_complete


def test_processes_of_others(tree: HostTree) -> None:
    tree.card(1)
    tree.bind(VFS[0], "p2pvf")
    close(tree.root / "proc/1/fd")
    assert not function(tree, VFS[0]).users_complete


def test_the_name_of_a_user_without_one() -> None:
    assert users.user_name(4_000_000_001) == "4000000001"


def test_features_by_debugfs(tree: HostTree) -> None:
    tree.card(1)
    assert function(tree, VFS[0]).migration.source == ""
    folder = f"sys/kernel/debug/vfio/{VFS[0]}/migration"
    tree.write(f"{folder}/state", "RUNNING")
    assert function(tree, VFS[0]).migration.source == ""
    tree.write(f"{folder}/features", "stop-copy\np2p\ndirty-tracking")
    found = function(tree, VFS[0]).migration
    assert found.source == "debugfs"
    assert found.flags == ("stop_copy", "p2p", "dirty_tracking")


def test_a_probe_of_what_is_no_group(tree: HostTree) -> None:
    tree.card(1)
    tree.bind(VFS[0], "p2pvf")
    (found,) = (
        x for x in taken(tree, probe=True).functions if x.kind == "vf"
    )
    assert found.busy is False
    assert found.migration.flags == ()
    assert "Inappropriate ioctl" in found.migration.error
    busy, told = features.by_probe(
        tree.roots, tree.root / "dev/vfio/99", VFS[0]
    )
    assert busy is None
    assert "No such file" in told["error"]


def test_a_probe_leaves_used_devices_alone(tree: HostTree) -> None:
    tree.card(1)
    tree.bind(VFS[0], "p2pvf")
    tree.process(77, "qemu", "/dev/vfio/8")
    (found,) = (
        x for x in taken(tree, probe=True).functions if x.kind == "vf"
    )
    assert found.busy is True
    assert found.migration.error == ""


@pytest.mark.parametrize(
    ("status", "unlimited"),
    [("CapEff:\t000005000", True), ("CapEff:\t000001000", False)],
)
def test_memlock(tree: HostTree, status: str, unlimited: bool) -> None:
    tree.write("proc/self/status", f"Name:\tx\n{status}")
    found = caller.caller(tree.roots)["memlock_bytes"]
    assert found is None if unlimited else found != 1


@pytest.mark.parametrize("works", [True, False])
def test_sudo(tree: HostTree, works: bool) -> None:
    tree.tool("sudo", f'[ "$*" = "-n true" ] && {str(works).lower()}')
    assert taken(tree).caller.sudo is works


def test_programs(tree: HostTree) -> None:
    tree.tool("qemu", "")
    there, folder = str(tree.tools / "qemu"), str(tree.tools)
    found = run(
        [f"--program={x}" for x in (there, folder, "/no")], tree.roots
    )
    assert found["host"]["programs"] == {
        there: True, folder: False, "/no": False
    }
    assert found["host"]["modules"] == {"vfio_pci": ""}


def test_wrong_arguments(
    tree: HostTree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["inventory", "--prob"], tree.roots) == 2
    assert "unrecognized arguments: --prob" in capsys.readouterr().out


def test_other_formats(tree: HostTree) -> None:
    document = inventory(tree.roots, ())
    with pytest.raises(HostError, match="format 2, and not 1"):
        decode({**document, "format": 2}, "lab-a")
    with pytest.raises(HostError, match=r"lab-a: .* format None"):
        decode([], "lab-a")
    with pytest.raises(HostError, match=r"damaged: .*uid"):
        decode({**document, "caller": {}}, "lab-a")
