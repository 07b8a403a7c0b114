# SPDX-License-Identifier: GPL-2.0-or-later
"""What a preparation would change, and whether it may.

Everything here only looks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vfio_p2p.agent import files, pci, routes, tools
from vfio_p2p.agent.eswitch import eswitch_mode, refuse_no_eswitch
from vfio_p2p.agent.failure import INPUT, SKIP, AgentError
from vfio_p2p.agent.functions import driver_of, pf_of, vfs_of
from vfio_p2p.agent.holders import other_uses, refuse_used, vfio_users
from vfio_p2p.agent.kernel import Kernel
from vfio_p2p.agent.request import Preparation

# The first iproute2 that knows capabilities of port functions.
_CAPS_SINCE = (6, 2)

_REASONS = {
    routes.DEFAULT: "the default route",
    routes.SSH: "the SSH connection",
}
_LIST = "'vfio-p2p host list' prints those that are there."
_REPLACE = (
    "--replace takes them for a while; 'vfio-p2p host restore' puts them "
    "back."
)


@dataclass(frozen=True)
class Situation:
    """A physical function, and what shall become of it.

    :param pf: Its address.
    :param vfs: Its virtual functions that are wanted; empty if they are yet
        to be made.
    :param there: Its virtual functions that are there.
    :param numvfs: The number of virtual functions that is wanted; None if it
        stays.
    :param eswitch: The mode of the switch now; None if it stays.
    """

    pf: str
    vfs: tuple[str, ...]
    there: tuple[str, ...]
    numvfs: int | None
    eswitch: str | None

    @property
    def touched(self) -> tuple[str, ...]:
        """The virtual functions that are there and will be changed."""
        all_change = self.numvfs is not None or self.eswitch is not None
        return self.there if all_change else self.vfs


def pfs_of(wanted: Preparation, kernel: Kernel) -> dict[str, list[str]]:
    """Return the physical functions, with the virtual ones that are named.

    :raise AgentError: When one of them does not exist.
    """
    counts = dict(wanted.counts)
    for address in (*counts, *wanted.vfs):
        if not (pci.devices(kernel.roots) / address).exists():
            raise AgentError(
                f"there is no PCI function {address}", _LIST, INPUT
            )
    found: dict[str, list[str]] = {pf: [] for pf in counts}
    for vf in wanted.vfs:
        pf = pf_of(kernel.roots, vf)
        if not pf:
            raise AgentError(
                f"{vf} is not a virtual function", _LIST, INPUT
            )
        if pf in counts:
            raise AgentError(
                f"{vf} belongs to {pf}, which is named as well",
                "Name the physical function, or all virtual ones.",
                INPUT,
            )
        found.setdefault(pf, []).append(vf)
    return found


def examine(
    wanted: Preparation, named: Mapping[str, Sequence[str]], kernel: Kernel
) -> list[Situation]:
    """Find out what is to be done.

    :param wanted: The request.
    :param named: The physical functions, with the virtual ones that are
        named.
    :param kernel: The kernel.
    :raise AgentError: When it cannot or must not be done.
    """
    functions = {
        x["address"]: x
        for x in pci.functions(
            kernel.roots, routes.own_carriers(kernel.roots)
        )
    }
    for pf in named:
        _refuse_pf(pf, functions.get(pf, {}), wanted)
    if not files.names(kernel.roots.sys / "class/iommu"):
        raise AgentError(
            "the host has no IOMMU that is switched on",
            "Switch VT-d or AMD-Vi on in the firmware, and add "
            "intel_iommu=on to the kernel's command line for Intel.",
            INPUT,
        )
    _refuse_devlink(wanted, kernel)
    found = []
    for pf, vfs in named.items():
        situation = _situation(wanted, pf, vfs, functions[pf], kernel)
        _refuse_touched(situation, wanted, kernel)
        found.append(situation)
    return found


def _refuse_pf(
    pf: str, function: Mapping[str, Any], wanted: Preparation
) -> None:
    total = function.get("totalvfs") or 0
    if not total:
        raise AgentError(
            f"{pf} can have no virtual functions",
            "Name a physical function with SR-IOV, which may have to be "
            "switched on in the firmware.",
            INPUT,
        )
    count = dict(wanted.counts).get(pf, 0)
    if count > total:
        raise AgentError(
            f"{pf} can have {total} virtual functions, not {count}",
            f"Ask for {total} or fewer.",
            INPUT,
        )
    for reason in function["routes"]:
        raise AgentError(
            f"{pf} carries {_REASONS.get(reason, reason)} of the host",
            "Use another physical function: this one might cut the host "
            "off.",
            INPUT,
        )


def _refuse_devlink(wanted: Preparation, kernel: Kernel) -> None:
    if not wanted.eswitch and not wanted.port_caps:
        return
    told = tools.ran([kernel.devlink_path(), "-V"]).stdout
    version = re.search(r"iproute2-(?:ss)?(\d+)\.(\d+)", told)
    if version is None or not wanted.port_caps:
        return
    if (int(version[1]), int(version[2])) < _CAPS_SINCE:
        raise AgentError(
            f"devlink of iproute2 {version[1]}.{version[2]} knows no port "
            "function caps",
            "Install iproute2 6.2 or later on the host.",
            INPUT,
        )


def _situation(
    wanted: Preparation,
    pf: str,
    vfs: Sequence[str],
    function: Mapping[str, Any],
    kernel: Kernel,
) -> Situation:
    there = tuple(vfs_of(kernel.roots, pf))
    eswitch = None
    if wanted.eswitch:
        refuse_no_eswitch(kernel, pf)
        eswitch = eswitch_mode(kernel, pf)
        if eswitch == wanted.eswitch:
            eswitch = None
    if vfs:
        return Situation(pf, tuple(vfs), there, None, eswitch)
    count = dict(wanted.counts)[pf]
    if count <= len(there):
        free = _freest(there, kernel)
        return Situation(pf, free[:count], there, None, eswitch)
    if there and not wanted.replace:
        raise AgentError(
            f"{pf} has {len(there)} virtual functions, and {count} are "
            "wanted",
            f"Their number changes by way of 0 only. {_REPLACE}",
            SKIP,
        )
    if function["driver"] in ("", "vfio-pci"):
        raise AgentError(
            f"{pf} has {function['driver'] or 'no driver'}, which makes no "
            "virtual functions for others",
            "Bind it to its own driver first.",
            INPUT,
        )
    return Situation(pf, (), there, count, eswitch)


def _freest(vfs: Sequence[str], kernel: Kernel) -> tuple[str, ...]:
    """Sort virtual functions: those that nobody uses come first."""
    used = vfio_users(kernel.roots, vfs)

    def rank(vf: str) -> int:
        return 2 if vf in used else bool(other_uses(kernel.roots, vf))

    # Sorting keeps the order of those that are alike.
    return tuple(sorted(vfs, key=rank))


def _refuse_touched(
    situation: Situation, wanted: Preparation, kernel: Kernel
) -> None:
    refuse_used(kernel.roots, situation.touched)
    if wanted.replace:
        return
    for vf in situation.touched:
        for use in other_uses(kernel.roots, vf):
            driver = driver_of(kernel.roots, vf)
            raise AgentError(
                f"{vf} is used by its driver {driver}: {use}",
                f"End that. Or, {_REPLACE}",
                SKIP,
            )
    others = set(situation.touched) - set(situation.vfs)
    for vf in sorted(others):
        driver = driver_of(kernel.roots, vf)
        if driver and situation.eswitch is not None:
            raise AgentError(
                f"{vf} is bound to {driver}, and another eswitch mode "
                "concerns it",
                _REPLACE[0].upper() + _REPLACE[1:],
                SKIP,
            )
