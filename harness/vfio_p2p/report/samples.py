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
    try:
        path = tuple(map(_link, run.critical_path))
        breakdown = Breakdown(
            Blackout(run.blackout_ns, run.exact, "", 0),
            phases=tuple(
                BlackoutPhase(PhaseName(x.name), x.start_ns, x.end_ns)
                for x in run.phases
            ),
            intervals=tuple(x.interval for x in path if x.interval),
            critical_path=path,
        )
    except ValueError:
        return None
    return RunSample(run.seed, breakdown, run.bundle)


def _link(piece: PathPiece) -> CriticalLink:
    phase = PhaseName(piece.phase)
    interval = None
    if piece.device:
        interval = Interval(
            piece.side,
            piece.device,
            piece.activity,
            phase,
            piece.start_ns,
            piece.end_ns,
        )
    return CriticalLink(phase, interval, piece.start_ns, piece.end_ns)
