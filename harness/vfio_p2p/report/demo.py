# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment that explains the series, in about ten lines.

Two trees, of which one has no barrier across devices, run the same
scenario: devices that send to one another all the time while their VM
migrates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.report.run import Run
from vfio_p2p.trace import printable

_NOTHING = Traffic(0, 0, 0, 0)


def lines(runs: Sequence[Run]) -> Iterator[str]:
    """Tell what happened in each run of the experiment.

    :param runs: The run with the barrier, and the run without it.
    """
    for run in runs[:1]:
        yield printable(f"{run.scenario}, {run.name}:")
    yield "devices send to one another while their VM migrates, with the"
    yield "series' barrier across devices, and without it"
    yield ""
    width = max((len(printable(run.variant)) for run in runs), default=0)
    for run in runs:
        traffic = run.traffic or _NOTHING
        yield (
            f"  {printable(run.variant):{width}} {traffic.sent:8} sent "
            f"{traffic.delivered:8} delivered {traffic.lost:6} lost  "
            f"{run.verdict}"
        )
    for run in runs:
        if run.traffic and run.traffic.lost:
            yield ""
            yield from _losses(run)
        rules = dict.fromkeys(printable(x.rule) for x in run.findings)
        if rules:
            yield f"  broken rules: {', '.join(rules)}"


def _losses(run: Run) -> Iterator[str]:
    """List the losses of each pair of devices, with times and states."""
    for pair in run.pairs:
        if not pair.lost:
            continue
        yield (
            f"{printable(run.variant)}, device {pair.sender} to "
            f"{pair.receiver}: {pair.lost} of {pair.sent} lost"
        )
        seen = Counter(
            printable(
                f"as the {x.side} {x.during}: sender {x.sender_state}, "
                f"receiver {x.receiver_state}"
            )
            for x in pair.losses
        )
        for when, count in seen.items():
            yield f"  {count:4}  {when}"
        if seen.total() < pair.lost:
            rest = pair.lost - seen.total()
            yield f"  {rest:4}  at a time that no log tells"
