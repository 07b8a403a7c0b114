# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p compare``: which of two is slower, by how much, and where."""

from __future__ import annotations

import argparse
import re

import msgspec

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.compare import (
    SCENARIO,
    SEEDS,
    CompareRequest,
    compare_runs,
)
from vfio_p2p.report.formats import render
from vfio_p2p.variant import VARIANTS

FORMAT = 1

_NUMBER = r"\s*([+-]?\d{1,4}(?:\.\d{1,6})?)\s*%\s*"


def _percent(text: str) -> float:
    found = re.fullmatch(_NUMBER, text)
    if found is None or float(found[1]) < 0:
        raise argparse.ArgumentTypeError(
            f"not a percentage such as 1%: {text}"
        )
    return float(found[1])


def _range(text: str) -> tuple[float, float]:
    found = re.fullmatch(rf"{_NUMBER}\.\.{_NUMBER}", text)
    if found is None or float(found[1]) > float(found[2]):
        raise argparse.ArgumentTypeError(
            f"not a range such as '-6% .. -4%': {text}"
        )
    return float(found[1]), float(found[2])


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``compare``."""
    parser = commands.add_parser(
        "compare",
        help=summary,
        description="Compare the blackouts of two trees, phase by phase: "
        "run each with the same seeds, or take existing bundles. Finished "
        "runs are not repeated. Runs of real hosts are folders with "
        "source/trace.log and destination/trace.log; alternate A and B runs.",
        epilog="Without a gate the exit code is 0 if there is an answer, and "
        "3 if these runs cannot tell. With a gate it is 1 if the whole "
        "confidence interval lies beyond the gate, and 3 if a part of it "
        "does. Rule-breaking runs are compared and reported. If any run is "
        "excluded, the exit code is never 0.",
    )
    for name in "AB":
        parser.add_argument(
            name.lower(),
            metavar=name,
            help=f"a variant ({VARIANTS}), or a folder of bundles or of "
            "real hosts' logs",
        )
    options.add_origin(parser)
    options.add_setting(parser, seeds=SEEDS)
    parser.add_argument(
        "--scenario",
        metavar="S",
        help="a scenario's name or file; from a folder, only bundles with "
        f"that name are taken (default for variants: {SCENARIO})",
    )
    parser.add_argument(
        "--scenario-b",
        metavar="S",
        help="the scenario of B, if it is another one",
    )
    parser.add_argument(
        "--unpaired",
        action="store_true",
        help="treat runs with the same seed as independent samples, as runs "
        "on real hosts are",
    )
    parser.add_argument(
        "--across-testbeds",
        action="store_true",
        help="compare bundles although they were made in different testbeds, "
        "e.g. with another kernel, or with --boot; times differ for that "
        "alone",
    )
    parser.add_argument(
        "--fail-above",
        type=_percent,
        metavar="PERCENT",
        help="fail if B is slower by more than this, e.g. 1%%",
    )
    parser.add_argument(
        "--expect",
        type=_range,
        metavar="RANGE",
        help="fail if the difference is not in this range, e.g. "
        "'-6%% .. -4%%'",
    )
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> CompareRequest:
    """Read the arguments."""
    return CompareRequest(
        a=args.a,
        b=args.b,
        origin=options.origin(args),
        setting=options.setting(args),
        scenario=args.scenario,
        scenario_b=args.scenario_b,
        unpaired=args.unpaired,
        across=args.across_testbeds,
        fail_above=args.fail_above,
        expect=args.expect,
    )


def run(wanted: CompareRequest, context: Context) -> int:
    """Compare, and print the comparison."""
    with context.reporter() as reporter:
        document = compare_runs(wanted, reporter, context.workshop)
    if context.json:
        context.show_json(
            {
                "format": FORMAT,
                "kind": "vfio-p2p comparison",
                **msgspec.to_builtins(document.comparison),
                "verdict": str(document.verdict),
            }
        )
    else:
        context.show(render("table", document).rstrip())
    return document.verdict.exit_code
