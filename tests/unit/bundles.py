# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundles of runs that never were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qemu_log import FakeQemu, devices, migrate, receive

from harness.bundle.manifest import (
    DIGEST,
    MANIFEST,
    RESULT,
    SCENARIO,
    Inputs,
    QemuInput,
    TestbedInput,
    trace_file,
)
from harness.bundle.write import seal, writing
from harness.scenario.load import load
from harness.scenario.model import Outcome, Scenario
from harness.scenario.result import Result

NAMES = (
    DIGEST,
    MANIFEST,
    RESULT,
    SCENARIO,
    trace_file("source"),
    trace_file("destination"),
    "console.txt",
)
MIGRATED = Result(
    outcome=Outcome.MIGRATED,
    exit_states={"source": 0, "destination": 0},
    guest={"source": "postmigrate", "destination": "running"},
    migration={
        "source": ("setup", "active", "device", "completed"),
        "destination": ("setup", "active", "completed"),
    },
    legs=(("source", "destination"),),
    qmp_downtime_ms=20,
    qmp_total_time_ms=300,
)


def source_log(*, series: bool = True, count: int = 2) -> bytes:
    """Trace of a source that does all right."""
    names = devices(*(f"src{number}" for number in range(count)))
    return migrate(FakeQemu(names, series=series)).log()


def destination_log(*, series: bool = True, count: int = 2) -> bytes:
    """Trace of a destination that does all right."""
    names = devices(*(f"dst{number}" for number in range(count)))
    return receive(FakeQemu(names, series=series)).log()


def make_bundle(
    path: Path,
    *,
    result: Result = MIGRATED,
    scenario: Scenario | None = None,
    variant: str = "patched",
    source: bytes | None = None,
    destination: bytes | None = None,
    others: Mapping[str, bytes] = {},
) -> Path:
    """A whole bundle; what is not given is as it should be."""
    scenario = scenario or load("two-devices")
    with writing(path) as partial:
        files = {
            trace_file("source"): source_log() if source is None else source,
            trace_file("destination"): (
                destination_log() if destination is None else destination
            ),
            SCENARIO: scenario.to_json(),
            RESULT: result.to_json(),
            "console.txt": b"Linux\n",
            **others,
        }
        for name, data in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(data)
        seal(
            partial,
            Inputs(
                qemu=QemuInput(
                    variant=variant,
                    build="0" * 32,
                    version="10.0.99",
                    sha256="0" * 64,
                    libraries={"libc.so.6": "1" * 64},
                ),
                scenario=scenario.digest,
                seed=42,
                testbed=TestbedInput(
                    image={"vmlinuz": "2" * 64},
                    outer="QEMU 7.2",
                    outer_sha256="3" * 64,
                    arguments=("-smp", "1"),
                ),
            ),
        )
    return path
