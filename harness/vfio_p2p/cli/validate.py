# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate``: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vfio_p2p.cli import everything, followups, mutants
from vfio_p2p.cli.build import (
    add_source_arguments,
    add_variants_argument,
    choose_source,
    choose_variants,
    default_variants,
)
from vfio_p2p.cli.common import add_seeds_argument
from vfio_p2p.cli.device import driver_of, load_for
from vfio_p2p.cli.session import (
    JSON,
    JUNIT,
    add_run_arguments,
    check_ready,
    forget_reports,
    judge_trees,
    write_reports,
)
from vfio_p2p.devices import Driver
from vfio_p2p.errors import UsageError
from vfio_p2p.report import machine, perpatch, text
from vfio_p2p.report.model import Report
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Base
from vfio_p2p.verdict.assess import patches_of

SCENARIOS = ("one-device", "two-devices", "four-devices")

# Where those find their scenarios that judge with ones of their own.
_MODES = {
    "per_patch": f"they are {', '.join(perpatch.SCENARIOS)}",
    "mutants": "qemu-patches/series.toml lists them",
    "followups": "qemu-patches/series.toml lists them",
    "all": "it runs every one",
}


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``validate``."""
    parser = commands.add_parser(
        "validate",
        help="build, run the matrix, verdict, report",
        description="Build QEMU without and with the series, migrate one, "
        "two and four devices with each in the sealed testbed, and say "
        "whether the P2P order is kept and how long the blackout is.",
    )
    add_source_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    add_variants_argument(what)
    what.add_argument(
        "--per-patch",
        action="store_true",
        help="judge base and every patch by the rules that hold there",
    )
    what.add_argument(
        "--mutants",
        action="store_true",
        help="judge this suite: each mutant of qemu-patches/series.toml has "
        "to be caught by its rule, in its scenarios",
    )
    what.add_argument(
        "--all",
        action="store_true",
        help="judge everything: each scenario on the patched tree and on "
        "each QEMU that has upstream's series, each mutant, and whether each "
        "rule is broken by something; killed, it goes on where it was",
    )
    what.add_argument(
        "--followups",
        action="store_true",
        help="judge the follow-ups: the defect that each mends has to be "
        "there without it, and not with it",
    )
    parser.add_argument(
        "--mutant",
        action="append",
        default=[],
        metavar="NAME",
        help="of the mutants, only this one; may be repeated",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="S",
        help="a scenario's name or file; may be repeated (default: "
        f"{', '.join(SCENARIOS)})",
    )
    add_run_arguments(parser)
    add_seeds_argument(parser, 1)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    driver = driver_of(args)
    for option, scenarios_of in _MODES.items():
        if getattr(args, option):
            _check_mode(args, driver, option, scenarios_of)
    if args.mutant and not args.mutants:
        raise UsageError("--mutant is for --mutants", "say --mutants too")
    if args.all:
        return everything.run(args)
    if args.followups:
        return followups.run(args)
    if args.mutants:
        return mutants.run(args)
    # What can be wrong with the input is found before anything is built.
    wanted = perpatch.SCENARIOS if args.per_patch else SCENARIOS
    scenarios = _scenarios(driver, args.scenario or wanted, args.profile)
    check_ready(args)
    base, source = choose_source(args)
    names = args.variant or default_variants(base)
    if args.per_patch:
        if not base.patches:
            raise UsageError(
                f"{base.name} has no patches of ours to judge",
                "leave out --per-patch: it is judged as it is",
            )
        names = ["base"]
        names += [f"patch-{n + 1}" for n in range(len(base.patches))]
    variants = choose_variants(base, source, names)
    forget_reports(args.out)
    report = judge_trees(
        base,
        source,
        [(tree, scenario) for tree in variants for scenario in scenarios],
        args,
    )
    document = machine.as_json(report)
    steps = _steps(base, report) if args.per_patch else []
    if steps:
        document["patches"] = perpatch.as_json(steps)
    printed = write_reports(args.out, document, machine.as_junit(report))
    if args.json:
        print(printed)
    else:
        if steps:
            print(perpatch.render(steps), end="\n\n")
        print(text.render(report))
        print(f"bundles, {JSON} and {JUNIT}: {args.out}")
    return report.verdict.exit_code


def _check_mode(
    args: argparse.Namespace, driver: Driver, option: str, scenarios: str
) -> None:
    """Refuse what would change what is judged, and how."""
    name = f"--{option.replace('_', '-')}"
    if args.scenario:
        raise UsageError(f"{name} has scenarios of its own", scenarios)
    if args.profile:
        raise UsageError(
            f"{name} judges with latencies of its own",
            "leave out --profile",
        )
    if args.seeds > 1:
        raise UsageError(
            f"{name} judges with one seed",
            "leave out --seeds; --seed N says which",
        )
    if driver is not Driver.P2PSIM:
        raise UsageError(
            f"{name} judges with p2psim",
            f"judge single trees with --device {driver}, as in "
            "--variant patched+MUTANT",
        )


def _scenarios(
    driver: Driver, wanted: Sequence[str], profile: str | None
) -> list[Scenario]:
    scenarios = [
        load_for(driver, text, profile) for text in dict.fromkeys(wanted)
    ]
    names = [scenario.name for scenario in scenarios]
    for name in names:
        # Bundles are named after them.
        if names.count(name) > 1:
            raise UsageError(
                f"two scenarios are named {name!r}",
                "give each file a name of its own",
            )
    return scenarios


def _steps(base: Base, report: Report) -> list[perpatch.Step]:
    """The rows of a report, tree by tree."""
    return [
        perpatch.Step(
            number=number,
            subject=base.patches[number - 1].subject if number else "",
            runs={
                row.scenario: row.assessment
                for row in report.rows
                if patches_of(row.variant) == number
            },
        )
        for number in range(len(base.patches) + 1)
    ]
