# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundles of invented runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qemu_log import FakeQemu, boot, devices, migrate, receive
from vfio_p2p.bundle.manifest import (
    DIGEST,
    MANIFEST,
    RESULT,
    SCENARIO,
    Inputs,
    ProgramInput,
    clock_file,
    device_log,
    device_log_of,
    stderr_file,
    trace_file,
    transcript_file,
)
from vfio_p2p.bundle.provenance import Provenance, SealedProvenance
from vfio_p2p.bundle.write import seal, writing
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Outcome, Scenario
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import side_of
from vfio_p2p.tells import Tells

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
SEALED = SealedProvenance(
    image={"vmlinuz": "2" * 64},
    outer="QEMU 7.2",
    outer_sha256="3" * 64,
    arguments=("-smp", "1"),
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
    """Make a source that behaves well."""
    names = devices(*(f"src{number}" for number in range(count)))
    return migrate(FakeQemu(names, series=series))


def good_destination(*, series: bool = True, count: int = 2) -> FakeQemu:
    """Make a destination that behaves well."""
    names = devices(*(f"dst{number}" for number in range(count)))
    return receive(FakeQemu(names, series=series))


def without_stop() -> FakeQemu:
    """Make a source that is left in STOP_COPY."""
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.status("completed")
    qemu.cleanup(stop=False)
    return qemu


def make_bundle(
    path: Path,
    *,
    result: Result = MIGRATED,
    scenario: Scenario | None = None,
    variant: str = "patched",
    source: FakeQemu | bytes | None = None,
    destination: FakeQemu | bytes | None = None,
    logs: Mapping[str, bytes | None] | None = None,
    qemus: Mapping[str, FakeQemu | bytes] = {},
    printed: Mapping[str, bytes] = {},
    seed: int = 42,
    build: str = "0" * 32,
    version: str = "10.0.99",
    program: ProgramInput | None = None,
    to: ProgramInput | None = None,
    place: Provenance = SEALED,
    logs_by_side: bool = False,
    tells: Tells = Tells.LOG,
    transcripts: Mapping[str, bytes] = {},
    clocks: Mapping[str, bytes] = {},
) -> Path:
    """Make a whole bundle; parts that are not given are normal.

    :param program: The QEMU, in place of an invented one.
    :param to: The destination's QEMU, if it is another one.
    :param logs_by_side: Whether each side has the logs of its devices in a
        folder of its own, as at a place of real devices.
    :param logs: Of devices, to replace what they would say; None: no log.
    :param qemus: All that are not as usual, or not usual, by name.
    :param printed: What QEMUs print, by name.
    :param transcripts: What QEMUs said over QMP, by name.
    :param clocks: The offsets of traces' clocks, by name.
    """
    scenario = scenario or load("two-devices")
    usual = {"source": good_source(), "destination": good_destination()}
    given = {"source": source, "destination": destination, **qemus}
    traces = {}
    said: dict[str, bytes | None] = {}
    owners = {}
    for name, what in given.items():
        qemu = what if isinstance(what, FakeQemu) else usual.get(name)
        traces[trace_file(name)] = (
            what if isinstance(what, bytes) else usual[name].log()
            if what is None else what.log()
        )
        for device, log in (qemu.device_logs() if qemu else {}).items():
            # Several users, one after another, share one header.
            owners[device] = side_of(name)
            before = said.get(device)
            said[device] = (
                before + log.partition(b"\n")[2] if before else log
            )
    said |= logs or {}
    program = program or ProgramInput(
        variant=variant,
        build=build,
        version=version,
        sha256="0" * 64,
        libraries={"libc.so.6": "1" * 64},
        tells=tells,
    )
    with writing(path) as partial:
        files = {
            **traces,
            **{
                device_log_of(owners[device], device)
                if logs_by_side
                else device_log(device): log
                for device, log in said.items()
                if log is not None
            },
            **{stderr_file(name): x for name, x in printed.items()},
            **{transcript_file(name): x for name, x in transcripts.items()},
            **{clock_file(name): x for name, x in clocks.items()},
            SCENARIO: scenario.to_json(),
            RESULT: result.to_json(),
            "console.txt": b"Linux\n",
        }
        for name, data in files.items():
            (partial / name).parent.mkdir(exist_ok=True, parents=True)
            (partial / name).write_bytes(data)
        seal(
            partial,
            Inputs(
                source=program,
                destination=to or program,
                scenario=scenario.digest,
                seed=seed,
                place=place,
            ),
        )
    return path
