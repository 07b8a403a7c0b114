# SPDX-License-Identifier: GPL-2.0-or-later
"""What NVIDIA's tools say about the firmware of a card."""

from __future__ import annotations

import re
from typing import Any

from vfio_p2p.agent import tools
from vfio_p2p.agent.roots import Roots

VENDOR = "15b3"

_QUERY = ("mstflint", "flint")
_CONFIG = ("mlxconfig", "mstconfig")
_WANTED = (
    "SRIOV_EN",
    "NUM_OF_VFS",
    "VF_MIGRATION_MODE",
    "LINK_TYPE_P1",
    "LINK_TYPE_P2",
)
_LINE = re.compile(r"^\s*(?:RO\s+)?([A-Z][A-Z0-9_]+)\s+(\S.*?)\s*$")
_NUMBERED = re.compile(r".*\((\d+)\)")


def firmware(roots: Roots, address: str) -> dict[str, Any]:
    """Ask the tools that are there; the answer may be empty.

    Both open the card, which takes root's rights.

    :param roots: Where root's programs are.
    :param address: The PCI address of the PF.
    """
    found: dict[str, Any] = {}
    query = _first(_QUERY, roots)
    if query:
        told = tools.ran([query, "-d", address, "query"])
        for key, name in (("fw_version", "FW Version"), ("psid", "PSID")):
            line = re.search(rf"^{name}:\s*(\S+)", told.stdout, re.MULTILINE)
            if line:
                found[key] = line[1]
    config = _first(_CONFIG, roots)
    if config:
        told = tools.ran([config, "-d", address, "query"])
        settings = parse_config(told.stdout)
        if settings:
            found["config"] = settings
    return found


def parse_config(text: str) -> dict[str, str]:
    """Return the settings that matter, as numbers where they have one.

    :param text: What ``mlxconfig query`` printed. Where it has several
        columns, the last is what holds after the next start.
    """
    found = {}
    for line in text.split("\n"):
        match = _LINE.match(line)
        if match and match[1] in _WANTED:
            value = match[2].split()[-1]
            number = _NUMBERED.fullmatch(value)
            found[match[1]] = number[1] if number else value
    return found


def _first(names: tuple[str, ...], roots: Roots) -> str:
    return next(
        (path for path in (tools.find(x, roots) for x in names) if path), ""
    )
