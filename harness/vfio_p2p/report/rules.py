# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of rules, and which of them nothing was seen to break."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from vfio_p2p.oracle import RULES, Promise
from vfio_p2p.timeline import Side
from vfio_p2p.uapi import MigrationFlags
from vfio_p2p.verdict.assess import Assessment

FORMAT = 1

_WIDTH = 79
_SIDES = {Side.SOURCE: "source", Side.DESTINATION: "dest."}


def unproven(runs: Iterable[Assessment]) -> tuple[str, ...]:
    """The rules that none of these runs broke.

    That they hold elsewhere says little: perhaps they always do.

    :param runs: Of mutants, and of scenarios that show a defect.
    :return: Their names, in the order of the table.
    """
    broken = {
        finding.rule
        for run in runs
        for finding in (*run.findings, *run.known)
    }
    return tuple(rule.name for rule in RULES if rule.name not in broken)


def render(rules: Sequence[Promise]) -> str:
    """The table, 79 columns wide."""
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in ("rule", "side", "since", "for"):
        table.add_column(name, no_wrap=True)
    table.add_column("what for; where it is promised")
    for rule in rules:
        table.add_row(
            rule.name + ("*" if rule.logs else ""),
            "both" if len(rule.sides) > 1 else _SIDES[rule.sides[0]],
            rule.since,
            "P2P" if MigrationFlags.P2P in rule.needs else "any",
            f"{rule.reason}\n({rule.source})",
        )
    # No markup: "[...]" in a reason is no style.
    console = Console(
        file=io.StringIO(), width=_WIDTH, color_system=None, markup=False
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines[1:-1], "", _LEGEND])


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
