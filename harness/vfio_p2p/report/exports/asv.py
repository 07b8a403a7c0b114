# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of results that airspeed velocity makes a site of.

Format: asv 0.6, docs/source/dev.rst and asv/results.py of
https://github.com/airspeed-velocity/asv, version 2 of its results.  A place is
a machine, a tree is an environment, and a metric of a scenario is a benchmark
in seconds.  asv knows commits only, so results without one are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

from vfio_p2p.history.database import Entry

_VERSION = 2
_COMMIT_DIGITS = 8
_COLUMNS = ("result", "params", "version")


def files(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yield the path and the content of each file.

    :param entries: Results; those without a commit are left out.
    """
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        if entry.qemu_revision:
            key = entry.place, entry.variant, entry.qemu_revision
            groups.setdefault(key, []).append(entry)
    names: dict[str, str] = {}
    for (place, variant, commit), group in groups.items():
        found = _values(group)
        names |= {_name(*key): " ".join(key) for key in found}
        machine, tree = _word(place), _word(variant)
        yield (
            f"{machine}/{commit[:_COMMIT_DIGITS]}-{tree}.json",
            _encoded(
                {
                    "version": _VERSION,
                    "commit_hash": commit,
                    "date": (group[0].qemu_revision_s or 0) * 1000,
                    "env_name": tree,
                    "python": "",
                    "params": {"machine": machine, "tree": variant},
                    "requirements": {},
                    "env_vars": {},
                    "durations": {},
                    "result_columns": _COLUMNS,
                    "results": {
                        _name(*key): [[median(values) / 1e9], [], "1"]
                        for key, values in found.items()
                    },
                }
            ),
        )
    for place in dict.fromkeys(place for place, _, _ in groups):
        machine = _word(place)
        yield (
            f"{machine}/machine.json",
            _encoded({"version": 1, "machine": machine}),
        )
    if names:
        benchmarks = {x: _benchmark(x, code) for x, code in names.items()}
        yield "benchmarks.json", _encoded({**benchmarks, "version": 2})


def _values(group: list[Entry]) -> dict[tuple[str, str], list[int]]:
    """Return the times of each scenario's metrics, in nanoseconds."""
    found: dict[tuple[str, str], list[int]] = {}
    for entry in group:
        for metric in entry.metrics:
            if metric.unit == "ns":
                key = entry.scenario, metric.name
                found.setdefault(key, []).append(metric.value)
    return found


def _name(scenario: str, metric: str) -> str:
    return f"{_word(scenario)}.{_word(metric)}"


def _benchmark(name: str, code: str) -> dict[str, Any]:
    return {
        "name": name,
        "code": code,
        "type": "track",
        "unit": "seconds",
        "version": "1",
        "params": [],
        "param_names": [],
        "timeout": 0,
    }


def _word(text: str) -> str:
    """Return a text as a part of a path or of a benchmark's name."""
    return re.sub(r"[^A-Za-z0-9_+-]+", "-", text).strip("-") or "unnamed"


def _encoded(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
