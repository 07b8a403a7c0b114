# SPDX-License-Identifier: GPL-2.0-or-later
"""What sysfs says about one PCI function now."""

from __future__ import annotations

import re
from pathlib import Path

from vfio_p2p.agent import files, pci
from vfio_p2p.agent.failure import INPUT, AgentError
from vfio_p2p.agent.roots import Roots

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_VF_LINK = "virtfn"
_UNSET = "(null)"
_UP = 1                 # IFF_UP of <linux/if.h>


def checked_address(text: object) -> str:
    """Return a PCI address as the kernel writes it.

    :raise AgentError: When it is none.
    """
    if isinstance(text, str) and _ADDRESS.fullmatch(text.lower()):
        return text.lower()
    raise AgentError(
        f"not a PCI address: {text!r}",
        "An address has the form 0000:01:00.0 (see 'lspci -D').",
        INPUT,
    )


def folder_of(roots: Roots, address: str) -> Path:
    """Return the folder of a function, which need not exist."""
    return pci.devices(roots) / address


def driver_of(roots: Roots, address: str) -> str:
    """Return the name of the driver of a function; "" if unbound."""
    return files.target(folder_of(roots, address) / "driver")


def override_of(roots: Roots, address: str) -> str:
    """Return the driver_override of a function; "" if there is none."""
    text = files.text(folder_of(roots, address) / "driver_override")
    return "" if text == _UNSET else text


def group_node(roots: Roots, address: str) -> Path | None:
    """Return the path of the node of a function's IOMMU group.

    The node exists while a vfio driver has a function of the group. None
    means that the function is in no group.
    """
    group = files.target(folder_of(roots, address) / "iommu_group")
    return roots.dev / "vfio" / group if group else None


def own_node(roots: Roots, address: str) -> Path | None:
    """Return the path of the node that a function has for itself.

    Kernels with IOMMUFD have such nodes beside those of the groups, for
    functions that a vfio driver has. None means that there is no such node.
    """
    names = files.names(folder_of(roots, address) / "vfio-dev")
    return roots.dev / "vfio/devices" / names[0] if names else None


def pf_of(roots: Roots, address: str) -> str:
    """Return the physical function of a virtual one; "" if it is none."""
    return files.target(folder_of(roots, address) / "physfn")


def vfs_of(roots: Roots, pf: str) -> dict[str, int]:
    """Return the virtual functions of a physical one, with their numbers."""
    device = folder_of(roots, pf)
    found = [
        (int(name[len(_VF_LINK):]), files.target(device / name))
        for name in files.names(device)
        if name.startswith(_VF_LINK) and name[len(_VF_LINK):].isdigit()
    ]
    return {address: number for number, address in sorted(found)}


def netdevs_up(roots: Roots, address: str) -> list[str]:
    """Return the network devices of a function that are up."""
    folder = folder_of(roots, address) / "net"
    return [
        name
        for name in files.names(folder)
        if (files.number(folder / name / "flags") or 0) & _UP
    ]
