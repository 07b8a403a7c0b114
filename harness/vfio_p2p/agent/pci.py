# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI functions that are virtual, can have virtual ones, or belong to VFIO."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfio_p2p.agent import files, routes
from vfio_p2p.agent.roots import Roots

PF = "pf"
VF = "vf"
OTHER = "function"

# A driver_override that was never set.
_UNSET = "(null)"
_NO_NODE = -1


def functions(
    roots: Roots, carriers: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """Describe the functions that matter, by what sysfs says.

    :param roots: Where the kernel's folders are.
    :param carriers: Why network devices must not be touched, by name.
    """
    folder = devices(roots)
    found = [
        _describe(roots, folder / address, carriers)
        for address in files.names(folder)
        if _matters(folder / address)
    ]
    for each in found:
        if each["pf"]:
            # Without its PF, a VF goes.
            for pf in found:
                if pf["address"] == each["pf"]:
                    both = {*pf["routes"], *each["routes"]}
                    pf["routes"] = sorted(both)
    return found


def devices(roots: Roots) -> Path:
    """Return the folder of all PCI functions."""
    return roots.sys / "bus/pci/devices"


def _matters(device: Path) -> bool:
    return (
        bool(files.number(device / "sriov_totalvfs"))
        or _is_vf(device)
        or _has_vfio(device)
    )


def _is_vf(device: Path) -> bool:
    return (device / "physfn").is_symlink()


def _has_vfio(device: Path) -> bool:
    # Kernels before 6.1 do not have the folder.
    return (device / "vfio-dev").is_dir() or "vfio" in _driver(device)


def _driver(device: Path) -> str:
    return files.target(device / "driver")


def _describe(
    roots: Roots, device: Path, carriers: Mapping[str, list[str]]
) -> dict[str, Any]:
    vf = _is_vf(device)
    totalvfs = files.number(device / "sriov_totalvfs")
    pf = files.target(device / "physfn")
    group = files.target(device / "iommu_group")
    override = files.text(device / "driver_override")
    node = files.number(device / "numa_node")
    netdevs = files.names(device / "net")
    members = files.names(device / "iommu_group/devices")
    bonds = {routes.bond(roots, name) for name in netdevs}
    reasons = {y for x in netdevs for y in carriers.get(x, ())}
    return {
        "address": device.name,
        "kind": VF if vf else PF if totalvfs else OTHER,
        "vendor": _id(device / "vendor"),
        "device": _id(device / "device"),
        "class": _id(device / "class"),
        "driver": _driver(device),
        "driver_override": "" if override == _UNSET else override,
        "iommu_group": int(group) if group.isdigit() else None,
        "group_members": members,
        "numa_node": None if node == _NO_NODE else node,
        "pf": pf,
        "vf_index": _index(device.parent / pf, device.name) if pf else None,
        "numvfs": files.number(device / "sriov_numvfs"),
        "totalvfs": totalvfs,
        "autoprobe": files.flag(device / "sriov_drivers_autoprobe"),
        "netdevs": netdevs,
        "bond": next(iter(sorted(bonds - {""})), ""),
        "routes": sorted(reasons),
        "vfio": _node(roots, device, group),
    }


def _id(path: Path) -> str:
    return files.text(path).replace("0x", "", 1)


def _index(pf: Path, address: str) -> int | None:
    """Return the number of a VF, which its PF's links have in their names."""
    for name in files.names(pf):
        number = name[len("virtfn"):]
        if name.startswith("virtfn") and files.target(pf / name) == address:
            return int(number) if number.isdigit() else None
    return None


def _node(roots: Roots, device: Path, group: str) -> dict[str, Any]:
    path = roots.dev / "vfio" / group if group else None
    cdev = next(iter(files.names(device / "vfio-dev")), "")
    node: dict[str, Any] = {
        "path": str(path or ""),
        "exists": False,
        "uid": None,
        "gid": None,
        "mode": "",
        "usable": False,
        "cdev": cdev,
    }
    if path is None:
        return node
    try:
        found = path.stat()
    except OSError:
        return node
    node["exists"] = True
    node["uid"] = found.st_uid
    node["gid"] = found.st_gid
    node["mode"] = f"{found.st_mode & 0o7777:04o}"
    node["usable"] = os.access(
        path, os.R_OK | os.W_OK, effective_ids=True
    )
    return node
