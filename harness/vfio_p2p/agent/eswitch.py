# SPDX-License-Identifier: GPL-2.0-or-later
"""What devlink says now about the switch in a card.

It is asked each time: a change of the mode, or of the number of virtual
functions, makes other ports.
"""

from __future__ import annotations

from typing import Any

from vfio_p2p.agent import tools
from vfio_p2p.agent.devlink import Devlink
from vfio_p2p.agent.failure import INPUT, AgentError
from vfio_p2p.agent.functions import vfs_of
from vfio_p2p.agent.kernel import Kernel


def eswitch_mode(kernel: Kernel, pf: str) -> str | None:
    """Return the mode of a card's switch; None if it has no switch.

    :raise AgentError: When devlink is missing.
    """
    handle = f"pci/{pf}"
    path = kernel.devlink_path()
    told = tools.ran([path, "-j", "dev", "eswitch", "show", handle])
    mode = told.table("dev", handle).get("mode")
    return str(mode) if mode else None


def refuse_no_eswitch(kernel: Kernel, pf: str) -> None:
    """Refuse a card without a switch, with the kernel's reason.

    :raise AgentError: When the mode of its switch cannot be read.
    """
    path = kernel.devlink_path()
    told = tools.ran([path, "dev", "eswitch", "show", f"pci/{pf}"])
    if eswitch_mode(kernel, pf) is None:
        raise AgentError(
            f"{pf} has no eswitch mode"
            + (f": {told.error}" if told.error else ""),
            "The card's driver must offer devlink with an eswitch.",
            INPUT,
        )


def port_of(kernel: Kernel, pf: str, vf: str) -> dict[str, Any] | None:
    """Return the port of a virtual function: its handle and caps.

    :return: None if there is no port, or no devlink.
    """
    path = kernel.program("devlink")
    number = vfs_of(kernel.roots, pf).get(vf)
    if not path or number is None:
        return None
    ports = tools.ran([path, "-j", "port", "show"]).table("port")
    known = {x: y for x, y in ports.items() if isinstance(y, dict)}
    return Devlink(path, frozenset(), known).port(pf, number)


def caps_of(kernel: Kernel, pf: str, vf: str) -> dict[str, str]:
    """Return the port function caps of a virtual function."""
    port = port_of(kernel, pf, vf)
    caps: dict[str, str] = port["caps"] if port else {}
    return caps
