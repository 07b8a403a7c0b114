# SPDX-License-Identifier: GPL-2.0-or-later
"""Bencher Metric Format, for ``bencher run --adapter json --file``.

Format: https://bencher.dev/bmf.json.  The blackout is Bencher's own measure
``latency``, which is in nanoseconds, and so are all others.  Of several runs
the value is the median, and the bounds are the shortest and the longest; a
time that was read from two clocks has its own bounds.
"""

from __future__ import annotations

import json
import re
from statistics import median

from vfio_p2p.report.document import Document
from vfio_p2p.report.exports.figures import MeasuredTree, measured
from vfio_p2p.report.spread import BLACKOUT

LATENCY = "latency"


def render(document: Document) -> str:
    """Render the figures of runs that have passed.

    :param document: The document.
    """
    found = {
        each.name: {
            measure(name): _metric(each, name) for name in each.times_ns
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


def _metric(each: MeasuredTree, name: str) -> dict[str, float]:
    found: dict[str, float] = {"value": median(each.times_ns[name])}
    if whole := each.range_ns(name):
        found |= dict(zip(("lower_value", "upper_value"), whole, strict=True))
    return found
