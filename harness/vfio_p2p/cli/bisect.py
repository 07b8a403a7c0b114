# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p bisect``: find the commit or QEMU that changed a downtime."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.errors import UsageError
from vfio_p2p.history.database import Entry
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.bisect.binaries import BinariesRequest, bisect_binaries
from vfio_p2p.plans.bisect.plan import SCENARIO, BisectRequest, bisect
from vfio_p2p.plans.bisect.search import (
    Above,
    Bisection,
    MeasuredCommit,
    Steps,
)
from vfio_p2p.plans.bisect.step import Probe
from vfio_p2p.plans.history import METRIC
from vfio_p2p.plans.setting import SEED
from vfio_p2p.report.history import difference
from vfio_p2p.trace import printable

FORMAT = 1

_DIGITS = 12
_KINDS = {True: "commit", False: "QEMU"}
_VERDICTS = {True: "bad", False: "good", None: "skipped"}
# Another metric is named if it changed by at least this part of the change.
_NOTABLE = 0.1


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``bisect``."""
    parser = commands.add_parser(
        "bisect",
        help=summary,
        description="Find the commit of a QEMU repository that changed a "
        "downtime: 'git bisect run', with a sealed run for each commit, in "
        "a work tree of its own. The repository is left as it is. Commits "
        "that do not build or do not migrate are skipped. With --qemu, find "
        "the first of several QEMUs instead, which are run as they are.",
    )
    for name, help_text in (
        ("good", "a commit from before the change"),
        ("bad", "a commit with the change; a descendant of the good one"),
    ):
        parser.add_argument(
            f"--{name}", metavar="R", help=help_text
        )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="QEMU_GIT",
        help="a git repository of QEMU",
    )
    options.add_qemu(
        parser,
        several=True,
        more="; in place of --source, --good and --bad, give it for each "
        "QEMU, the oldest first: the first one is good, and the last one bad",
    )
    parser.add_argument(
        "--metric",
        default=METRIC,
        metavar="METRIC",
        help="the metric that changed, e.g. phase.stop-arcs (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--scenario",
        default=SCENARIO,
        metavar="S",
        help="the scenario that is run (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=options.seed,
        default=SEED,
        metavar="N",
        help="the seed of the runs (default: %(default)s)",
    )
    parser.add_argument(
        "--above",
        type=_above,
        metavar="MS|PERCENT",
        help="threshold over the good end, e.g. 3 (milliseconds) or 1%%; "
        "by default, the midpoint between good and bad",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the measurements in the history",
    )
    options.add_place(parser)
    options.add_database(parser)
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def _above(text: str) -> Above:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%|ms)?", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(
            f"neither milliseconds nor percent: {text}"
        )
    if found[2] == "%":
        return Above(float(found[1]), percent=True)
    return Above(float(found[1]) * 1e6, percent=False)


def request(
    args: argparse.Namespace,
) -> BisectRequest | BinariesRequest:
    """Read the arguments.

    :raise UsageError: When they name neither commits nor QEMUs, or both.
    """
    ends = {f"--{x}": getattr(args, x) for x in ("source", "good", "bad")}
    given = [name for name, x in ends.items() if x]
    if args.qemu:
        if given:
            raise UsageError(
                f"{', '.join(given)}: this has no effect with --qemu",
                "Name commits of a repository, or QEMUs, but not both.",
            )
        return BinariesRequest(
            qemus=tuple(args.qemu),
            metric=args.metric,
            scenario=args.scenario,
            seed=args.seed,
            at=args.at,
            above=args.above,
            record=args.record,
            database=args.db,
        )
    if missing := [name for name in ends if name not in given]:
        raise UsageError(
            f"the following arguments are required: {', '.join(missing)}",
            "Name a repository and two of its commits, or several QEMUs with "
            "--qemu.",
        )
    return BisectRequest(
        source=args.source,
        good=args.good,
        bad=args.bad,
        metric=args.metric,
        scenario=args.scenario,
        seed=args.seed,
        at=args.at,
        above=args.above,
        record=args.record,
        database=args.db,
    )


def run(wanted: BisectRequest | BinariesRequest, context: Context) -> int:
    """Bisect, and print the first bad commit or QEMU."""
    return report(wanted, context, Steps())


def report(
    wanted: BisectRequest | BinariesRequest, context: Context, steps: Steps
) -> int:
    """Bisect in given steps, and print the first bad commit or QEMU.

    :param wanted: What is searched.
    :param context: Where the result is printed.
    :param steps: How commits are measured.
    """
    with context.reporter() as reporter:

        def tell(sample: MeasuredCommit) -> None:
            reporter.task(_short(sample.commit)).end(_outcome(sample))

        if isinstance(wanted, BinariesRequest):
            found = bisect_binaries(
                wanted, reporter, tell, context.workshop
            )
        else:
            found = bisect(wanted, reporter, tell, steps)
    if context.json:
        context.show_json(_document(found))
    else:
        context.show(_text(found))
    return 0 if found.first else Verdict.INCONCLUSIVE.exit_code


def _text(found: Bisection) -> str:
    probe = found.probe
    where = "above" if probe.rising else "below"
    lines = [
        f"tested: {found.scenario}, seed {probe.seed}; {probe.metric} "
        f"{where} {probe.limit_ns / 1e6:.3f} ms is bad",
    ]
    for sample in found.samples:
        line = f"  {_short(sample.commit)}  {_outcome(sample)}"
        if sample.value_ns is not None:
            line += f"  {printable(sample.subject)[:40]}"
        lines.append(line)
    first, before = found.first, found.before
    last = found.candidates[-1]
    if first is None:
        kind = _KINDS[_is_commit(last)]
        lines.append(f"the first bad {kind} is one of these:")
        lines += [f"  {_short(x)}" for x in found.candidates]
        return "\n".join(lines)
    kind = _KINDS[_is_commit(first.commit)]
    lines += ["", f"{printable(first.commit)} is the first bad {kind}"]
    lines.append(f"  {printable(first.subject)}")
    entry = first.entry
    if entry and entry.qemu_revision_s is not None:
        date = time.gmtime(entry.qemu_revision_s)
        lines.append(f"  committed {time.strftime('%Y-%m-%d', date)}")
    lines += [f"  {x}" for x in _changes(probe, before, first)]
    return "\n".join(lines)


def _is_commit(name: str) -> bool:
    """Whether this is the hash of a commit, and not the name of a QEMU."""
    return re.fullmatch(r"[0-9a-f]{40,64}", name) is not None


def _short(name: str) -> str:
    return name[:_DIGITS] if _is_commit(name) else printable(name)


def _outcome(sample: MeasuredCommit) -> str:
    if sample.value_ns is None:
        return f"skipped: {printable(sample.why)}"
    return f"{_VERDICTS[sample.bad]:4} {sample.value_ns / 1e6:10.3f} ms"


def _changes(
    probe: Probe, before: MeasuredCommit | None, first: MeasuredCommit
) -> list[str]:
    """Tell by how much the metric changed, and which others changed, too."""
    if not (before and before.entry and first.entry):
        return []
    moved = _moved(before.entry, first.entry)
    was, change = moved.pop(probe.metric)
    lines = [
        f"{probe.metric}: {was / 1e6:.3f} ms to "
        f"{(was + change) / 1e6:.3f} ms, "
        + difference(change, 100 * change / was if was else None, "ns"),
        f"compared with {_short(before.commit)}; with it changed:",
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
    """Map each metric of both to its value before and its difference."""
    return {
        x.name: (old.value, x.value - old.value)
        for x in after.metrics
        if (old := before.metric(x.name)) is not None
    }


def _document(found: Bisection) -> dict[str, Any]:
    first, before = found.first, found.before
    change_ns = None
    if first and before and None not in (first.value_ns, before.value_ns):
        change_ns = (first.value_ns or 0) - (before.value_ns or 0)
    return {
        "format": FORMAT,
        "metric": found.probe.metric,
        "scenario": found.scenario,
        "seed": found.probe.seed,
        "limit_ns": found.probe.limit_ns,
        "bad_is": "above" if found.probe.rising else "below",
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
