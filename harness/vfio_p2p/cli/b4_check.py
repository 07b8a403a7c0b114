# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p b4-check``: an external check for b4, a patch on stdin.

b4 review runs such a check for each patch of a series, gives it the patch on
stdin and reads a JSON array of ``{tool, status, summary, url, details}``;
status is ``pass``, ``warn`` or ``fail``. In a checkout of QEMU::

    git config b4.review-perpatch-check-cmd "vfio-p2p b4-check"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from vfio_p2p.cli.build import add_source_arguments, choose_source
from vfio_p2p.cli.device import driver_of, load_for
from vfio_p2p.cli.session import add_run_arguments, check_ready, judge_trees
from vfio_p2p.errors import BuildError, PatchError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.qemu import Source
from vfio_p2p.report import perpatch
from vfio_p2p.report.model import Row
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Base, Patch, Variant, apply_patches
from vfio_p2p.series.patch import MAX_PATCH_BYTES
from vfio_p2p.trace import printable

TOOL = "vfio-p2p"

_STATUS = {Verdict.PASS: "pass", Verdict.FAIL: "fail"}


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``b4-check``."""
    parser = commands.add_parser(
        "b4-check",
        help="an external check for b4: a patch on stdin, JSON on stdout",
        description="Judge one patch of the series, given on stdin: it "
        "takes the place of the patch of that subject, on top of those "
        "before it. Prints what b4 wants of an external check.",
    )
    add_source_arguments(parser)
    add_run_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    # What can be wrong with the options is found before anything is built.
    driver = driver_of(args)
    scenarios = [
        load_for(driver, name, args.profile) for name in perpatch.SCENARIOS
    ]
    patch = Patch("stdin", sys.stdin.buffer.read(MAX_PATCH_BYTES))
    base, source = choose_source(args)
    subjects = [known.subject for known in base.patches]
    if patch.subject not in subjects:
        checks = [
            _check("warn", "not a patch of the series: nothing to check")
        ]
    else:
        number = subjects.index(patch.subject) + 1
        checks = _judge(base, source, number, patch, scenarios, args)
    print(json.dumps(checks, indent=2))
    return any(check["status"] == "fail" for check in checks)


def _judge(
    base: Base,
    source: Source,
    number: int,
    patch: Patch,
    scenarios: Sequence[Scenario],
    args: argparse.Namespace,
) -> list[dict[str, str]]:
    check_ready(args)
    before = base.pre + base.patches[: number - 1]
    # What comes before it is ours; that it applies is not its merit.
    apply_patches(source, before)
    tree = Variant(f"patch-{number}", (*before, patch))
    try:
        apply_patches(source, tree.patches)
        report = judge_trees(
            base, source, [(tree, what) for what in scenarios], args
        )
    except PatchError as err:
        return [_check("fail", "does not apply", err.what)]
    except BuildError as err:
        return [_check("fail", err.what, err.tail)]
    return [_of_run(row) for row in report.rows]


def _of_run(row: Row) -> dict[str, str]:
    found = row.assessment
    details = [
        line
        for finding in found.findings
        for line in (
            f"{finding.rule}: {printable(finding.message)}",
            *finding.lines(),
        )
    ]
    return _check(
        # What is not known is no reason to hold a patch back, and no pass.
        _STATUS.get(found.verdict, "warn"),
        f"{row.scenario}: {found.verdict}, {found.summary}",
        "\n".join([*details, *map(printable, found.notes)]),
    )


def _check(status: str, summary: str, details: str = "") -> dict[str, str]:
    return {
        "tool": TOOL,
        "status": status,
        "summary": summary,
        "url": "",
        "details": details,
    }
