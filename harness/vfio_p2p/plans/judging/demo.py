# SPDX-License-Identifier: GPL-2.0-or-later
"""The demonstration: transactions are lost only without the barrier."""

from __future__ import annotations

from msgspec.structs import replace

from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run

_RULE = "conservation"
_NOTHING = Traffic(0, 0, 0, 0)


def comparable(kept: Run, broken: Run) -> bool:
    """Whether there is a migration of each tree to draw and to compare.

    :param kept: The run of the tree with the barrier.
    :param broken: The run of the tree without it.
    """
    return all(
        run.verdict is not Verdict.ERROR and run.blackout_ns is not None
        for run in (kept, broken)
    )


def verdict(kept: Run, broken: Run) -> Verdict:
    """Decide whether the experiment shows the effect of the barrier.

    :param kept: The run of the tree with the barrier, which must lose
        nothing.
    :param broken: The run of the tree without it, which must lose something
        and be caught.
    """
    if not comparable(kept, broken):
        return _incomparable(kept, broken)
    traffic = kept.traffic or _NOTHING
    found = kept.verdict
    if (found is Verdict.PASS and not traffic.delivered) or traffic.lost:
        found = Verdict.FAIL
    caught = any(x.rule == _RULE for x in broken.findings)
    if (broken.traffic or _NOTHING).lost and caught:
        return found
    if broken.verdict is Verdict.INCONCLUSIVE:
        return worst([found, Verdict.INCONCLUSIVE])
    return Verdict.FAIL


def document(
    kept: Run,
    broken: Run,
    *,
    qemu: str,
    base: str,
    origin: str = "",
    picture: str = "",
) -> Document:
    """Make the report of 'demo'.

    :param kept: The run of the tree with the barrier.
    :param broken: The run of the tree without it.
    :param qemu: The version string of the QEMU under test.
    :param base: The name of the base.
    :param origin: Where its source is from.
    :param picture: The file with the picture; only used if the runs are
        `comparable`.
    """
    shown = comparable(kept, broken)
    runs = [kept, broken]
    if shown:
        titles = ("With the barrier across devices", "Without it")
        runs = [
            replace(run, tree=f"{title} ({run.variant})")
            for title, run in zip(titles, runs, strict=True)
        ]
    return Document.of(
        runs,
        qemu=qemu,
        base=base,
        origin=origin,
        verdict=verdict(kept, broken),
        picture=picture if shown else "",
    )


def _incomparable(kept: Run, broken: Run) -> Verdict:
    if Verdict.ERROR in (kept.verdict, broken.verdict):
        return Verdict.ERROR
    if kept.verdict is Verdict.INCONCLUSIVE:
        return Verdict.INCONCLUSIVE
    return Verdict.FAIL
