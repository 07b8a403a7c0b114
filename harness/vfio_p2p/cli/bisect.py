# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p bisect``: find the commit that changed a downtime."""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

from vfio_p2p.cli.common import SEED, seed
from vfio_p2p.cli.history import METRIC, add_database_argument
from vfio_p2p.cli.progress import Display, display
from vfio_p2p.cli.record import project_revision
from vfio_p2p.history.database import Entry, default_path, open_history
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.bisect import Above, Found, Sample, search
from vfio_p2p.plans.bisect.step import Job
from vfio_p2p.report.history import difference
from vfio_p2p.scenario.load import load
from vfio_p2p.trace import printable

FORMAT = 1

_SCENARIO = "two-devices"
_DIGITS = 12
_VERDICTS = {True: "bad", False: "good", None: "skipped"}
# What explains a change is at least this part of it.
_NOTABLE = 0.1


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``bisect``."""
    parser = commands.add_parser(
        "bisect",
        help="find the commit that changed a downtime",
        description="Find the commit of a QEMU repository that changed a "
        "downtime: 'git bisect run', with a sealed run for each commit, in "
        "a work tree of its own. The repository stays as it is. Commits "
        "that do not build or do not migrate are skipped.",
    )
    for name, help_text in (
        ("good", "a commit from before the change"),
        ("bad", "a commit with it; a descendant of the good one"),
    ):
        parser.add_argument(
            f"--{name}", required=True, metavar="R", help=help_text
        )
    parser.add_argument(
        "--source", type=Path, required=True, metavar="QEMU_GIT",
        help="a git repository of QEMU",
    )
    parser.add_argument(
        "--metric", default=METRIC, metavar="METRIC",
        help="what changed, e.g. phase.stop-arcs (default: %(default)s)",
    )
    parser.add_argument(
        "--scenario", default=_SCENARIO, metavar="S",
        help="what to run (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=SEED, metavar="N",
        help="of the sealed runs (default: %(default)s)",
    )
    parser.add_argument(
        "--above", type=_above, metavar="MS|PERCENT",
        help="a commit is bad that exceeds the good one by more than this, "
        "e.g. 3 (milliseconds) or 1%% (default: that is nearer to the bad "
        "one than to the good one)",
    )
    parser.add_argument(
        "--record", action="store_true",
        help="keep what was measured in the history",
    )
    add_database_argument(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def _above(text: str) -> Above:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%|ms)?", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(
            f"neither milliseconds nor percent: {text}"
        )
    if found[2] == "%":
        return Above(float(found[1]), percent=True)
    return Above(float(found[1]) * 1e6, percent=False)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    scenario = load(args.scenario)
    path = (args.db or default_path()) if args.record else None
    if path:
        # Better now than after half an hour.
        _keep(path, [])
    job = Job(args.metric, args.seed, project_revision())
    with display() as shown:
        line = shown.line("bisect")
        found = search(
            args.source,
            args.good,
            args.bad,
            job,
            scenario,
            line,
            lambda sample: _tell(shown, sample, path),
            args.above,
        )
        line.end("done")
    if args.json:
        print(json.dumps(_document(found, scenario.name), indent=2))
    else:
        print(_text(found, scenario.name))
    return 0 if found.first else Verdict.INCONCLUSIVE.exit_code


def _tell(shown: Display, sample: Sample, path: Path | None) -> None:
    shown.line(sample.commit[:_DIGITS]).end(_outcome(sample))
    if path and sample.entry:
        _keep(path, [sample.entry])


def _keep(path: Path, entries: list[Entry]) -> None:
    with open_history(path, write=True) as history:
        history.add(entries)


def _text(found: Found, scenario: str) -> str:
    job = found.job
    where = "above" if job.rising else "below"
    lines = [
        f"tested: {scenario}, seed {job.seed}; {job.metric} {where} "
        f"{job.limit_ns / 1e6:.3f} ms is bad",
    ]
    for sample in found.samples:
        line = f"  {sample.commit[:_DIGITS]}  {_outcome(sample)}"
        if sample.value_ns is not None:
            line += f"  {printable(sample.subject)[:40]}"
        lines.append(line)
    first, before = found.first, found.before
    if first is None:
        lines.append("the first bad commit is one of these:")
        lines += [f"  {x[:_DIGITS]}" for x in found.candidates]
        return "\n".join(lines)
    lines += ["", f"{first.commit} is the first bad commit"]
    lines.append(f"  {printable(first.subject)}")
    entry = first.entry
    if entry and entry.qemu_revision_s is not None:
        date = time.gmtime(entry.qemu_revision_s)
        lines.append(f"  committed {time.strftime('%Y-%m-%d', date)}")
    lines += [f"  {x}" for x in _changes(job, before, first)]
    return "\n".join(lines)


def _outcome(sample: Sample) -> str:
    if sample.value_ns is None:
        return f"skipped: {printable(sample.why)}"
    return f"{_VERDICTS[sample.bad]:4} {sample.value_ns / 1e6:10.3f} ms"


def _changes(job: Job, before: Sample | None, first: Sample) -> list[str]:
    """By how much the metric changed, and what else did with it."""
    if not (before and before.entry and first.entry):
        return []
    moved = _moved(before.entry, first.entry)
    was, change = moved.pop(job.metric)
    lines = [
        f"{job.metric}: {was / 1e6:.3f} ms to {(was + change) / 1e6:.3f} ms, "
        + difference(change, 100 * change / was if was else None, "ns"),
        f"compared with {before.commit[:_DIGITS]}; with it changed:",
    ]
    notable = {
        name: value
        for name, (_, value) in moved.items()
        if abs(value) >= _NOTABLE * abs(change)
    }
    for name in sorted(notable, key=lambda x: -abs(notable[x])):
        lines.append(f"  {name:40} {difference(notable[name], None, 'ns')}")
    return lines


def _moved(before: Entry, after: Entry) -> dict[str, tuple[int, int]]:
    """Metrics that both have: the value before, and how far it moved."""
    return {
        x.name: (old.value, x.value - old.value)
        for x in after.metrics
        if (old := before.metric(x.name)) is not None
    }


def _document(found: Found, scenario: str) -> dict[str, Any]:
    first, before = found.first, found.before
    change_ns = None
    if first and before and None not in (first.value_ns, before.value_ns):
        change_ns = (first.value_ns or 0) - (before.value_ns or 0)
    return {
        "format": FORMAT,
        "metric": found.job.metric,
        "scenario": scenario,
        "seed": found.job.seed,
        "limit_ns": found.job.limit_ns,
        "bad_is": "above" if found.job.rising else "below",
        "first_bad": first.commit if first else None,
        "compared_with": before.commit if before else None,
        "change_ns": change_ns,
        "candidates": list(found.candidates),
        "samples": [
            {
                "commit": sample.commit,
                "subject": sample.subject,
                "verdict": _VERDICTS[sample.bad],
                "value_ns": sample.value_ns,
                "why": sample.why,
                "digest": sample.entry.digest if sample.entry else None,
            }
            for sample in found.samples
        ],
    }
