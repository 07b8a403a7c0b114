# SPDX-License-Identifier: GPL-2.0-or-later
"""What the history keeps of a run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from vfio_p2p.bundle.provenance import HostProvenance
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.downtime.logs import HostRun, log_files
from vfio_p2p.downtime.metrics import metrics
from vfio_p2p.history.database import TESTBED, Entry, Metric
from vfio_p2p.verdict.reading import RunReading, read_run

# What differs from run to run on the same machines.
_PASSING = ("load", "clock")


def _lasting(value: Any) -> Any:
    """Return a provenance without what is of one run alone."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {
            key: _lasting(each)
            for key, each in value.items()
            if key not in _PASSING
        }
    return value


def entry_of(
    bundle: Bundle,
    *,
    run: RunReading | None = None,
    qemu_revision: str,
    qemu_revision_s: int | None,
    project_revision: str,
    recorded_s: int,
) -> Entry:
    """Make the entry for a bundle.

    :param bundle: The bundle.
    :param run: The reading of this bundle, if the caller has one already.
    :param qemu_revision: See `Entry`.
    :param qemu_revision_s: See `Entry`.
    :param project_revision: See `Entry`.
    :param recorded_s: See `Entry`.
    :raise BundleError: When the bundle's scenario is damaged.
    :raise UnevenError: When its phases do not add up to its blackout.
    """
    if run is None:
        run = read_run(bundle)
    inputs = bundle.manifest.inputs
    host = TESTBED
    if isinstance(inputs.place, HostProvenance):
        host = inputs.place.name
        testbed = _lasting(inputs.place)
    else:
        # The arguments hold the seed, and otherwise only what the harness
        # sets.  Entries of 0.1.0 do not name their place, which was the
        # sealed one.
        testbed = {
            key: () if key == "arguments" else value
            for key, value in msgspec.to_builtins(inputs.place).items()
            if (key, value) != ("place", "sealed")
        }
    return Entry(
        recorded_s=recorded_s,
        digest=bundle.digest,
        qemu_revision=qemu_revision,
        qemu_revision_s=qemu_revision_s,
        qemu_version=inputs.version,
        variant=inputs.variant,
        build=" to ".join(
            dict.fromkeys((inputs.source.build, inputs.destination.build))
        ),
        project_revision=project_revision,
        scenario=bundle.scenario.name,
        scenario_digest=inputs.scenario,
        seed=inputs.seed,
        host=host,
        testbed=hashlib.sha256(
            msgspec.json.encode(testbed, order="sorted")
        ).hexdigest(),
        metrics=tuple(
            Metric(name, value_ns, "ns")
            for name, value_ns in metrics(run.breakdown).items()
        ),
    )


def entry_of_logs(
    path: Path,
    host: HostRun,
    *,
    names: tuple[str, str, str],
    qemu_revision: str,
    project_revision: str,
    recorded_s: int,
) -> Entry:
    """Make the entry for the logs of a run, which say nothing of its seed.

    :param path: The log, or the folder with the logs.
    :param host: The reading of the logs.
    :param names: What stands for the variant, the scenario and the version of
        QEMU.
    :param qemu_revision: See `Entry`.
    :param project_revision: See `Entry`.
    :param recorded_s: See `Entry`.
    """
    digest = hashlib.sha256()
    files = log_files(path)
    for file in filter(None, (files.source, files.destination)):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        digest.update(b"\0")
    variant, scenario, version = names
    return Entry(
        recorded_s=recorded_s,
        digest=digest.hexdigest(),
        qemu_revision=qemu_revision,
        qemu_revision_s=None,
        qemu_version=version,
        variant=variant,
        build="",
        project_revision=project_revision,
        scenario=scenario,
        scenario_digest="",
        seed=0,
        host="",
        testbed="",
        metrics=tuple(
            Metric(name, value_ns, "ns")
            for name, value_ns in metrics(host.sample.breakdown).items()
        ),
    )
