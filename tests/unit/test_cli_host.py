# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p host list`` and ``host check``, and what they print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from host_tree import PF as TREE_PF
from host_tree import VFS as TREE_VFS
from host_tree import HostTree
from inventories import (
    PF,
    VFS,
    caller,
    changed,
    devlink,
    function,
    good,
    host,
    node,
    without,
)
from vfio_p2p.agent.inventory import run as take
from vfio_p2p.cli import main
from vfio_p2p.cli.entry import make_parser
from vfio_p2p.cli.host_text import check_lines, host_lines
from vfio_p2p.devices.vf.check import check
from vfio_p2p.devices.vf.inventory import (
    DeviceUser,
    Inventory,
    Migratability,
)
from vfio_p2p.devices.vf.wanted import HostsWanted, HostWanted, Needed
from vfio_p2p.errors import UsageError
from vfio_p2p.machine.host import Host
from vfio_p2p.plans.host.checking import HostCheckRequest, host_wanted
from vfio_p2p.plans.host.listing import ListedHost
from vfio_p2p.plans.host.where import Where, locate, take_inventory

Capture = pytest.CaptureFixture[str]

HOSTS = """
format = 1
[host.here]
driver = "p2pvf"
source = {pf = "0000:01:00.0", count = 4}
destination = {vfs = ["0000:02:10.0", "0000:02:10.2"]}
[host.far]
ssh = "ci@far:2201"
identity = "key"
sudo = true
driver = "mlx5"
source = {pf = "0000:03:00.0", count = 3}
[pair.both]
source = "far"
destination = "here"
link = {source = "10.0.0.1", destination = "10.0.0.2"}
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS)
    return path


def listed(inventory: Inventory) -> str:
    return "\n".join(host_lines(ListedHost("lab-a", inventory)))


def test_the_list() -> None:
    inventory = function(
        VFS[0], users=(DeviceUser(7, "qemu", "eve"),)
    )(good())
    inventory = function(VFS[1], busy=True)(inventory)
    inventory = function(VFS[2], users_complete=False)(inventory)
    inventory = function(
        VFS[3], migration=Migratability("", (), "x: denied")
    )(inventory)
    assert listed(inventory).splitlines() == [
        "lab-a: Linux 6.12.95, 8 CPUs, 16384 MiB, IOMMU dmar0 (40 groups), "
        "iproute2 6.15.0",
        "function       id        driver          group   VFs  more",
        "0000:01:00.0   15b3:1021 mlx5_core          20   4/8  for mlx5; "
        "eth0; switchdev; firmware 28.43.1014",
        "                                                      MT_0000000834",
        "  0000:01:00.2 15b3:101e mlx5_vfio_pci      30        for mlx5; "
        "migratable enable; roce disable;",
        "                                                      stop_copy p2p "
        "pre_copy; used by PID 7 (qemu,",
        "                                                      user eve)",
        "  0000:01:00.3 15b3:101e mlx5_vfio_pci      31        for mlx5; "
        "migratable enable; roce disable;",
        "                                                      stop_copy p2p "
        "pre_copy; in use",
        "  0000:01:00.4 15b3:101e mlx5_vfio_pci      32        for mlx5; "
        "migratable enable; roce disable;",
        "                                                      stop_copy p2p "
        "pre_copy; users not known",
        "  0000:01:00.5 15b3:101e mlx5_vfio_pci      33        for mlx5; "
        "migratable enable; roce disable; x:",
        "                                                      denied",
        "you are ci: may use /dev/vfio/30, /dev/vfio/31, /dev/vfio/32, "
        "/dev/vfio/33, may lock any amount of",
        "  memory, may use KVM",
    ]


def test_the_list_of_a_poor_host() -> None:
    inventory = good()
    for change in (
        host(iommu=(), iommu_groups=0, iproute2="", devlink="", kvm=False),
        caller(memlock_bytes=8 << 20, sudo=True),
        without(*VFS[1:]),
        node(VFS[0], usable=False),
        devlink(eswitch_mode="", fw_version="", psid=""),
        function(PF, bond="bond0", routes=("default", "ssh"), driver="",
                 iommu_group=None, numvfs=None),
    ):
        inventory = change(inventory)
    said = listed(inventory)
    assert "IOMMU none (0 groups), iproute2 missing" in said
    assert "15b3:1021 -                   -   0/8  for mlx5; eth0" in said
    assert all(len(line) <= 100 for line in said.splitlines())
    said = " ".join(said.split())
    assert "in bond0; default route; SSH connection" in said
    assert (
        "you are ci: may use none of the groups, may lock 8192 KiB of "
        "memory, may not use KVM, may become root by sudo"
    ) in said


def test_a_vf_without_its_pf_is_listed() -> None:
    said = listed(without(PF)(good()))
    assert all(address in said for address in VFS)


def test_the_list_of_nothing() -> None:
    said = listed(changed(good(), functions=()))
    assert "no PCI function is virtual, can have virtual ones" in said
    assert "you are ci: may lock any amount of memory, may use KVM" in said


def test_the_check() -> None:
    inventory = host(kernel="5.0")(function(PF, bond="bond0")(good()))
    wanted = HostsWanted((HostWanted("box", "", (Needed(PF, 1),)),))
    said = list(check_lines(check([inventory], wanted)))
    assert said[:3] == [
        "box:",
        "  wrong  kernel: 5.0; wanted: 6.7 or later",
        "         Boot a later kernel.",
    ]
    assert "  ok     module mlx5_vfio_pci: loaded" in said
    assert any(x.startswith(f"  ?      {PF} bond: part of") for x in said)
    assert said[-1].endswith("things were looked at: 1 wrong, 1 not known")


def test_this_machine(capsys: Capture) -> None:
    code = main(["host", "list"])
    out, err = capsys.readouterr()
    assert (code in (0, 4), err) == (True, "")
    assert out.startswith("this machine: Linux ")
    assert main(["host", "list", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "vfio-p2p host list"
    (found,) = document["hosts"]
    assert found["name"] == "this machine"
    assert bool(found["inventory"]["functions"]) is (code == 0)


def test_this_machine_has_no_such_card(capsys: Capture) -> None:
    arguments = ["host", "check", "--driver", "hisi_acc", "--json"]
    code = main([*arguments, "--pf", "ffff:ff:1f.7"])
    document = json.loads(capsys.readouterr().out)
    assert code == 2
    assert document["able"] is False
    wrong = [x for x in document["lines"] if x["ok"] is False]
    assert "ffff:ff:1f.7" in [x["subject"] for x in wrong]
    assert set(wrong[0]) == {
        "host", "subject", "ok", "is", "wanted", "mend"
    }


@pytest.mark.parametrize(
    ("arguments", "code", "what", "hint"),
    [
        (["--driver", "mlx"], 2, "no variant driver 'mlx'", "'mlx5'"),
        (["--at", "hree"], 2, "no host or pair 'hree'", "'here'"),
        (["--ssh", "127.0.0.1:1"], 5, "127.0.0.1", ""),
        (["--pf", "0000:99:00.0"], 2, "at 0000:99:00.0", "host list"),
    ],
)
def test_errors_are_two_lines(
    arguments: list[str],
    code: int,
    what: str,
    hint: str,
    hosts: Path,
    capsys: Capture,
) -> None:
    assert main(
        ["host", "check", *arguments, "--hosts", str(hosts)]
    ) == code
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == ""
    assert what in first
    assert hint in second


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--vfs", "0"],
        ["check", "--ram-mib", "0"],
        ["check", "--ram-mib", "1e3"],
        ["check", "--at", "a", "--ssh", "b"],
        ["list", "--at"],
        [],
    ],
)
def test_bad_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        make_parser("host").parse_args(["host", *arguments])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_where(hosts: Path, tmp_path: Path) -> None:
    (here,) = locate(Where())
    assert (here.spec.name, here.spec.ssh) == ("this machine", "")
    (far,) = locate(Where(ssh="eve@far"))
    assert (far.spec.name, far.spec.ssh) == ("eve@far", "eve@far")
    (far,) = locate(Where(at="far", hosts=hosts))
    assert (far.spec.name, far.spec.ssh) == ("far", "ci@far:2201")
    assert far.spec.identity == tmp_path / "key"
    assert (far.spec.sudo, far.spec.known_hosts) == (True, None)
    both = locate(Where(at="both", hosts=hosts))
    assert [x.spec.name for x in both] == ["far", "here"]
    with pytest.raises(UsageError, match="'both2'"):
        locate(Where(at="both2", hosts=hosts))


def test_options_can_be_pasted() -> None:
    assert Where().options == ""
    assert Where(ssh="ci@far:2201").options == " --ssh ci@far:2201"
    found = Where(at="far", hosts=Path("/my hosts")).options
    assert found == " --at far --hosts '/my hosts'"
    # Only names are looked up there.
    assert Where(hosts=Path("/x")).options == ""


def test_what_is_wanted(hosts: Path) -> None:
    where = Where(at="here", hosts=hosts)
    (wanted,) = host_wanted(locate(where), HostCheckRequest(where))
    assert wanted == HostWanted(
        "here",
        "p2pvf",
        (
            Needed("0000:01:00.0", 4),
            Needed("", 2, ("0000:02:10.0", "0000:02:10.2")),
        ),
        (),
        f" --at here --hosts {hosts}",
    )
    (wanted,) = host_wanted(locate(where), HostCheckRequest(where, vfs=1))
    assert wanted.needed == (
        Needed("0000:01:00.0", 1), Needed("", 1, ("0000:02:10.0",))
    )
    where = Where(at="both", hosts=hosts)
    far, here = host_wanted(locate(where), HostCheckRequest(where))
    assert (far.driver, far.needed) == ("mlx5", (Needed("0000:03:00.0", 3),))
    assert here.needed == (Needed("0000:01:00.0", 4),)
    (far, here) = host_wanted(locate(where), HostCheckRequest(where, vfs=2))
    assert (far.needed, here.needed) == (
        (Needed("0000:03:00.0", 2),), (Needed("0000:01:00.0", 2),)
    )
    far, here = host_wanted(locate(where), HostCheckRequest(where, pf=PF))
    assert (far.needed, here.needed) == ((Needed(PF, 1),), (Needed(PF, 1),))
    (wanted,) = host_wanted(
        locate(Where()), HostCheckRequest(driver="xe", pf=PF, qemus=("/q",))
    )
    assert wanted == HostWanted(
        "this machine", "xe", (Needed(PF, 2),), ("/q",), known=False
    )


def test_the_qemu_that_the_file_names_is_looked_for(hosts: Path) -> None:
    text = hosts.read_text()
    hosts.write_text(text.replace("[host.here]", '[host.here]\nqemu = "/n"'))
    where = Where(at="here", hosts=hosts)
    (wanted,) = host_wanted(locate(where), HostCheckRequest(where))
    assert wanted.qemus == ("/n",)
    (wanted,) = host_wanted(
        locate(where), HostCheckRequest(where, qemus=("/q", "/n"))
    )
    assert wanted.qemus == ("/q", "/n")


class TreeHost:
    """A host that is a folder, on which the agent runs.

    :param tree: The folder.
    """

    name = "tree"

    def __init__(self, tree: HostTree) -> None:
        self.tree = tree
        self.asked: list[tuple[str, bool]] = []

    async def agent(
        self, arguments: Sequence[str], *, limit_s: float, root: bool
    ) -> Any:
        self.asked.append((" ".join(arguments), root))
        document = take(list(arguments[1:]), self.tree.roots)
        who: dict[str, Any] = document["caller"]
        who.update(root=root, user="root" if root else "ci")
        if not root:
            for each in document["functions"]:
                each["vfio"]["usable"] = False
        return document


async def test_root_sees_more_but_the_user_has_the_rights(
    tmp_path: Path,
) -> None:
    tree = HostTree(tmp_path)
    tree.card(1)
    tree.bind(TREE_VFS[0], "p2pvf")
    there = TreeHost(tree)
    found = await take_inventory(cast(Host, there), sudo=True, probe=True)
    assert found.caller.user == "ci"
    pf, vf = found.functions
    assert (pf.address, vf.vfio.usable) == (TREE_PF, False)
    assert [(x.endswith("--probe"), root) for x, root in there.asked] == [
        (False, False), (True, True)
    ]
    assert "p2pvf" in found.host.modules
    there.asked.clear()
    found = await take_inventory(cast(Host, there), programs=("/q",))
    assert found.host.programs == {"/q": False}
    assert [root for _, root in there.asked] == [False]
