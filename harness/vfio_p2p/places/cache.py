# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that were made already.

At an exact place a run is a function of its inputs, so that one run is
enough.  The cache holds bundles by the hash of their inputs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import msgspec

from vfio_p2p.bundle.manifest import (
    FORMAT,
    MANIFEST,
    OWN,
    Inputs,
    trace_file,
)
from vfio_p2p.bundle.provenance import Provenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import writing
from vfio_p2p.errors import BundleError, TestbedError
from vfio_p2p.foreign import format_in
from vfio_p2p.machine.files import (
    copy_files,
    exclusive,
    publishing,
    room_for,
    using,
)
from vfio_p2p.machine.temporary import PREFIX, sweep
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.job import Job
from vfio_p2p.places.place import LIMIT_S, ExactPlace, Place
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.side import Side


class CachedPlace:
    """An exact place that does not run the same job twice.

    :param place: The place.
    :param rerun: Run each job again, and require the same bundle.
    :raise ValueError: When the place is not exact.
    """

    def __init__(self, place: Place, *, rerun: bool = False) -> None:
        if not isinstance(place, ExactPlace):
            raise ValueError(f"two runs at {place.name} may differ")
        self._place = place
        self._rerun = rerun

    @property
    def name(self) -> str:
        """The name of the place."""
        return self._place.name

    @property
    def exact(self) -> bool:
        """True."""
        return True

    @property
    def capacity(self) -> int | None:
        """The capacity of the place."""
        return self._place.capacity

    def check(self) -> None:
        """See that the place can be used; see `Place.check`."""
        self._place.check()

    def prepare(
        self, progress: Progress, scenarios: Iterable[Scenario]
    ) -> None:
        """Make the place ready; see `Place.prepare`."""
        self._place.prepare(progress, scenarios)

    def refusal(self, scenario: Scenario) -> str:
        """Say what the place says; see `Place.refusal`."""
        return self._place.refusal(scenario)

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Hold what the place holds; see `Place.opened`.

        What killed processes have left in the cache is removed.
        """
        results = cache_dir() / "results"
        if left := {x.parent for x in results.glob(f"*/.{PREFIX}*")}:
            with exclusive(results / "lock"):
                for folder in left:
                    sweep(folder)
        return self._place.opened()

    def provenance(self, job: Job) -> Provenance:
        """Tell what the place contributes; see `ExactPlace`."""
        return self._place.provenance(job)

    async def run(
        self, job: Job, out: Path, *, limit_s: float = LIMIT_S
    ) -> Bundle:
        """Run a job, or copy the bundle of an earlier run; see `Place.run`.

        :raise TestbedError: Also when the bundle of a rerun differs from
            that of the earlier run.
        """
        inputs = job.inputs(self.provenance(job))
        with using(_path(inputs)):
            known = find(inputs)
            if known and not self._rerun:
                size_bytes = _size_bytes(known)
                with room_for(out, 2 * size_bytes), writing(out) as partial:
                    copy_files(known.path, partial)
                return open_bundle(out)
        made = await self._place.run(job, out, limit_s=limit_s)
        if known:
            check_same(known, made)
        else:
            keep(made)
        return made


def find(inputs: Inputs) -> Bundle | None:
    """Find the bundle of an earlier run.

    A bundle that was damaged since, that has an older format, or that is of
    another run, is not found.

    :param inputs: Everything that determines the run.
    """
    path = _path(inputs)
    try:
        bundle = open_bundle(path)
    except BundleError:
        return None
    return bundle if _path(bundle.manifest.inputs) == path else None


def keep(bundle: Bundle) -> None:
    """Keep the bundle of a run.

    One that a newer vfio-p2p has kept stays as it is.

    :param bundle: The bundle.
    :raise NoSpaceError: When the disk is too full.
    """
    path = _path(bundle.manifest.inputs)
    with suppress(OSError):
        if format_in((path / MANIFEST).read_bytes()) > FORMAT:
            return
    results = cache_dir() / "results"
    # Nobody holds the lock for longer than such a copy takes.
    with (
        exclusive(results / "lock"),
        room_for(path, 2 * _size_bytes(bundle)),
        publishing(path) as partial,
    ):
        copy_files(bundle.path, partial)


def check_same(known: Bundle, made: Bundle) -> None:
    """Check that a repeated run has left the same bundle.

    :param known: The bundle of the earlier run.
    :param made: The bundle of the new run.
    :raise TestbedError: When they differ; says where the difference begins.
    """
    if known.manifest.files != made.manifest.files:
        raise TestbedError(
            "the bundle of the repeated run differs: "
            + _first_difference(known.files, made.files),
            f"A testbed that is not exact is a bug. Compare {known.path} "
            f"with {made.path}, and report it.",
        )


def _path(inputs: Inputs) -> Path:
    identity = msgspec.json.encode(inputs, order="sorted")
    name = hashlib.sha256(identity).hexdigest()
    return cache_dir() / "results" / name[:2] / name


def _size_bytes(bundle: Bundle) -> int:
    return sum(map(len, bundle.files.values()))


def _first_difference(
    known: dict[str, bytes], made: dict[str, bytes]
) -> str:
    traces = tuple(trace_file(side) for side in Side)
    others = (known.keys() | made.keys()) - {*traces, *OWN}
    # A difference that concerns QEMU begins in a trace.
    for name in (*traces, *sorted(others)):
        lines = itertools.zip_longest(
            known.get(name, b"").split(b"\n"),
            made.get(name, b"").split(b"\n"),
            fillvalue=b"",
        )
        for number, (then, now) in enumerate(lines, 1):
            if then != now:
                return (
                    f"{name}:{number} was {_shown(then)}, is {_shown(now)}"
                )
    return f"{sorted(known)} were left, now {sorted(made)}"


def _shown(line: bytes) -> str:
    return repr(line.decode(errors="backslashreplace"))
