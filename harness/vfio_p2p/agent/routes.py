# SPDX-License-Identifier: GPL-2.0-or-later
"""The network devices through which the host is reached."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from vfio_p2p.agent import files, tools
from vfio_p2p.agent.roots import Roots

DEFAULT = "default"
SSH = "ssh"

_SSH_VARIABLE = "SSH_CONNECTION"
_RTF_REJECT = 0x0200


def carriers(
    roots: Roots, environ: Mapping[str, str], pid: int
) -> dict[str, list[str]]:
    """Return why network devices must not be touched, by their names.

    :param roots: Where the kernel's folders are.
    :param environ: The environment of this process.
    :param pid: The number of this process.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for name in _default_routes(roots):
        found[name].add(DEFAULT)
    address = ssh_address(roots, environ, pid)
    if address:
        for name in _with_address(roots, address):
            found[name].add(SSH)
    for name, reasons in list(found.items()):
        for lower in _below(roots, name):
            found[lower] |= reasons
    return {name: sorted(reasons) for name, reasons in found.items()}


def ssh_address(roots: Roots, environ: Mapping[str, str], pid: int) -> str:
    """Return this host's address of the SSH connection; "" without one.

    sudo does not pass the variable on, so the processes above are asked as
    well.

    :param roots: Where the kernel's folders are.
    :param environ: The environment of this process.
    :param pid: The number of this process.
    """
    told = environ.get(_SSH_VARIABLE, "")
    seen = set()
    while not told and pid > 1 and pid not in seen:
        seen.add(pid)
        process = roots.proc / str(pid)
        for entry in files.text(process / "environ").split("\0"):
            name, _, value = entry.partition("=")
            if name == _SSH_VARIABLE:
                told = value
        # The name of the program is in brackets and may hold anything.
        fields = files.text(process / "stat").rpartition(")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
    words = told.split()
    return words[2] if len(words) == 4 else ""


def bond(roots: Roots, netdev: str) -> str:
    """Return the bond that a network device belongs to; "" without one."""
    folder = roots.sys / "class/net" / netdev
    if not (folder / "bonding_slave").is_dir():
        return ""
    return files.target(folder / "master")


def _default_routes(roots: Roots) -> Iterator[str]:
    lines = files.text(roots.proc / "net/route").split("\n")
    for fields in (line.split() for line in lines[1:]):
        if len(fields) > 7 and {fields[1], fields[7]} == {"00000000"}:
            yield fields[0]
    lines = files.text(roots.proc / "net/ipv6_route").split("\n")
    for fields in (line.split() for line in lines):
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00":
            # The kernel has routes that reject everything, via "lo".
            if int(fields[8], 16) & _RTF_REJECT:
                continue
            yield fields[9]


def _with_address(roots: Roots, address: str) -> Iterator[str]:
    """Yield the names of the devices that have an address."""
    try:
        wanted = _plain(address)
    except ValueError:
        return
    path, _ = tools.iproute2("ip", roots)
    if not path:
        return
    for link in tools.ran([path, "-j", "address", "show"]).items():
        for each in link.get("addr_info", ()):
            if _plain(each.get("local", "::")) == wanted:
                yield link["ifname"]


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Parse an address; one of IPv4 may be written as one of IPv6."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        return found.ipv4_mapped
    return found


def _below(roots: Roots, netdev: str) -> Iterator[str]:
    """Yield the devices that a bond, bridge or VLAN is made of."""
    todo = [netdev]
    seen = {netdev}
    while todo:
        folder = roots.sys / "class/net" / todo.pop()
        for name in files.names(folder):
            lower = name[len("lower_"):]
            if name.startswith("lower_") and lower not in seen:
                seen.add(lower)
                todo.append(lower)
                yield lower


def own_carriers(roots: Roots) -> dict[str, list[str]]:
    """Return what `carriers` does, for this process."""
    return carriers(roots, os.environ, os.getpid())
