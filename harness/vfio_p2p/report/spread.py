# SPDX-License-Identifier: GPL-2.0-or-later
"""How measured times spread over many runs, and which runs stand out.

A quantile is one of the times that were measured, the smallest that is not
exceeded by the stated part of them.  It is told only if at least one time is
beyond it, as ten runs say nothing of the slowest in a hundred.

A run stands out if its blackout is longer than the upper quartile by more than
three times the distance of the quartiles (Tukey's far outliers), and than the
median by more than a tenth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import PurePath
from statistics import median, quantiles

from vfio_p2p.report.groups import RunGroup
from vfio_p2p.report.p2p import p2p_times
from vfio_p2p.report.run import Run

BLACKOUT = "blackout"
P2P = "longest P2P arc"
QUANTILES = (0.5, 0.9, 0.99)

#: Fewer runs have no quartiles to speak of.
FEWEST = 8
_FAR = 3.0
_LEAST = 1.1


@dataclass(frozen=True, slots=True)
class Spread:
    """The times of one figure over all runs of a group.

    :param figure: ``blackout``, the name of a phase, or `P2P`.
    :param runs: In how many runs it was measured.
    :param quantiles_ns: One value for each of `QUANTILES`; None if there are
        too few runs to tell.
    :param longest_ns: The longest of the times.
    """

    figure: str
    runs: int
    quantiles_ns: tuple[int | None, ...]
    longest_ns: int


@dataclass(frozen=True, slots=True)
class Outlier:
    """A run whose blackout was much longer than usual.

    :param run: The run.
    :param blackout_ns: Its blackout.
    :param more_ns: How much longer than the median that is.
    :param phase: The phase that is most above its own median; empty if the
        phases are not known.
    :param phase_more_ns: By how much it is.
    """

    run: Run
    blackout_ns: int
    more_ns: int
    phase: str = ""
    phase_more_ns: int = 0

    @property
    def name(self) -> str:
        """The last part of the run's path, or its name."""
        return PurePath(self.run.bundle).name or self.run.name


def figures(run: Run) -> dict[str, int]:
    """Return the times of a run that can be compared, in nanoseconds.

    :param run: The run.
    """
    found = {}
    if run.blackout_ns is not None:
        found[BLACKOUT] = run.blackout_ns
    found.update((str(x.name), x.end_ns - x.start_ns) for x in run.phases)
    arcs = [x.arc_ns for x in p2p_times(run)]
    if arcs:
        found[P2P] = max(arcs)
    return found


def spreads(group: RunGroup) -> Iterator[Spread]:
    """Yield how each figure spreads over the runs of a group.

    :param group: The runs.
    """
    for figure, times in _times(group.runs).items():
        yield Spread(
            figure,
            len(times),
            tuple(_quantile(times, x) for x in QUANTILES),
            max(times),
        )


def outliers(group: RunGroup) -> Iterator[Outlier]:
    """Yield the runs of a group that took much longer than usual.

    :param group: The runs.
    """
    blackouts = group.blackouts
    if len(blackouts) < FEWEST:
        return
    low, middle, high = quantiles(blackouts, n=4, method="inclusive")
    limit_ns = max(high + _FAR * (high - low), _LEAST * middle)
    far = [x for x in group.runs if (x.blackout_ns or 0) > limit_ns]
    if not far:
        return
    medians = {x: int(median(y)) for x, y in _times(group.runs).items()}
    for run in far:
        found = figures(run)
        whole_ns = found.pop(BLACKOUT)
        found.pop(P2P, None)
        phase, more_ns = max(
            ((x, y - medians[x]) for x, y in found.items()),
            key=lambda pair: pair[1],
            default=("", 0),
        )
        yield Outlier(
            run, whole_ns, whole_ns - medians[BLACKOUT], phase, more_ns
        )


def _times(runs: Sequence[Run]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for run in runs:
        for figure, time_ns in figures(run).items():
            found.setdefault(figure, []).append(time_ns)
    return found


def _quantile(times: Sequence[int], part: float) -> int | None:
    if part > 0.5 and len(times) * (1 - part) < 1 - 1e-9:
        return None
    return sorted(times)[ceil(part * len(times) - 1e-9) - 1]
