# SPDX-License-Identifier: GPL-2.0-or-later
"""The list that github-action-benchmark takes as ``customSmallerIsBetter``.

Format: https://github.com/benchmark-action/github-action-benchmark.  All
values are milliseconds; of several runs it is the median, and the range is
from the shortest to the longest, with the bounds of times that were read from
two clocks.
"""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from vfio_p2p.report.document import Document
from vfio_p2p.report.exports.figures import MeasuredTree, measured
from vfio_p2p.report.groups import ranges


def render(document: Document) -> str:
    """Render the figures of runs that have passed.

    :param document: The document.
    """
    found = [
        _value(each, name)
        for each in measured(document)
        for name in each.times_ns
    ]
    return json.dumps(found, indent=1) + "\n"


def _value(each: MeasuredTree, name: str) -> dict[str, Any]:
    found = {
        "name": f"{each.name}: {name}",
        "unit": "ms",
        "value": median(each.times_ns[name]) / 1e6,
        "extra": _origin(each),
    }
    if whole := each.range_ns(name):
        found["range"] = f"{whole[0] / 1e6} to {whole[1] / 1e6}"
    return found


def _origin(each: MeasuredTree) -> str:
    seeds = [x.seed for x in each.runs if x.seed is not None]
    told = [each.runs[0].qemu]
    if seeds:
        told.append(f"seed {ranges(seeds)}")
    return ", ".join(filter(None, told))
