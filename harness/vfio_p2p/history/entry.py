# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a bundle goes into the history."""

from __future__ import annotations

import hashlib

import msgspec

from vfio_p2p.bundle.read import Bundle
from vfio_p2p.downtime.metrics import metrics
from vfio_p2p.history.database import Entry, Metric
from vfio_p2p.verdict.reading import RunReading, read_run

# Every bundle there is comes from there.
_HOST = "testbed"


def entry_of(
    bundle: Bundle,
    *,
    run: RunReading | None = None,
    qemu_revision: str,
    qemu_revision_s: int | None,
    project_revision: str,
    recorded_s: int,
) -> Entry:
    """The entry for a bundle; see `Entry` for what it does not know itself.

    :raise BundleError: When it is of a tree that we do not know.
    """
    if run is None:
        run = read_run(bundle)
    inputs = bundle.manifest.inputs
    place = msgspec.to_builtins(inputs.place)
    # The arguments have the seed, and else only what the harness settles.
    # Entries of before there were other places do not name theirs.
    testbed = {
        key: () if key == "arguments" else value
        for key, value in place.items()
        if (key, value) != ("place", "sealed")
    }
    return Entry(
        recorded_s=recorded_s,
        digest=bundle.digest,
        qemu_revision=qemu_revision,
        qemu_revision_s=qemu_revision_s,
        qemu_version=inputs.source.version,
        variant=inputs.source.variant,
        build=inputs.source.build,
        project_revision=project_revision,
        scenario=bundle.scenario.name,
        scenario_digest=inputs.scenario,
        seed=inputs.seed,
        host=_HOST,
        testbed=hashlib.sha256(
            msgspec.json.encode(testbed, order="sorted")
        ).hexdigest(),
        metrics=tuple(
            Metric(name, value_ns, "ns")
            for name, value_ns in metrics(run.breakdown).items()
        ),
    )
