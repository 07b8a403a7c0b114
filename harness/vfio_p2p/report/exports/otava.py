# SPDX-License-Identifier: GPL-2.0-or-later
"""A table of one series, for Apache Otava's importer of CSV.

Format: docs/CSV.md of https://github.com/apache/otava.  Each row is one
combination of revisions, with the median of its runs.  The columns ``time``
and ``commit`` are for Otava's settings ``time_column`` and ``attributes``, and
all others but ``version`` and ``runs`` are metrics, mostly in nanoseconds.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable
from statistics import median

from vfio_p2p.history.database import Entry
from vfio_p2p.history.trend import by_revision
from vfio_p2p.report.history import revision

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HEADS = ("time", "commit", "version", "runs")


def render(entries: Iterable[Entry]) -> str:
    """Render a series.

    A metric that some of the revisions lack is left out, since an empty cell
    would be read as a number.

    :param entries: Its results, at least one.
    """
    groups = by_revision(entries)
    found = [_medians(group) for group in groups]
    names = [
        name for name in found[0] if all(name in other for other in found)
    ]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*_HEADS, *names])
    for group, values in zip(groups, found, strict=True):
        first = group[0]
        at_s = first.qemu_revision_s or first.recorded_s
        table.writerow(
            [
                time.strftime(_TIME, time.gmtime(at_s)),
                revision(first),
                first.qemu_version,
                len(group),
                *(f"{values[name]:.10g}" for name in names),
            ]
        )
    return text.getvalue()


def _medians(group: list[Entry]) -> dict[str, float]:
    """Return the medians of what each result of a revision has measured."""
    values: dict[str, list[int]] = {}
    for entry in group:
        for metric in entry.metrics:
            values.setdefault(metric.name, []).append(metric.value)
    return {
        name: median(each)
        for name, each in values.items()
        if len(each) == len(group)
    }
