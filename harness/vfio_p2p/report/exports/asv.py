# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of results that airspeed velocity makes a site of.

Format: asv 0.6, docs/source/dev.rst and asv/results.py of
https://github.com/airspeed-velocity/asv, version 2 of its results.  A place is
a machine, a tree is an environment, and a metric of a scenario is a benchmark
in seconds.  asv knows commits only, so results without one, and those of a
tree with local changes, are left out.  So are those of older versions of a
scenario, which cannot be compared.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

from vfio_p2p.history.database import Entry

_VERSION = 2
_COMMIT_DIGITS = 8
_COLUMNS = ("result", "params", "version")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def files(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yield the path and the content of each file.

    :param entries: Results; those without a commit are left out.
    """
    usable = [x for x in entries if _COMMIT.fullmatch(x.qemu_revision)]
    newest = {
        x.scenario: x.scenario_digest
        for x in sorted(usable, key=lambda x: x.recorded_s)
    }
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in usable:
        if entry.scenario_digest == newest[entry.scenario]:
            key = entry.place, entry.variant, entry.qemu_revision
            groups.setdefault(key, []).append(entry)
    versions: dict[str, str] = {}
    for (place, variant, commit), group in groups.items():
        found = _values(group)
        names = {key: _name(*key) for key in found}
        versions |= {y: newest[x[0]] for x, y in names.items()}
        machine, tree = _word(place), _word(variant)
        yield (
            f"{machine}/{commit[:_COMMIT_DIGITS]}-{tree}.json",
            _encoded(
                {
                    "version": _VERSION,
                    "commit_hash": commit,
                    "date": max(x.qemu_revision_s or 0 for x in group)
                    * 1000,
                    "env_name": tree,
                    "python": "",
                    "params": {"machine": machine, "tree": variant},
                    "requirements": {},
                    "env_vars": {},
                    "durations": {},
                    "result_columns": _COLUMNS,
                    "results": {
                        names[key]: [
                            [median(values) / 1e9],
                            [],
                            versions[names[key]],
                        ]
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
    if versions:
        benchmarks = {x: _benchmark(x, y) for x, y in versions.items()}
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


def _benchmark(name: str, version: str) -> dict[str, Any]:
    return {
        "name": name,
        "code": name,
        "type": "track",
        "unit": "seconds",
        "version": version,
        "params": [],
        "param_names": [],
        "timeout": 0,
    }


def _word(text: str) -> str:
    """Return a text as a part of a path or of a benchmark's name.

    Different texts stay different.
    """
    word = re.sub(r"[^A-Za-z0-9_+-]+", "-", text).strip("-")
    if word == text:
        return word
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    return f"{word}-{digest[:_COMMIT_DIGITS]}".lstrip("-")


def _encoded(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
