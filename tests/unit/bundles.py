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
    device_log,
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
    *map(device_log, ("src0", "src1", "dst0", "dst1")),
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


def good_source(*, series: bool = True, count: int = 2) -> FakeQemu:
    """A source that does all right."""
    names = devices(*(f"src{number}" for number in range(count)))
    return migrate(FakeQemu(names, series=series))


def good_destination(*, series: bool = True, count: int = 2) -> FakeQemu:
    """A destination that does all right."""
    names = devices(*(f"dst{number}" for number in range(count)))
    return receive(FakeQemu(names, series=series))


def make_bundle(
    path: Path,
    *,
    result: Result = MIGRATED,
    scenario: Scenario | None = None,
    variant: str = "patched",
    source: FakeQemu | bytes | None = None,
    destination: FakeQemu | bytes | None = None,
    logs: Mapping[str, bytes | None] | None = None,
    others: Mapping[str, bytes] = {},
    seed: int = 42,
) -> Path:
    """A whole bundle; what is not given is as it should be.

    :param logs: Of devices, to replace what they would say; None: no log.
    """
    scenario = scenario or load("two-devices")
    traces = {}
    said: dict[str, bytes | None] = {}
    for name, given, usual in (
        (trace_file("source"), source, good_source()),
        (trace_file("destination"), destination, good_destination()),
    ):
        qemu = given if isinstance(given, FakeQemu) else usual
        traces[name] = given if isinstance(given, bytes) else qemu.log()
        said |= qemu.device_logs()
    said |= logs or {}
    with writing(path) as partial:
        files = {
            **traces,
            **{
                device_log(device): log
                for device, log in said.items()
                if log is not None
            },
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
                seed=seed,
                testbed=TestbedInput(
                    image={"vmlinuz": "2" * 64},
                    outer="QEMU 7.2",
                    outer_sha256="3" * 64,
                    arguments=("-smp", "1"),
                ),
            ),
        )
    return path
