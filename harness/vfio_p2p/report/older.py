# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of format 1, made into ones of format 2.

Format 1 had four kinds of report, one for each way to validate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from vfio_p2p.bundle.manifest import inputs_from

_Raw = dict[str, Any]

_KIND = "vfio-p2p report"


def upgraded(raw: _Raw) -> _Raw:
    """Convert a report of format 1.

    Only what the formats do not share is checked here: whoever decodes the
    result checks the rest.

    :param raw: The decoded JSON object.
    :raise ValueError: When it is of no kind that format 1 had.
    """
    kind = raw.get("kind")
    convert = _KINDS.get(kind) if isinstance(kind, str) else None
    if convert is None:
        raise ValueError(f"it is a {kind!r}")
    return {**convert(raw), "format": 2, "kind": _KIND}


def _report(raw: _Raw) -> _Raw:
    """A report of runs: 'validate', and 'report --format json'."""
    return {**raw, "runs": _runs(raw)}


def _mutants(raw: _Raw) -> _Raw:
    """A report of 'validate --mutants'."""
    return raw


def _followups(raw: _Raw) -> _Raw:
    """A report of 'validate --followups'."""
    trials = msgspec.convert(raw.get("trials"), list[_Raw])
    return {**raw, "followups": [_followup(trial) for trial in trials]}


def _followup(trial: _Raw) -> _Raw:
    # A trial can only pass in this way; otherwise its detail tells more.
    if trial.get("verdict") != "pass":
        return trial
    without = "the defect" if trial.get("fixes") else "no defect"
    return {**trial, "without": without, "mended": "pass"}


def _everything(raw: _Raw) -> _Raw:
    """A report of 'validate --all', which contained reports."""
    trees = _object(raw, "trees")
    inner = {name: _object(trees, name) for name in trees}
    mutants = raw.get("mutants") or {}
    found = {
        "verdict": raw.get("verdict"),
        "unproven": raw.get("unproven", ()),
        "runs": [
            {**run, "tree": name}
            for name, tree in inner.items()
            for run in _runs(tree)
        ],
        "trees": [
            {
                "name": name,
                **{
                    key: tree[key]
                    for key in ("qemu", "base", "origin")
                    if key in tree
                },
            }
            for name, tree in inner.items()
        ],
    }
    for key in ("qemu", "base", "origin"):
        texts = [tree[key] for tree in inner.values() if tree.get(key)]
        found[key] = ", ".join(dict.fromkeys(map(str, texts)))
    if mutants:
        found["mutants"] = msgspec.convert(mutants, _Raw).get("mutants", ())
    return found


_KINDS: dict[str, Callable[[_Raw], _Raw]] = {
    _KIND: _report,
    "vfio-p2p mutants": _mutants,
    "vfio-p2p follow-ups": _followups,
    "vfio-p2p full report": _everything,
}


def _runs(raw: _Raw) -> list[_Raw]:
    return [
        _run(run) for run in msgspec.convert(raw.get("runs"), list[_Raw])
    ]


def _run(run: _Raw) -> _Raw:
    if not isinstance(run.get("inputs"), dict):
        return run
    inputs = _inputs(run["inputs"])
    return {**run, "inputs": inputs, "qemu": inputs["source"]["version"]}


def _inputs(raw: _Raw) -> _Raw:
    """The inputs of a run, as a manifest has them now."""
    found: _Raw = msgspec.to_builtins(inputs_from(raw))
    return found


def _object(raw: _Raw, name: str) -> _Raw:
    return msgspec.convert(raw.get(name), _Raw)
