# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent asks programs of the host: routes, devlink, firmware."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_tree import PF, VFS, HostTree, function, taken
from vfio_p2p.agent import firmware, routes


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostTree:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    return HostTree(tmp_path)


DEFAULT = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
LOCAL = "eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
HALF = "eth1\t00000000\t0100000A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
ZEROS = "0" * 32
DEFAULT6 = f"{ZEROS} 00 {ZEROS} 00 fe80 0 0 0 00000003 eth1\n"
REJECT6 = f"{ZEROS} 00 {ZEROS} 00 {ZEROS} 0 0 0 00200200 lo\n"


def test_default_routes(tree: HostTree) -> None:
    tree.write("proc/net/route", f"Iface\tDestination\n{DEFAULT}{LOCAL}{HALF}")
    assert routes.carriers(tree.roots, {}, 1) == {"eth0": ["default"]}
    tree.write("proc/net/ipv6_route", DEFAULT6 + REJECT6)
    assert routes.carriers(tree.roots, {}, 1) == {
        "eth0": ["default"], "eth1": ["default"]
    }


def test_a_route_over_a_bond(tree: HostTree) -> None:
    tree.write("proc/net/route", f"Iface\n{DEFAULT.replace('eth0', 'vlan5')}")
    tree.link("sys/class/net/vlan5/lower_bond0", "sys/class/net/bond0")
    tree.link("sys/class/net/bond0/lower_eth0", "sys/class/net/eth0")
    tree.link("sys/class/net/bond0/lower_eth1", "sys/class/net/eth1")
    tree.card(1)
    tree.write(f"sys/bus/pci/devices/{VFS[0]}/net/eth1/mtu", 1500)
    found = routes.carriers(tree.roots, {}, 1)
    assert set(found) == {"vlan5", "bond0", "eth0", "eth1"}
    assert function(tree, VFS[0]).routes == ("default",)
    assert function(tree, VFS[0]).netdevs == ("eth1",)
    # The VF goes with its PF.
    assert function(tree, PF).routes == ("default",)


def test_a_bond(tree: HostTree) -> None:
    tree.card(0)
    tree.write(f"sys/bus/pci/devices/{PF}/net/eth0/mtu", 1500)
    tree.link("sys/class/net/eth0/master", "sys/class/net/bond7")
    assert function(tree, PF).bond == ""
    tree.write("sys/class/net/eth0/bonding_slave/state", "active")
    assert function(tree, PF).bond == "bond7"


ADDRESSES = (
    'echo \'[{"ifname":"eth0","addr_info":[{"local":"10.0.0.1"},'
    '{"local":"fe80::1"}]},{"ifname":"eth1","addr_info":'
    '[{"local":"10.0.0.2"},{}]},{}]\''
)


@pytest.mark.parametrize(
    ("connection", "device"),
    [
        ("10.0.0.9 5 10.0.0.2 22", "eth1"),
        ("10.0.0.9 5 ::ffff:10.0.0.1 22", "eth0"),
        ("fe80::9%eth0 5 fe80::1%eth0 22", "eth0"),
        ("10.0.0.9 5 10.0.0.7 22", None),
        ("10.0.0.9 5 localhost 22", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_ssh_connection(
    tree: HostTree, connection: str, device: str | None
) -> None:
    tree.tool("ip", f'[ "$1" != -V ] || exec echo iproute2-6.1.0\n{ADDRESSES}')
    found = routes.carriers(tree.roots, {"SSH_CONNECTION": connection}, 1)
    assert found == ({device: ["ssh"]} if device else {})


def test_the_ssh_connection_under_sudo(tree: HostTree) -> None:
    for pid, parent, environ in ((9, 8, "A=1\0"), (8, 7, ""), (7, 1, "")):
        tree.write(f"proc/{pid}/environ", environ)
        tree.write(f"proc/{pid}/stat", f"{pid} (a) b) S {parent} 1 1")
    assert routes.ssh_address(tree.roots, {}, 9) == ""
    tree.write("proc/7/environ", "B=2\0SSH_CONNECTION=1.1.1.1 5 2.2.2.2 22\0")
    assert routes.ssh_address(tree.roots, {}, 9) == "2.2.2.2"
    # Processes that are their own ancestors do not exist.
    tree.write("proc/8/stat", "8 (x) S 9 1 1")
    assert routes.ssh_address(tree.roots, {}, 9) == ""


def test_tools_of_other_makers(tree: HostTree, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    busybox = tmp_path / "bin"
    busybox.mkdir()
    (busybox / "ip").write_text("#!/bin/sh\necho BusyBox\n")
    (busybox / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", str(busybox))
    assert taken(tree).host.iproute2 == ""
    tree.tool("ip", "echo ip utility, iproute2-6.15.0, libbpf 1.1.0")
    assert taken(tree).host.iproute2 == "6.15.0"
    assert taken(tree).host.devlink == ""
    tree.tool("devlink", "echo devlink utility, iproute2-ss200127")
    assert taken(tree).host.iproute2 == "200127"
    assert taken(tree).host.devlink == str(tree.tools / "devlink")


DEVLINK = f"""
case "$*" in
-V) echo devlink utility, iproute2-6.15.0 ;;
"-j dev show") echo '{{"dev":{{"pci/{PF}":{{}}}}}}' ;;
"-j dev eswitch show pci/{PF}")
  echo '{{"dev":{{"pci/{PF}":{{"mode":"switchdev"}}}}}}' ;;
"-j dev info pci/{PF}")
  echo '{{"info":{{"pci/{PF}":{{"driver":"x","versions":{{
    "fixed":{{"fw.psid":"MT_1"}},
    "running":{{"fw.version":"28.41.1000","fw":"1"}},
    "stored":{{"fw.version":"28.42"}}}}}}}}}}' ;;
"-j port show") cat "${{0%/*}}/ports" ;;
esac
"""


def port(number: int, vfnum: int, caps: str, **more: object) -> str:
    fields = {"flavour": "pcivf", "vfnum": vfnum, **more}
    texts = [
        f'"{x}":"{y}"' if isinstance(y, str) else f'"{x}":{y}'
        for x, y in fields.items()
    ]
    return f'"pci/{PF}/{number}":{{{",".join(texts)},"function":{caps}}}'


def test_devlink(tree: HostTree) -> None:
    tree.card(2)
    tree.tool("devlink", DEVLINK)
    caps = '{"hw_addr":"00:11","roce":"disable","migratable":"enable"}'
    ports = [
        port(65535, 0, "{}", flavour="physical"),
        port(1, 1, caps),
        port(2, 0, "null"),
        port(3, 1, "{}", external="true"),
        '"pci/0000:02:00.0/1":{"flavour":"pcivf","vfnum":1}',
        '"other":3',
    ]
    (tree.tools / "ports").write_text(f'{{"port":{{{",".join(ports)}}}}}')
    pf = function(tree, PF)
    assert pf.devlink
    assert pf.devlink.handle == f"pci/{PF}"
    assert pf.devlink.eswitch_mode == "switchdev"
    assert (pf.fw_version, pf.psid) == ("28.41.1000", "MT_1")
    assert (pf.devlink.error, pf.port) == ("", None)
    one, other = (function(tree, x) for x in VFS[:2])
    assert one.port
    assert (one.port.handle, one.port.caps) == (f"pci/{PF}/2", {})
    assert one.devlink is None
    assert other.port
    assert other.port.handle == f"pci/{PF}/1"
    assert other.port.caps == {"roce": "disable", "migratable": "enable"}


def test_devlink_of_two_pfs_in_one(tree: HostTree) -> None:
    tree.card(1)
    tree.tool("devlink", DEVLINK)
    ports = [
        port(1, 0, '{"a":"1"}', pfnum=1), port(2, 0, '{"a":"0"}', pfnum=0)
    ]
    (tree.tools / "ports").write_text(f'{{"port":{{{",".join(ports)}}}}}')
    found = function(tree, VFS[0]).port
    assert found
    assert found.caps == {"a": "0"}
    ports[0] = port(1, 0, '{"a":"1"}', pfnum=0)
    (tree.tools / "ports").write_text(f'{{"port":{{{",".join(ports)}}}}}')
    assert function(tree, VFS[0]).port is None


def test_devlink_refuses(tree: HostTree) -> None:
    tree.card(1)
    tree.tool(
        "devlink",
        f"""case "$*" in
        -V) echo iproute2-6.1.0 ;;
        "-j dev show") echo '{{"dev":{{"pci/{PF}":{{}}}}}}' ;;
        *) echo kernel answers: >&2; echo Operation not permitted >&2; exit 1
        esac""",
    )
    found = function(tree, PF).devlink
    assert found
    assert (found.eswitch_mode, found.fw_version) == ("", "")
    assert found.error == "Operation not permitted"
    tree.tool("devlink", "[ $1 = -V ] && echo iproute2-6.1.0; echo '[3'")
    assert function(tree, PF).devlink is None


MLXCONFIG = """
Device #1:
----------
Configurations:                          Default     Current    Next Boot
        NUM_OF_VFS                       0           8          16
        SRIOV_EN                         False(0)    True(1)    True(1)
RO      LINK_TYPE_P1                     ETH(2)      ETH(2)     ETH(2)
        VF_MIGRATION_MODE                DEVICE_DEFAULT(0)
        OTHER                            1           1          1
"""


def test_firmware(tree: HostTree) -> None:
    assert firmware.firmware(tree.roots, PF) == {}
    tree.tool(
        "mstflint",
        f'[ "$*" = "-d {PF} query" ] || exit 1\n'
        'echo "FW Version:            28.41.1000"\n'
        'echo "PSID:                  MT_0000000834"',
    )
    tree.tool("mstconfig", f"cat <<'E'\n{MLXCONFIG}\nE")
    assert firmware.firmware(tree.roots, PF) == {
        "fw_version": "28.41.1000",
        "psid": "MT_0000000834",
        "config": {
            "NUM_OF_VFS": "16", "SRIOV_EN": "1", "LINK_TYPE_P1": "2",
            "VF_MIGRATION_MODE": "0",
        },
    }
    tree.tool("mstflint", "echo '-E- no such device' >&2; exit 1")
    tree.tool("mstconfig", "exit 1")
    assert firmware.firmware(tree.roots, PF) == {}
