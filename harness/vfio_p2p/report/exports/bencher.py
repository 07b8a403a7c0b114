# SPDX-License-Identifier: GPL-2.0-or-later
"""Bencher Metric Format, for ``bencher run --adapter json --file``.

Format: https://bencher.dev/bmf.json.  The blackout is Bencher's own measure
``latency``, which is in nanoseconds, and so are all others.  Of several runs
the value is the median, and the bounds are the shortest and the longest.
"""

from __future__ import annotations

import json
import re
from statistics import median

from vfio_p2p.report.document import Document
from vfio_p2p.report.exports.figures import measured
from vfio_p2p.report.spread import BLACKOUT

LATENCY = "latency"


def render(document: Document) -> str:
    """Render the figures of runs that have passed.

    :param document: The document.
    """
    found = {
        each.name: {
            measure(name): _metric(times)
            for name, times in each.times_ns.items()
        }
        for each in measured(document)
    }
    return json.dumps(found, indent=1) + "\n"


def measure(name: str) -> str:
    """Return the slug of a measure.

    :param name: The name of the figure.
    """
    if name == BLACKOUT:
        return LATENCY
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _metric(times_ns: list[int]) -> dict[str, float]:
    found: dict[str, float] = {"value": median(times_ns)}
    if len(times_ns) > 1:
        found |= {"lower_value": min(times_ns), "upper_value": max(times_ns)}
    return found
