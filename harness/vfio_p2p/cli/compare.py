# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p compare``: which of two is slower, by how much, and where."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.cli.build import (
    add_source_arguments,
    choose_source,
    choose_variants,
)
from vfio_p2p.cli.common import add_seeds_argument, seeds_of
from vfio_p2p.cli.device import driver_of, load_for
from vfio_p2p.cli.session import (
    Wanted,
    add_run_arguments,
    check_ready,
    run_trees,
)
from vfio_p2p.downtime.compare import (
    RELEVANT,
    Change,
    Comparison,
    RunSample,
    compare,
)
from vfio_p2p.downtime.logs import HostRun, is_host_run, read_host_run
from vfio_p2p.errors import BundleError, HostError, UsageError
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.compare import Group, as_json, render
from vfio_p2p.scenario.profile import latencies
from vfio_p2p.verdict.assess import Assessment, assess, patches_of
from vfio_p2p.verdict.reading import read_run

_SEEDS = 10
_SCENARIO = "one-device"
_SHOWN = 12
_NUMBER = r"\s*([+-]?\d{1,4}(?:\.\d{1,6})?)\s*%\s*"

_Judged = tuple[Bundle, Assessment]


@dataclass(frozen=True)
class _Side:
    """A or B.

    :param text: The argument.
    :param scenario: The scenario that goes with it, if one was named.
    """

    text: str
    scenario: str | None

    @property
    def is_tree(self) -> bool:
        """Whether it is to be built and run; else it is a folder."""
        try:
            patches_of(self.text)
        except BundleError:
            return False
        return True


@dataclass(frozen=True)
class _Runs:
    """What there is of A or B.

    :param group: What to call it.
    :param samples: Its runs.
    :param sealed: Whether they were made in the testbed.
    :param notes: What is wrong with them.
    :param whole: Whether none was left out.
    """

    group: Group
    samples: list[RunSample]
    sealed: bool = True
    notes: tuple[str, ...] = ()
    whole: bool = True


def _percent(text: str) -> float:
    found = re.fullmatch(_NUMBER, text)
    if found is None or float(found[1]) < 0:
        raise argparse.ArgumentTypeError(f"not as much as, say, 1%: {text}")
    return float(found[1])


def _range(text: str) -> tuple[float, float]:
    found = re.fullmatch(rf"{_NUMBER}\.\.{_NUMBER}", text)
    if found is None or float(found[1]) > float(found[2]):
        raise argparse.ArgumentTypeError(
            f"not a range such as '-6% .. -4%': {text}"
        )
    return float(found[1]), float(found[2])


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``compare``."""
    parser = commands.add_parser(
        "compare",
        help="A against B: which is slower, by how much, and where",
        description="Compare the blackout of two trees, phase by phase: run "
        "each with the same seeds in the sealed testbed, or take bundles "
        "that are there.  What was run before is not run again.  Runs of "
        "real hosts are folders with source/trace.log and "
        "destination/trace.log; make them in turns, A B A B.",
        epilog="Without a gate the exit code is 0 if there is an answer, and "
        "3 if these runs cannot tell; a gate makes it 1 where the whole "
        "interval of confidence lies beyond, and 3 where some of it does.  "
        "Runs that break a rule are compared, and it is said; with a run "
        "that has to be left out, as it is in error, it is 3 at best.",
    )
    for name in "AB":
        parser.add_argument(
            name.lower(),
            metavar=name,
            help="a variant (base, patch-1, patched, patched+MUTANT, stock), "
            "or a folder of bundles, or of real hosts' logs",
        )
    _add_run_options(parser)
    parser.add_argument(
        "--scenario",
        metavar="S",
        help="a scenario's name or file; of a folder, only its bundles of "
        f"that name are taken (default for variants: {_SCENARIO})",
    )
    parser.add_argument(
        "--scenario-b",
        metavar="S",
        help="B's scenario, if it is another one",
    )
    parser.add_argument(
        "--unpaired",
        action="store_true",
        help="runs of one seed do not belong together, as on real hosts",
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
        help="fail if B does not differ by as much, e.g. '-6%% .. -4%%'",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add_seeds_argument(parser, _SEEDS)
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    sides = [
        _Side(args.a, args.scenario),
        _Side(args.b, args.scenario_b or args.scenario),
    ]
    # Folders first: it is soon seen what is wrong with them.
    there = {
        side: _found(side, args) for side in sides if not side.is_tree
    }
    if not all(x.sealed for x in there.values()) and (
        len(there) < len(set(sides)) or any(x.sealed for x in there.values())
    ):
        raise UsageError(
            "sealed runs and those of real hosts have nothing in common",
            "compare logs with logs, and bundles with bundles or variants",
        )
    if len(there) < len(set(sides)):
        there |= _made(sides, args)
    else:
        _check_unused(args)
    a, b = (there[side] for side in sides)
    found = compare(
        a.samples,
        b.samples,
        pairs=False if args.unpaired else None,
        relevant=args.fail_above or RELEVANT,
    )
    notes = (f"{x}: {y}" for x, z in (("A", a), ("B", b)) for y in z.notes)
    found = replace(found, notes=(*notes, *found.notes))
    verdict = _verdict(found, args)
    if not (a.whole and b.whole):
        verdict = worst([verdict, Verdict.INCONCLUSIVE])
    if args.json:
        document = as_json(a.group, b.group, found)
        document["verdict"] = str(verdict)
        print(json.dumps(document, indent=2))
    else:
        print(render(a.group, b.group, found))
        print(f"\nverdict: {verdict}")
    return verdict.exit_code


def _check_unused(args: argparse.Namespace) -> None:
    """Refuse what says how to run, where nothing is run."""
    parser = argparse.ArgumentParser()
    _add_run_options(parser)
    usual = vars(parser.parse_args([]))
    if args.scenario or args.scenario_b:
        # They are part of its name.
        del usual["device"], usual["profile"]
    unused = [
        f"--{name}"
        for name, value in usual.items()
        if getattr(args, name) != value
    ]
    if unused:
        raise UsageError(
            f"{', '.join(unused)}: of no use, for A and B are there already",
            "leave it out, or name a variant to be run",
        )


def _made(
    sides: Sequence[_Side], args: argparse.Namespace
) -> dict[_Side, _Runs]:
    """Build the trees and run them, A and B in turn."""
    # What can be wrong with the input is found before anything is built.
    driver = driver_of(args)
    scenarios = {
        x: load_for(driver, x.scenario or _SCENARIO, args.profile)
        for x in sides
        if x.is_tree
    }
    check_ready(args)
    base, source = choose_source(args)
    trees = {
        side: choose_variants(base, source, [side.text])[0]
        for side in scenarios
    }
    # Another name would be another course of events in the testbed, up to
    # timers that fire elsewhere; so two scenarios may well share theirs.
    alike = len({x.name for x in scenarios.values()}) == 1
    differ = len({x.digest for x in scenarios.values()}) > 1
    cells = {
        (side, seed): Wanted(
            trees[side],
            scenarios[side],
            seed,
            "-b" if alike and differ and side == sides[1] else "",
        )
        for seed in seeds_of(args)
        for side in scenarios
    }
    runs, _ = run_trees(source, list(cells.values()), args)
    found: dict[_Side, list[_Judged]] = {side: [] for side in scenarios}
    for (side, seed), one in zip(cells, runs, strict=True):
        if one.bundle is None:
            why = "; ".join(one.assessment.notes)
            raise HostError(
                f"{side.text}, seed {seed}: {why}",
                "what was run is kept: the same command goes on from there",
            )
        found[side].append((open_bundle(one.bundle), one.assessment))
    return {side: _of_bundles(side, x) for side, x in found.items()}


def _found(side: _Side, args: argparse.Namespace) -> _Runs:
    """The runs of a folder."""
    folder = Path(side.text)
    if not folder.exists():
        raise UsageError(
            f"{side.text} is neither a variant nor a folder of bundles",
            "variants are stock, base, patch-1 to patch-6 and patched, each "
            "with +MUTANT if wanted",
        )
    paths = [folder]
    if folder.is_dir() and not _is_run(folder):
        # One with a dot is still being written.
        paths = [
            path
            for path in sorted(folder.iterdir())
            if not path.name.startswith(".") and _is_run(path)
        ]
    logs = [path for path in paths if _has_logs(path)]
    if logs and logs == paths and side.scenario is None:
        return _of_logs(side, [read_host_run(path) for path in logs])
    if logs:
        raise UsageError(
            f"{logs[0]}: the logs of a run, but no bundle",
            "keep such runs apart from bundles, and name no scenario",
        )
    found = [open_bundle(path) for path in paths]
    if side.scenario is not None:
        driver = driver_of(args)
        wanted = load_for(driver, side.scenario, args.profile).name
        found = [x for x in found if x.scenario.name == wanted]
    if not found:
        raise UsageError(
            f"{side.text}: no such bundles in it",
            "give the folder that has them, and the name of their scenario",
        )
    kinds = sorted(set(map(_kind, found)))
    if len(kinds) > 1:
        differ = [x for x in zip(*kinds, strict=True) if len(set(x)) > 1]
        raise UsageError(
            f"{side.text}: bundles of more than one kind: "
            + ", ".join(map(" ".join, zip(*differ, strict=True))),
            "keep those of each kind apart, or give --scenario",
        )
    return _of_bundles(side, [(x, assess(x)) for x in found])


def _kind(bundle: Bundle) -> tuple[str, ...]:
    """What runs have in common that are samples of the same."""
    inputs = bundle.manifest.inputs
    return (
        inputs.source.variant,
        bundle.scenario.name,
        f"({inputs.scenario[:_SHOWN]})",
        inputs.source.version,
        f"(build {inputs.source.build[:_SHOWN]})",
    )


def _is_run(path: Path) -> bool:
    return (
        path.suffix == ".zip"
        or (path / "manifest.json").exists()
        or is_host_run(path)
    )


def _has_logs(path: Path) -> bool:
    return is_host_run(path) and not (path / "manifest.json").exists()


def _of_bundles(side: _Side, judged: Sequence[_Judged]) -> _Runs:
    samples: list[RunSample] = []
    left_out: list[str] = []
    wrong: dict[str, list[str]] = {}
    for bundle, found in judged:
        seed = bundle.manifest.inputs.seed
        what = [f"breaks the rule {x.rule}" for x in found.findings]
        if found.verdict is Verdict.INCONCLUSIVE:
            what.append(f"is inconclusive: {'; '.join(found.notes)}")
        for text in dict.fromkeys(what):
            wrong.setdefault(text, []).append(str(seed))
        if found.verdict is Verdict.ERROR or found.blackout_ns is None:
            why = "no blackout"
            if found.verdict is Verdict.ERROR:
                why = "in error"
            said = "; ".join((found.summary, *found.notes))
            left_out.append(f"{bundle.path.name} is left out, {why}: {said}")
        else:
            parts = read_run(bundle).breakdown
            samples.append(RunSample(seed, parts, bundle.path.name))
    first, _ = judged[0]
    qemu, scenario = first.manifest.inputs.source, first.scenario
    name = side.text
    if not side.is_tree:
        name = f"{qemu.variant} in {side.text}"
    return _Runs(
        Group(name, qemu.version, scenario.name, latencies(scenario)),
        samples,
        notes=(
            *(f"{x} (seeds {', '.join(y)})" for x, y in wrong.items()),
            *left_out,
        ),
        whole=not left_out,
    )


def _of_logs(side: _Side, runs: list[HostRun]) -> _Runs:
    versions = [" to ".join(dict.fromkeys(run.versions)) for run in runs]
    return _Runs(
        Group(
            side.text,
            f"QEMU {', '.join(dict.fromkeys(versions))}",
            "logs of real hosts",
        ),
        [run.sample for run in runs],
        sealed=False,
    )


def _verdict(found: Comparison, args: argparse.Namespace) -> Verdict:
    gates = []
    if args.fail_above is not None:
        gates.append(found.gate(float("-inf"), args.fail_above))
    if args.expect is not None:
        gates.append(found.gate(*args.expect))
    if not gates:
        unclear = found.change is Change.UNCLEAR and not found.where
        return Verdict.INCONCLUSIVE if unclear else Verdict.PASS
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if verdict in gates:
            return verdict
    return Verdict.PASS
