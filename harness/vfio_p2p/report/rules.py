# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of the oracle's rules, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from vfio_p2p.oracle import Promise
from vfio_p2p.report.tables import table_lines
from vfio_p2p.side import Side
from vfio_p2p.uapi import MigrationFlags

FORMAT = 1

_WIDTH = 79
_SIDES = {Side.SOURCE: "source", Side.DESTINATION: "dest."}


def render(rules: Sequence[Promise]) -> str:
    """Render the table, 79 columns wide.

    :param rules: The rules.
    """
    rows = [
        (
            rule.name + ("*" if rule.logs else ""),
            "both" if len(rule.sides) > 1 else _SIDES[rule.sides[0]],
            rule.since,
            "P2P" if MigrationFlags.P2P in rule.needs else "any",
            Text(f"{rule.reason}\n({rule.source})"),
        )
        for rule in rules
    ]
    lines = table_lines(
        ["rule", "side", "since", "for"],
        rows,
        wrapped="what for; where it is promised",
        tight=True,
        width=_WIDTH,
    )
    return "\n".join([*lines, "", _LEGEND])


_LEGEND = """\
* Only the devices' own logs show whether it holds.
side: the part of a migration it is checked on. since: the first QEMU that
keeps it, or whose trace shows whether it does; a base with the series counts
as 8.2. for: which devices it is about."""


def as_json(rules: Sequence[Promise]) -> dict[str, Any]:
    """Plain values, for `json.dumps`.

    ::

        {"format": 1, "kind": "vfio-p2p rules",
         "rules": [{"name", "reason", "source", "sides", "since", "flags",
                    "device_logs"}, ...]}
    """
    return {
        "format": FORMAT,
        "kind": "vfio-p2p rules",
        "rules": [
            {
                "name": rule.name,
                "reason": rule.reason,
                "source": rule.source,
                "sides": [str(side) for side in rule.sides],
                "since": rule.since,
                "flags": [
                    flag.name.lower()
                    for flag in MigrationFlags
                    if flag.name and flag in rule.needs
                ],
                "device_logs": rule.logs,
            }
            for rule in rules
        ],
    }
