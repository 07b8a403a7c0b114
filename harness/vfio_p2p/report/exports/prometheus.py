# SPDX-License-Identifier: GPL-2.0-or-later
"""Prometheus' text format, e.g. for the node exporter's textfile collector.

Format: https://prometheus.io/docs/instrumenting/exposition_formats.  Times
are gauges in seconds; the verdict on each run is a state set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    GaugeMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report import spread
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run

_LABELS = ("scenario", "tree", "run", "qemu")


def render(document: Document) -> str:
    """Render all runs.

    :param document: The document.
    """
    registry = CollectorRegistry()
    registry.register(_Runs(document))
    return generate_latest(registry).decode()


class _Runs(Collector):
    def __init__(self, document: Document) -> None:
        self._document = document

    def collect(self) -> Iterator[Metric]:
        """Yield the families of metrics."""
        blackouts = GaugeMetricFamily(
            "vfio_p2p_blackout_seconds",
            "From the first stop request to the last device running",
            labels=_LABELS,
        )
        bounds = GaugeMetricFamily(
            "vfio_p2p_blackout_bound_seconds",
            "How far the blackout may be off, as two clocks were read",
            labels=_LABELS,
        )
        phases = GaugeMetricFamily(
            "vfio_p2p_phase_seconds",
            "A part of the blackout",
            labels=(*_LABELS, "phase"),
        )
        arcs = GaugeMetricFamily(
            "vfio_p2p_longest_p2p_arc_seconds",
            "The longest time that a device took into a P2P state",
            labels=_LABELS,
        )
        verdicts = StateSetMetricFamily(
            "vfio_p2p_verdict", "The verdict on the run", labels=_LABELS
        )
        seen: Counter[tuple[str, ...]] = Counter()
        for run in self._document.runs:
            labels = _labels(run)
            seen[labels] += 1
            if (number := seen[labels]) > 1:
                # Prometheus takes each set of labels once.
                labels = _labels(run, f" ({number})")
            for name, time_ns in spread.figures(run).items():
                match name:
                    case spread.BLACKOUT:
                        blackouts.add_metric(labels, time_ns / 1e9)
                    case spread.P2P:
                        arcs.add_metric(labels, time_ns / 1e9)
                    case _:
                        phases.add_metric((*labels, name), time_ns / 1e9)
            if run.blackout_bound_ns is not None:
                bounds.add_metric(labels, run.blackout_bound_ns / 1e9)
            verdicts.add_metric(
                labels, {str(x): x is run.verdict for x in Verdict}
            )
        yield blackouts
        yield bounds
        yield phases
        yield arcs
        yield verdicts


def _labels(run: Run, suffix: str = "") -> tuple[str, ...]:
    name = run.name + suffix
    return run.scenario, run.tree or run.variant, name, run.qemu
