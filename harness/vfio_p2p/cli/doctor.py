# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p doctor``: tell what this machine can do, and what it lacks."""

from __future__ import annotations

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.doctor import Ability, examine

FORMAT = 1


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``doctor``."""
    parser = commands.add_parser(
        "doctor",
        help=summary,
        description="Examine this machine: what it can do, what it lacks "
        "for the rest, and how to get it. Nothing is downloaded or changed. "
        "The exit code is 0 if the machine has everything it needs, else 4.",
    )
    options.add_json(parser)
    parser.set_defaults(request=options.no_request, run=run)


def run(wanted: None, context: Context) -> int:
    """Examine the machine."""
    abilities = examine()
    whole = all(x.able or not x.needed for x in abilities)
    if context.json:
        context.show_json({
            "format": FORMAT,
            "kind": "vfio-p2p doctor",
            "able": whole,
            "abilities": [_as_json(x) for x in abilities],
        })
    else:
        for ability in abilities:
            for line in _lines(ability):
                context.show(line)
    return (Verdict.PASS if whole else Verdict.SKIP).exit_code


def _lines(ability: Ability) -> list[str]:
    answer = "yes" if ability.able else "no"
    if not ability.able and not ability.needed:
        answer = "no (not needed)"
    return [
        f"{ability.name}: {answer} - {ability.purpose}",
        *(f"  has {x}" for x in ability.found),
        *(f"  lacks: {x.what}. {x.remedy}" for x in ability.lacks),
    ]


def _as_json(ability: Ability) -> dict[str, object]:
    return {
        "name": ability.name,
        "purpose": ability.purpose,
        "able": ability.able,
        "needed": ability.needed,
        "found": list(ability.found),
        "lacks": [
            {"what": x.what, "remedy": x.remedy} for x in ability.lacks
        ],
    }
