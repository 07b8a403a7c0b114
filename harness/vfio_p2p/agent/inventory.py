# SPDX-License-Identifier: GPL-2.0-or-later
"""``inventory``: what the host has, as far as the caller may know.

Whatever cannot be read stays empty, and nothing is changed. Devices are
opened only if that is asked for: it enables and resets them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfio_p2p.agent import features, firmware, pci, routes, users
from vfio_p2p.agent.arguments import AgentParser
from vfio_p2p.agent.caller import caller
from vfio_p2p.agent.devlink import Devlink
from vfio_p2p.agent.roots import Roots
from vfio_p2p.agent.system import system

FORMAT = 1

# All variant drivers need it, and it is the one that does not migrate.
_PLAIN = "vfio_pci"


def run(arguments: Sequence[str], roots: Roots) -> dict[str, Any]:
    """Take the inventory.

    :param arguments: ``--probe`` opens devices, ``--modules`` names kernel
        modules, ``--program`` names a program.
    :param roots: Where the kernel's folders are.
    :raise AgentError: When the arguments make no sense.
    """
    parser = AgentParser("inventory")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--modules", default="")
    parser.add_argument("--program", action="append", default=[])
    args = parser.parse_args(arguments)
    modules = [_PLAIN, *(x for x in args.modules.split(",") if x)]
    return inventory(roots, modules, args.program, probe=args.probe)


def inventory(
    roots: Roots,
    modules: Sequence[str],
    programs: Sequence[str] = (),
    *,
    probe: bool = False,
) -> dict[str, Any]:
    """Return the inventory.

    :param roots: Where the kernel's folders are.
    :param modules: The kernel modules to look for.
    :param programs: The paths of programs to look for.
    :param probe: Open the devices that nobody uses, and ask them.
    """
    host = system(roots, modules, programs)
    who = caller(roots)
    found = pci.functions(roots, routes.own_carriers(roots))
    devlink = Devlink.start(host["devlink"])
    seen = users.look(roots, os.getpid())
    for each in found:
        _add_users(roots, each, seen)
        _add_features(roots, each, probe=probe)
        is_pf, is_vf = each["kind"] == pci.PF, each["kind"] == pci.VF
        each["devlink"] = devlink.device(each["address"]) if is_pf else None
        each["port"] = (
            devlink.port(each["pf"], each["vf_index"]) if is_vf else None
        )
        asked = is_pf and who["root"] and each["vendor"] == firmware.VENDOR
        each["firmware"] = (
            firmware.firmware(roots, each["address"]) if asked else {}
        )
    return {
        "format": FORMAT,
        "host": host,
        "caller": who,
        "functions": found,
    }


def _add_users(
    roots: Roots, function: dict[str, Any], seen: users.Users
) -> None:
    """Add the processes that have a function open.

    A device without a node cannot be open. Processes that hold a device of
    which is not known which one it is may hold any.
    """
    node = function["vfio"]["exists"] or function["vfio"]["cdev"]
    pids = seen.of(function)
    if node and not pids:
        pids = seen.unknown
    function["users"] = [
        users.describe(roots, pid) for pid in sorted(pids)
    ]
    function["users_complete"] = seen.complete or not node


def _add_features(
    roots: Roots, function: dict[str, Any], *, probe: bool
) -> None:
    found = features.by_debugfs(roots, function["address"])
    busy = None
    node = function["vfio"]
    if probe and node["exists"]:
        if function["users"]:
            busy = True
        else:
            busy, asked = features.by_probe(
                roots, Path(node["path"]), function["address"]
            )
            if not found["source"]:
                found = asked
    function["migration"] = found
    function["busy"] = busy
