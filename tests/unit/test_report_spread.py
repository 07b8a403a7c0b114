# SPDX-License-Identifier: GPL-2.0-or-later
"""Many measured runs: how their times spread, and which stand out."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.formats import render
from vfio_p2p.report.groups import grouped
from vfio_p2p.report.prometheus import Metrics
from vfio_p2p.report.run import BlackoutPart, Lane, Move, Run
from vfio_p2p.report.spread import Outlier, Spread, outliers, spreads
from vfio_p2p.side import Side

MS = 10**6


def measured(number: int, stop_ms: int, load_ms: int = 10) -> Run:
    """A recorded migration with two phases."""
    whole_ns = (stop_ms + load_ms) * MS
    return Run(
        variant="logs",
        scenario="logs of real hosts",
        seed=None,
        verdict=Verdict.PASS,
        summary="migrated",
        exact=False,
        bundle=f"out/migration-{number:06}",
        blackout_ns=whole_ns,
        zero_ns=10**18,
        phases=(
            BlackoutPart(
                side=Side.SOURCE, name="stop-arcs", start_ns=0,
                end_ns=stop_ms * MS,
            ),
            BlackoutPart(
                side=Side.DESTINATION, name="device-data-loaded",
                start_ns=stop_ms * MS,
                end_ns=whole_ns,
            ),
        ),
        lanes=(
            Lane(
                side=Side.SOURCE,
                device="vf0",
                arcs=(
                    Move(
                        start_ns=0, end_ns=3 * MS, before="PRE_COPY",
                        requested="PRE_COPY_P2P", reached="PRE_COPY_P2P",
                    ),
                ),
            ),
        ),
    )  # fmt: skip


def spread_of(runs: Sequence[Run]) -> dict[str, Spread]:
    (group,) = grouped(runs)
    return {x.figure: x for x in spreads(group)}


def test_quantiles_are_times_that_were_measured() -> None:
    found = spread_of([measured(x, x) for x in range(1, 101)])
    assert found["blackout"] == Spread(
        "blackout", 100, (60 * MS, 100 * MS, 109 * MS), 110 * MS
    )
    assert found["stop-arcs"].longest_ns == 100 * MS
    assert found["longest P2P arc"].quantiles_ns[0] == 3 * MS


def test_few_runs_do_not_tell_the_slowest() -> None:
    nine = spread_of([measured(x, x) for x in range(1, 10)])
    assert nine["blackout"].quantiles_ns == (15 * MS, None, None)
    ten = spread_of([measured(x, x) for x in range(1, 11)])
    assert ten["blackout"].quantiles_ns == (15 * MS, 19 * MS, None)


def test_a_run_without_a_blackout_is_not_counted() -> None:
    runs = [measured(x, 5) for x in range(3)]
    runs.append(Run(
        variant="logs", scenario="logs of real hosts", seed=None,
        verdict=Verdict.INCONCLUSIVE, summary="failed", exact=False,
    ))  # fmt: skip
    assert spread_of(runs)["blackout"].runs == 3


def found_outliers(runs: Sequence[Run]) -> list[Outlier]:
    (group,) = grouped(runs)
    return list(outliers(group))


def test_a_run_that_stands_out() -> None:
    runs = [measured(x, 100 + x) for x in range(20)]
    runs.append(measured(20, 110, load_ms=400))
    (found,) = found_outliers(runs)
    assert found.name == "migration-000020"
    assert found.more_ns == 390 * MS
    assert (found.phase, found.phase_more_ns) == (
        "device-data-loaded", 390 * MS,
    )  # fmt: skip


def test_what_is_regular_does_not_stand_out() -> None:
    assert not found_outliers([measured(x, 100 + x * x) for x in range(20)])
    # Where all are alike, a little more is no matter.
    same = [measured(x, 100) for x in range(20)]
    assert not found_outliers([*same, measured(20, 105)])
    # Too few to tell.
    assert not found_outliers([*same[:6], measured(20, 900)])


def test_reports_show_them() -> None:
    runs = [measured(x, 100 + x) for x in range(20)]
    document = Document.of((*runs, measured(20, 110, load_ms=400)))
    for name in ("text", "table", "html"):
        report = render(name, document)
        assert "Times over many runs" in report
        assert "migration-000020 stands out" in report
    assert "120.000" in render("table", document)
    few = Document.of(runs[:7])
    assert "many runs" not in render("table", few)


def test_metrics() -> None:
    metrics = Metrics()
    metrics.add(measured(1, 5), 'web "1"\n', 1e9)
    metrics.add(measured(2, 15), 'web "1"\n', 1e9 + 1)
    found = {
        (x.name, x.labels.get("verdict") or x.labels.get("device")): x
        for family in text_string_to_metric_families(
            metrics.render().decode()
        )
        for x in family.samples
    }
    passed = found["vfio_p2p_migrations_total", "pass"]
    assert passed.value == 2
    assert passed.labels["guest"] == 'web "1"\n'
    assert found["vfio_p2p_migrations_total", "fail"].value == 0
    last = "vfio_p2p_last_migration"
    assert found[f"{last}_blackout_seconds", None].value == 0.025
    assert found[f"{last}_p2p_arc_seconds", "vf0"].value == 0.003
    assert found[f"{last}_end_timestamp_seconds", None].value == 1e9 + 1
    # QMP was not asked for its figure.
    assert (f"{last}_qmp_downtime_seconds", None) not in found


def test_metrics_before_the_first_migration() -> None:
    text = Metrics().render().decode()
    assert 'verdict="pass"} 0.0' in text
    assert "last_migration" not in text
