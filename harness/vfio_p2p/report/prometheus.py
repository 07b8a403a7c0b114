# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of recorded migrations for Prometheus.

The text is in the format that node_exporter's textfile collector reads.  All
times are in seconds, as Prometheus wants them.  A figure that was not measured
is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.p2p import p2p_times
from vfio_p2p.report.run import Run

_NS = 1e9


class Metrics(Collector):
    """What is known of the migrations of one guest."""

    def __init__(self) -> None:
        self._guest = ""
        self._counts = dict.fromkeys(Verdict, 0)
        self._last: Run | None = None
        self._end_s = 0.0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add(self, run: Run, guest: str, end_s: float) -> None:
        """Take a migration.

        :param run: The migration.
        :param guest: The name of the guest; may be empty.
        :param end_s: When it was over, in seconds since 1970.
        """
        self._counts[run.verdict] += 1
        self._last, self._guest, self._end_s = run, guest, end_s

    def render(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the figures; see `Collector`."""
        total = CounterMetricFamily(
            "vfio_p2p_migrations",
            "Migrations that were recorded, by verdict",
            labels=["guest", "verdict"],
        )
        for verdict, count in self._counts.items():
            total.add_metric([self._guest, verdict], count)
        yield total
        if self._last is not None:
            yield from self._gauges(self._last)

    def _gauges(self, last: Run) -> Iterator[Metric]:
        yield self._gauge(
            "end_timestamp",
            "When the last migration was over, since 1970",
            {(): self._end_s},
        )
        if last.blackout_ns is not None:
            yield self._gauge(
                "blackout",
                "How long no device ran in the last migration",
                {(): last.blackout_ns / _NS},
            )
        if last.qmp_downtime_ms is not None:
            yield self._gauge(
                "qmp_downtime",
                "The downtime of the last migration, as QMP reports it",
                {(): last.qmp_downtime_ms / 1e3},
            )
        if last.phases:
            yield self._gauge(
                "phase",
                "How long a phase of the blackout was",
                {
                    (x.name,): (x.end_ns - x.start_ns) / _NS
                    for x in last.phases
                },
                "phase",
            )
        times = p2p_times(last)
        if times:
            # The last of several is the one of the switchover.
            yield self._gauge(
                "p2p_arc",
                "How long a device took into its P2P state",
                {(x.side, x.device): x.arc_ns / _NS for x in times},
                *("side", "device"),
            )

    def _gauge(
        self,
        name: str,
        what: str,
        values: Mapping[tuple[str, ...], float],
        *labels: str,
    ) -> GaugeMetricFamily:
        found = GaugeMetricFamily(
            f"vfio_p2p_last_migration_{name}_seconds",
            what,
            labels=["guest", *labels],
        )
        for rest, value in values.items():
            found.add_metric([self._guest, *rest], value)
        return found
