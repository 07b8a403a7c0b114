# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations between QEMUs of different releases: a matrix of all pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vfio_p2p.oracle.verdict import Verdict, decided, worst
from vfio_p2p.report.document import Document, common
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import (
    Crossing,
    JudgedTree,
    PairTrial,
    VersionMatrix,
)
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.verdict.assess import NOT_ALIKE

# What QEMU's error_report() and our runner put before its words.
_PREFIX = re.compile(
    r"^(?:\w+: QEMU did not start: )?(?:\S+Z )?(?:\S*qemu\S*: )?"
    r"(?:-device \S+: )?"
)
_REFUSED = (str(Outcome.REFUSED), str(Outcome.REJECTED))


@dataclass(frozen=True)
class PairRun:
    """The run of one scenario from one QEMU to another.

    :param source: The name of the source's QEMU.
    :param destination: The name of the destination's QEMU.
    :param run: The run.
    :param said: What QEMU said last; empty if it said nothing.
    """

    source: str
    destination: str
    run: Run
    said: str = ""


def trial(found: PairRun) -> PairTrial:
    """Judge a pair in a scenario.

    :param found: The run.
    """
    run = found.run
    crossing = Crossing.JUDGED
    words = ""
    more: tuple[str, ...] = ()
    if run.summary == NOT_ALIKE and run.verdict is Verdict.SKIP:
        crossing, (words, *rest) = Crossing.UNLIKE, run.notes
        more = tuple(rest)
    elif run.summary in _REFUSED and run.verdict is Verdict.PASS:
        crossing, words = Crossing.REFUSED, found.said
    return PairTrial(
        source=found.source,
        destination=found.destination,
        scenario=run.scenario,
        machine=run.machine,
        crossing=crossing,
        verdict=run.verdict,
        blackout_ns=run.blackout_ns,
        words=_PREFIX.sub("", words.splitlines()[0] if words else ""),
        notes=more,
    )


def verdict(trials: Sequence[PairTrial]) -> Verdict:
    """Decide whether migrations between the QEMUs are in order.

    What QEMU refuses does not count.  If no pair of different QEMUs was
    judged, nothing is known of any.

    :param trials: The pairs, in each scenario.
    """
    found = decided(x.verdict for x in trials)
    crossed = any(
        x.source != x.destination and x.crossing is Crossing.JUDGED
        for x in trials
    )
    return found if crossed else worst([found, Verdict.INCONCLUSIVE])


def document(
    qemus: Sequence[JudgedTree], found: Sequence[PairRun]
) -> Document:
    """Make the report of 'validate --versions'.

    :param qemus: The QEMUs.
    :param found: The runs of all pairs.
    """
    trials = tuple(map(trial, found))
    return Document.of(
        [x.run for x in found],
        qemu=common(x.qemu for x in qemus),
        base=common(x.base for x in qemus),
        origin=common(x.origin for x in qemus),
        verdict=verdict(trials),
        versions=VersionMatrix(qemus=tuple(qemus), pairs=trials),
    )
