# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate --mutants``: can the suite tell right from wrong?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from vfio_p2p.cli.build import build_all, choose_source
from vfio_p2p.cli.progress import Display, display
from vfio_p2p.cli.session import (
    check_ready,
    forget_reports,
    run_cells,
    write_reports,
)
from vfio_p2p.errors import BuildError, PatchError, UsageError
from vfio_p2p.plans.matrix import Cell, Run
from vfio_p2p.qemu import Build, Source
from vfio_p2p.qemu.program import Program
from vfio_p2p.report import mutants as report_mutants
from vfio_p2p.report.mutants import MutantReport, Trial
from vfio_p2p.scenario.load import load, names
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Base, Mutant, load_mutants, parse_variant

# What a mutant is made of.
TREE = "patched"


def run(args: argparse.Namespace) -> int:
    """Judge mutants; with ``--mutant`` only some.

    :param args: Those of ``validate``.
    """
    check_ready(args)
    base, source = choose_source(args)
    wanted = _wanted(base, args.mutant)
    forget_reports(args.out)
    report = _judge(base, source, wanted, args)
    document = write_reports(
        args.out,
        report_mutants.as_json(report),
        report_mutants.as_junit(report),
    )
    print(document if args.json else report_mutants.render(report))
    return report.verdict.exit_code


def _wanted(base: Base, wanted: Sequence[str]) -> list[Mutant]:
    every = load_mutants()
    known = {x.name: x for x in every if x.base == base.name}
    if not known:
        bases = ", ".join(dict.fromkeys(x.base for x in every))
        raise UsageError(
            f"{base.name} has no mutants", f"bases that have some: {bases}"
        )
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"unknown mutant {name!r}",
                f"known mutants of {base.name}: {', '.join(known)}",
            )
    return [known[name] for name in dict.fromkeys(wanted or known)]


def _showing(known: Mapping[str, Scenario]) -> dict[str, Scenario]:
    """What breaks a rule with no mutant, and so shows what sees it.

    One scenario for each such rule is enough.
    """
    broken = {x for run in known.values() for x in run.expect.patched.breaks}
    found = {}
    for name in names():
        scenario = load(name)
        if not broken.issuperset(scenario.expect.patched.breaks):
            broken.update(scenario.expect.patched.breaks)
            found[name] = scenario
    return found


def _judge(
    base: Base,
    source: Source,
    mutants: Sequence[Mutant],
    args: argparse.Namespace,
) -> MutantReport:
    scenarios = {
        name: load(name)
        for mutant in mutants
        if not mutant.waits_for
        for name in mutant.scenarios
    }
    if not scenarios:
        raise UsageError(
            "every one of these mutants waits for something",
            "qemu-patches/series.toml says for what",
        )
    whole = not args.mutant
    if whole:
        scenarios |= _showing(scenarios)
    with display() as shown:
        (control,) = build_all(source, [parse_variant(base, TREE)], shown)
        built, failed = build_mutants(base, source, mutants, shown)
    tried = cells(mutants, built, scenarios, args.seed)
    runs = run_cells(
        [
            *(
                Cell(Program.of(control), scenario, args.seed)
                for scenario in scenarios.values()
            ),
            *tried.values(),
        ],
        args,
    )
    return MutantReport(
        qemu=control.version,
        base=base.name,
        control={
            name: run.assessment
            for name, run in zip(scenarios, runs, strict=False)
        },
        trials=trials(
            mutants,
            failed,
            dict(zip(tried, runs[len(scenarios) :], strict=True)),
        ),
        whole=whole,
    )


def build_mutants(
    base: Base, source: Source, mutants: Sequence[Mutant], shown: Display
) -> tuple[dict[str, Build], dict[str, str]]:
    """Build what can be built of them.

    :return: The builds, and why the others have none, by mutant.
    """
    built: dict[str, Build] = {}
    failed: dict[str, str] = {}
    for mutant in mutants:
        if mutant.waits_for:
            continue
        try:
            tree = parse_variant(base, f"{TREE}+{mutant.name}")
            (built[mutant.name],) = build_all(source, [tree], shown)
        except (BuildError, PatchError) as err:
            failed[mutant.name] = err.what
    return built, failed


def cells(
    mutants: Sequence[Mutant],
    built: Mapping[str, Build],
    scenarios: Mapping[str, Scenario],
    seed: int,
    prefix: str = "",
) -> dict[tuple[str, str], Cell]:
    """What is to be run of them, by mutant and scenario."""
    return {
        (mutant.name, name): Cell(
            Program.of(built[mutant.name]), scenarios[name], seed, prefix
        )
        for mutant in mutants
        if mutant.name in built
        for name in mutant.scenarios
    }


def trials(
    mutants: Sequence[Mutant],
    failed: Mapping[str, str],
    runs: Mapping[tuple[str, str], Run],
) -> list[Trial]:
    """What came of them.

    :param failed: Why some were not built.
    :param runs: Those of `cells`, by the same keys.
    """
    return [
        Trial(
            mutant,
            {
                scenario: run.assessment
                for (name, scenario), run in runs.items()
                if name == mutant.name
            },
            failed.get(mutant.name, ""),
        )
        for mutant in mutants
    ]
