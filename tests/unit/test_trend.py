# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics over revisions, in 79 columns."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import median

import pytest
from histories import MS, entries, entry
from vfio_p2p.history.database import Entry, Metric
from vfio_p2p.history.trend import trends
from vfio_p2p.report import history as report

RISE = [300 * MS] * 7 + [303 * MS] * 6


def test_the_revision_that_brought_it() -> None:
    (trend,) = trends(entries(RISE), "blackout")
    (shift,) = trend.shifts
    assert shift.point.entry.qemu_revision == "0007"
    assert shift.causes == (("QEMU", "0006", "0007"),)
    assert shift.change.difference == 3 * MS
    assert shift.change.percent == 1


def test_commits_count_in_their_own_order() -> None:
    shuffled = entries(RISE)[::2] + entries(RISE)[1::2]
    (trend,) = trends(shuffled, "blackout")
    labels = [x.entry.qemu_revision for x in trend.points]
    assert labels == sorted(labels)


def test_a_known_order_counts_for_more_than_times() -> None:
    made = entries([1, 2, 3, 4])
    (trend,) = trends(made, "blackout", order=["0002", "0000", "x"])
    assert [x.value for x in trend.points] == [3, 1, 2, 4]


def test_the_seeds_of_a_revision_are_one_point() -> None:
    made = [
        replace(
            x,
            seed=seed,
            digest=f"{x.digest}-{seed}",
            metrics=(Metric("blackout", value, "ns"),),
        )
        for x in entries([0] * 3)
        for seed, value in ((1, 10), (2, 40), (3, 11))
    ]
    (trend,) = trends(made, "blackout")
    assert [(x.value, x.count) for x in trend.points] == [
        (median((10, 40, 11)), 3)
    ] * 3


def test_incomparable_results_are_kept_apart() -> None:
    one = entry()
    others: list[Entry] = [
        replace(one, scenario="four-devices"),
        replace(one, scenario_digest="another"),
        replace(one, variant="base"),
        replace(one, host="hardware"),
    ]
    assert len(trends([one, *others], "blackout")) == 5
    assert trends([one], "heartbeat") == []


def test_the_project_may_be_to_blame() -> None:
    made = entries(RISE)
    made = [
        replace(
            x,
            qemu_revision="c0ffee",
            build="b",
            qemu_revision_s=None,
            recorded_s=1_700_000_000 + number,
            project_revision="old" if number < 7 else "new",
            digest=str(number),
            testbed=str(number),
        )
        for number, x in enumerate(made)
    ]
    (trend,) = trends(made, "blackout")
    (shift,) = trend.shifts
    assert ("project", "old", "new") in shift.causes
    assert "QEMU" not in [name for name, _, _ in shift.causes]


def test_a_plot() -> None:
    (trend,) = trends(entries(RISE), "blackout")
    lines = report.plot(trend).splitlines()
    assert lines[0] == "blackout of two-devices, stock, testbed"
    assert lines[1] == (
        f"  303.000 ms|{'':28}" + "   ".join("*" * 6)
    )
    assert lines[10] == "  300.000 ms|" + "   ".join("*" * 7)
    assert lines[11] == f"{'':12}+{'-' * 28}^{'-' * 37}"
    assert lines[12].strip() == "0000 to 000c, 13 points"
    assert lines[13:] == [
        "^ 0007: 300.000 ms to 303.000 ms, +3.000 ms (+1.00 %)",
        "  certainty 99.5 % (p = 0.005); what differs from the point "
        "before:",
        "    QEMU: 0006 to 0007",
    ]


def test_a_change_that_is_beyond_doubt_has_no_more_digits() -> None:
    """A chance of 0 would be too much said."""
    (trend,) = trends(entries([300 * MS] * 200 + [303 * MS] * 200), "blackout")
    assert report.plot(trend).splitlines()[-2] == (
        "  certainty above 99.9 % (p < 0.001); what differs from the point "
        "before:"
    )


def test_nothing_exceeds_79_columns() -> None:
    values = [300 * MS + (x * 7919) % MS for x in range(200)]
    values += [x + 9 * MS for x in values]
    made = [
        replace(x, variant="v" * 50, scenario="s" * 15, digest=x.digest)
        for x in entries(values)
    ]
    (trend,) = trends(made, "blackout")
    shown = report.plot(trend).splitlines()[1:]
    listed = list(report.listing(made, "m" * 99))
    assert max(map(len, shown + listed)) == 79
    assert sum(line.count("*") for line in shown) > 66


def test_names_from_bundles_are_escaped() -> None:
    evil = replace(entry(), variant="\x1b[2J", scenario="a\nb")
    (trend,) = trends([evil], "blackout")
    text = report.plot(trend) + "\n".join(
        report.listing([evil], "blackout")
    )
    assert "\x1b" not in text
    assert "a\nb" not in text


@pytest.mark.parametrize("variants", [[], ["a"], ["a", "\x9b\u202e", "c"]])
def test_json_is_one_ascii_document(variants: list[str]) -> None:
    made = [replace(entry(), variant=x) for x in variants]
    text = "\n".join(report.as_json(made))
    assert text.isascii()
    document = json.loads(text)
    assert [x["variant"] for x in document["results"]] == variants
    # As the commands print all other documents.
    if made:
        assert text == json.dumps(document, indent=2)


def test_json() -> None:
    document = json.loads("\n".join(report.as_json([entry()])))
    assert document["format"] == 1
    (result,) = document["results"]
    assert result["qemu_revision"] == "c0ffee"
    assert result["metrics"]["blackout"] == {
        "value": 300 * MS,
        "unit": "ns",
    }
