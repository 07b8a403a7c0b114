# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``devlink`` says about network cards and their VFs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vfio_p2p.agent import tools

_VF_PORT = "pcivf"
# The names differ from card to card; the first that is there is taken.
_FIRMWARE = ("fw.version", "fw", "fw.mgmt")
_PSID = ("fw.psid", "board.id")
# An attribute of a function's port, and no capability.
_NO_CAPS = {"hw_addr", "state", "opstate", "attr"}


@dataclass(frozen=True)
class Devlink:
    """The program, and what it knew at the start.

    :param path: The program's path; "" without one.
    :param handles: The devices that it knows.
    :param ports: All ports, by their handles.
    """

    path: str
    handles: frozenset[str]
    ports: dict[str, dict[str, Any]]

    @classmethod
    def start(cls, path: str) -> Devlink:
        """Ask for all devices and ports.

        :param path: The program's path; "" without one.
        """
        if not path:
            return cls("", frozenset(), {})
        handles = tools.ran([path, "-j", "dev", "show"]).table("dev")
        ports = tools.ran([path, "-j", "port", "show"]).table("port")
        return cls(
            path,
            frozenset(handles),
            {x: y for x, y in ports.items() if isinstance(y, dict)},
        )

    def device(self, address: str) -> dict[str, Any] | None:
        """Describe a PF; None if devlink does not know it.

        :param address: The PF's PCI address.
        """
        handle = f"pci/{address}"
        if handle not in self.handles:
            return None
        eswitch = tools.ran(
            [self.path, "-j", "dev", "eswitch", "show", handle]
        )
        info = tools.ran([self.path, "-j", "dev", "info", handle])
        versions = info.table("info", handle, "versions")
        errors = [x.error for x in (eswitch, info) if not x.ok]
        return {
            "handle": handle,
            "eswitch_mode": eswitch.table("dev", handle).get("mode", ""),
            "fw_version": _version(versions, _FIRMWARE),
            "psid": _version(versions, _PSID),
            "error": "; ".join(dict.fromkeys(errors)),
        }

    def port(self, pf: str, index: int | None) -> dict[str, Any] | None:
        """Describe the port of a VF; None if there is none.

        :param pf: The PCI address of the VF's PF.
        :param index: The number of the VF.
        """
        found = list(self._ports(pf, index))
        if len(found) > 1:
            # Two PFs may share one device of devlink.
            function = int(pf.rpartition(".")[2], 16)
            found = [x for x in found if x[1].get("pfnum") == function]
        if len(found) != 1:
            return None
        handle, port = found[0]
        function_caps = port.get("function")
        caps = function_caps if isinstance(function_caps, dict) else {}
        return {
            "handle": handle,
            "caps": {
                name: str(value)
                for name, value in caps.items()
                if name not in _NO_CAPS
            },
        }

    def _ports(
        self, pf: str, index: int | None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for handle, port in self.ports.items():
            if (
                handle.rpartition("/")[0] == f"pci/{pf}"
                and port.get("flavour") == _VF_PORT
                and port.get("vfnum") == index
                and not port.get("external")
            ):
                yield handle, port


def _version(versions: dict[str, Any], wanted: tuple[str, ...]) -> str:
    for kind in ("running", "fixed", "stored"):
        table = versions.get(kind)
        for name in wanted:
            if isinstance(table, dict) and table.get(name):
                return str(table[name])
    return ""
