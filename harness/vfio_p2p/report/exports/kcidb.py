# SPDX-License-Identifier: GPL-2.0-or-later
"""KCIDB's format 5.3, for a collector that takes other subjects than Linux.

Format: kcidb_io/schema/v05_03.py of https://github.com/kernelci/kcidb-io.
The source with its patches is a checkout, each QEMU that was run is a build,
and each run is a test, whose number is the blackout in seconds.  A run's own
digest is its identity, so that an object that is sent twice is one object.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run
from vfio_p2p.trace import printable

_VERSION = {"major": 5, "minor": 3}
_ORIGIN = "vfio_p2p"
# KCIDB describes ERROR as "the status of the tested code is unknown", and MISS
# as a failure in the test harness.
_STATUS = {
    Verdict.PASS: "PASS",
    Verdict.FAIL: "FAIL",
    Verdict.SKIP: "SKIP",
    Verdict.INCONCLUSIVE: "ERROR",
    Verdict.ERROR: "MISS",
}
_MOST_CHARACTERS = 16384


def render(document: Document) -> str:
    """Render all runs.

    :param document: The document.
    """
    checkouts: dict[str, dict[str, Any]] = {}
    builds: dict[str, dict[str, Any]] = {}
    tests = []
    seen: Counter[str] = Counter()
    for run in document.runs:
        checkout = _checkout(run)
        checkouts.setdefault(checkout["id"], checkout)
        build = _build(run, checkout["id"])
        builds.setdefault(build["id"], build)
        test = _test(run, build["id"])
        seen[test["id"]] += 1
        if seen[test["id"]] > 1:
            test["id"] += f"-{seen[test['id']]}"
        tests.append(test)
    found = {
        "version": _VERSION,
        "checkouts": [*checkouts.values()],
        "builds": [*builds.values()],
        "tests": tests,
    }
    return json.dumps(found, indent=1) + "\n"


def _id(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode(errors="replace"))
    return f"{_ORIGIN}:{digest.hexdigest()[:40]}"


def _source(run: Run) -> ProgramInput | None:
    return run.inputs.source if run.inputs else None


def _checkout(run: Run) -> dict[str, Any]:
    program = _source(run)
    made_of = program.made_of if program else None
    if made_of is None:
        return {
            "id": _id("checkout", run.qemu),
            "origin": _ORIGIN,
            "tree_name": "qemu",
            "misc": {"version": printable(run.qemu)},
        }
    hashes = [patch.sha256 for patch in made_of.patches]
    return {
        "id": _id("checkout", made_of.source, *hashes),
        "origin": _ORIGIN,
        "tree_name": "qemu",
        "patchset_hash": hashlib.sha256(
            "".join(f"{x}\n" for x in hashes).encode()
        ).hexdigest()
        if hashes
        else "",
        "valid": True,
        "misc": {
            "version": made_of.version,
            "source_sha256": made_of.source,
            "patches": [printable(x.name) for x in made_of.patches],
        },
    }


def _build(run: Run, checkout: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": _id("build", checkout, run.qemu, run.variant),
        "origin": _ORIGIN,
        "checkout_id": checkout,
        "architecture": "x86_64",
        "config_name": printable(run.variant),
        "status": "PASS",
        "misc": {"qemu": printable(run.qemu)},
    }
    if program := _source(run):
        found["id"] = _id("build", checkout, program.sha256, run.variant)
        found["misc"]["sha256"] = program.sha256
        if program.made_of:
            found["compiler"] = printable(program.made_of.compiler)
    return found


def _test(run: Run, build: str) -> dict[str, Any]:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", run.scenario)
    found: dict[str, Any] = {
        "id": _id("test", build, run.scenario, run.name, run.digest),
        "origin": _ORIGIN,
        "build_id": build,
        "path": f"{_ORIGIN}.{name}",
        "status": _STATUS[run.verdict],
        "log_excerpt": _log(run)[:_MOST_CHARACTERS],
        "misc": {
            "run": printable(run.name),
            "tree": printable(run.tree),
            "digest": printable(run.digest),
            "exact": run.exact,
        },
    }
    if run.blackout_ns is not None:
        found["number"] = {
            "value": run.blackout_ns / 1e9,
            "unit": "s",
            "prefix": "metric",
        }
    if run.blackout_bound_ns is not None:
        found["misc"]["blackout_bound_s"] = run.blackout_bound_ns / 1e9
    return found


def _log(run: Run) -> str:
    lines = [
        run.summary,
        *(f"broken: {x.rule}: {x.message}" for x in run.findings),
        *run.notes,
    ]
    return "\n".join(map(printable, lines))
