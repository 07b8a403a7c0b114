# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate --mutants``: can the suite tell right from wrong?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

from harness.build import Source
from harness.cli.build import build_all, choose_source
from harness.cli.progress import display
from harness.cli.session import judge_trees
from harness.errors import BuildError, PatchError, UsageError
from harness.host.files import write_whole
from harness.report import mutants as report_mutants
from harness.report.mutants import MutantReport, Trial
from harness.scenario.load import load, names
from harness.scenario.model import Scenario
from harness.series import (
    Base,
    Mutant,
    Variant,
    load_mutants,
    parse_variant,
)
from harness.testbed.outer import find_outer

_TREE = "patched"


def run(args: argparse.Namespace, json_name: str, junit_name: str) -> int:
    """Judge mutants; with ``--mutant`` only some.

    :param args: Those of ``validate``.
    :param json_name: Name of the report for programs.
    :param junit_name: Name of the JUnit report.
    """
    find_outer()
    base, source = choose_source(args)
    wanted = _wanted(base, args.mutant)
    for name in (json_name, junit_name):
        # As in `validate`: no older report is to look like ours.
        (args.out / name).unlink(missing_ok=True)
    report = _judge(base, source, wanted, args)
    document = json.dumps(report_mutants.as_json(report), indent=2)
    write_whole(args.out / json_name, f"{document}\n".encode())
    write_whole(
        args.out / junit_name, report_mutants.as_junit(report).encode()
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
    trees: dict[str, Variant] = {}
    failed: dict[str, str] = {}
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
    control = parse_variant(base, _TREE)
    with display() as shown:
        build_all(source, [control], shown)
        for mutant in mutants:
            if mutant.waits_for:
                continue
            try:
                tree = parse_variant(base, f"{_TREE}+{mutant.name}")
                build_all(source, [tree], shown)
            except (BuildError, PatchError) as err:
                failed[mutant.name] = err.what
            else:
                trees[mutant.name] = tree
    judged = judge_trees(
        base,
        source,
        [(control, scenario) for scenario in scenarios.values()]
        + [
            (trees[mutant.name], scenarios[name])
            for mutant in mutants
            if mutant.name in trees
            for name in mutant.scenarios
        ],
        args,
    )
    found = {
        (row.variant, row.scenario): row.assessment for row in judged.rows
    }
    return MutantReport(
        qemu=judged.qemu,
        base=base.name,
        control={name: found[control.name, name] for name in scenarios},
        trials=[
            Trial(
                mutant,
                {
                    name: found[trees[mutant.name].name, name]
                    for name in mutant.scenarios
                }
                if mutant.name in trees
                else {},
                failed.get(mutant.name, ""),
            )
            for mutant in mutants
        ],
        whole=whole,
    )
