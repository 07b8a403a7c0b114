# SPDX-License-Identifier: GPL-2.0-or-later
"""The runs of a document as `vfio_p2p.downtime` compares them."""

from __future__ import annotations

from vfio_p2p.downtime import (
    BlackoutPhase,
    Breakdown,
    CriticalLink,
    Interval,
    PhaseName,
)
from vfio_p2p.downtime.compare import RunSample
from vfio_p2p.report.run import PathPiece, Run
from vfio_p2p.timeline import Blackout


def sample_of(run: Run) -> RunSample | None:
    """Take a run's blackout to compare it with others.

    :param run: The run.
    :return: The sample; None if the run's phases do not make a blackout,
        as a report can be anybody's.
    """
    zero_ns = run.zero_ns or 0
    try:
        path = tuple(_link(x, zero_ns) for x in run.critical_path)
        breakdown = Breakdown(
            Blackout(run.blackout_ns, run.exact, "", zero_ns),
            phases=tuple(
                BlackoutPhase(
                    PhaseName(x.name),
                    zero_ns + x.start_ns,
                    zero_ns + x.end_ns,
                )
                for x in run.phases
            ),
            intervals=tuple(x.interval for x in path if x.interval),
            critical_path=path,
        )
    except ValueError:
        return None
    # A seed fixes nothing where times are measured.
    return RunSample(run.seed if run.exact else None, breakdown, run.bundle)


def _link(piece: PathPiece, zero_ns: int) -> CriticalLink:
    phase = PhaseName(piece.phase)
    start_ns, end_ns = zero_ns + piece.start_ns, zero_ns + piece.end_ns
    interval = None
    if piece.device:
        interval = Interval(
            piece.side,
            piece.device,
            piece.activity,
            phase,
            start_ns,
            end_ns,
        )
    return CriticalLink(phase, interval, start_ns, end_ns)
