# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule reference, from the oracle's table."""

from __future__ import annotations

from collections.abc import Iterable

from vfio_p2p.oracle import RULES, PairRule, Promise
from vfio_p2p.uapi import MigrationFlags

from .pages import UndocumentedError, code, escape, table


def render(rules: Iterable[Promise] = RULES) -> str:
    """Return a table of all rules, and then a section for each.

    :param rules: The rules.
    :raise UndocumentedError: When a rule has no reason or no source.
    """
    rules = tuple(rules)
    missing = [x.name for x in rules if not (x.reason and x.source)]
    if missing:
        raise UndocumentedError(f"rule {name}" for name in missing)
    overview = table(
        ("rule", "side", "since", "devices", "evidence"),
        (
            (
                f"[{code(rule.name)}](#{rule.name})",
                _sides(rule),
                str(rule.since),
                _flags(rule),
                _evidence(rule),
            )
            for rule in rules
        ),
    )
    return "\n\n".join([overview, *(_section(rule) for rule in rules)])


def _section(rule: Promise) -> str:
    both = isinstance(rule, PairRule)
    facts = {
        "Where the promise is made": escape(rule.source),
        "Where it is checked": (
            "on both sides' logs together, and reported for the destination"
            if both
            else f"on {_sides(rule)}"
        ),
        "First QEMU release that it holds for": str(rule.since),
        "Devices that it is about": _flags(rule),
        "Evidence": _evidence(rule),
    }
    listed = "\n".join(f"- {name}: {text}" for name, text in facts.items())
    return f"## {rule.name}\n\n{escape(rule.reason)}\n\n{listed}"


def _sides(rule: Promise) -> str:
    if len(rule.sides) > 1:
        return "both sides"
    return f"the {rule.sides[0]}"


def _flags(rule: Promise) -> str:
    names = [
        flag.name.lower()
        for flag in MigrationFlags
        # Without this flag a device cannot migrate at all.
        if flag.name and flag in rule.needs & ~MigrationFlags.STOP_COPY
    ]
    return " and ".join(code(name) for name in names) or "all"


def _evidence(rule: Promise) -> str:
    if rule.logs:
        return "devices' own logs"
    return "QEMU's trace" if rule.requests else "QEMU's trace or QMP events"
