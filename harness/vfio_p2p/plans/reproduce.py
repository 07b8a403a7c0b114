# SPDX-License-Identifier: GPL-2.0-or-later
"""Repeat the run of a bundle from the inputs that it names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p import resources
from vfio_p2p.bundle.inputs import NONE, Difference, differences
from vfio_p2p.bundle.manifest import Inputs, MadeOf
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import check_replaceable, claimed
from vfio_p2p.devices import Driver
from vfio_p2p.errors import BundleError, HostError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import ExactPlace, Job
from vfio_p2p.places.cache import check_same
from vfio_p2p.plans.setting import OUT, SEALED
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.qemu import Build
from vfio_p2p.series import Patch, Variant

_SOURCE = "source.made_of.source"
_PATCHES = "source.made_of.patches"


@dataclass(frozen=True)
class ReproduceRequest:
    """A request to repeat the run of a bundle.

    :param bundle: Its folder or zip file.
    :param source: The QEMU source that it was built from; None takes the
        tarball that Debian has.
    :param patches: Patch files that do not come with vfio-p2p.
    :param out: The folder for the new bundle; None is ``out/again/NAME``.
    :param at: The name of the place of the new run.
    """

    bundle: Path
    source: Path | None = None
    patches: tuple[Path, ...] = ()
    out: Path | None = None
    at: str = SEALED


@dataclass(frozen=True)
class Reproduction:
    """Whether a run was repeated.

    :param verdict: PASS if the new bundle is identical; SKIP if an input is
        not available.
    :param known: The bundle.
    :param out: The new bundle.
    :param missing: The inputs that have changed or are missing.
    """

    verdict: Verdict
    known: Bundle
    out: Path
    missing: tuple[Difference, ...] = ()


class _Missing(Exception):
    """Raised when inputs are not available."""

    def __init__(self, inputs: Iterable[Difference]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)


def reproduce(
    request: ReproduceRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Reproduction:
    """Build again what a bundle names, run it again, and compare the bytes.

    :raise BundleError: When the bundle is not whole.
    :raise UsageError: When the new bundle would replace something else.
    :raise TestbedError: When the new bundle differs although all inputs are
        the same, which is a bug of the testbed.
    """
    known = open_bundle(request.bundle)
    name = request.bundle.resolve().name.removesuffix(".zip")
    out = request.out or OUT / "again" / name
    if out.resolve() == request.bundle.resolve():
        raise UsageError(
            f"{out}: the new bundle would replace the old one",
            "Give another --out, so that both are there if they differ.",
        )
    check_replaceable(out)
    try:
        place, job = _prepared(known, request, reporter, workshop)
    except _Missing as err:
        return Reproduction(Verdict.SKIP, known, out, err.inputs)
    with claimed(out.parent):
        check_same(known, asyncio.run(place.run(job, out)))
    return Reproduction(Verdict.PASS, known, out)


def _prepared(
    known: Bundle,
    request: ReproduceRequest,
    reporter: Reporter,
    workshop: Workshop,
) -> tuple[ExactPlace, Job]:
    """Find all that the run was made from.

    :raise _Missing: When something is not available.
    """
    recorded = known.manifest.inputs
    if not isinstance(recorded.place, SealedProvenance):
        raise UsageError(
            f"{known.path} was not made in the sealed testbed",
            "Only sealed runs can be repeated to the byte.",
        )
    place = workshop.place(request.at, _driver(known, recorded.place.driver))
    if not isinstance(place, ExactPlace):
        raise UsageError(
            f"figures of the place {request.at!r} are measured, not exact",
            "Leave out --at: the testbed repeats a run to the byte.",
        )
    place.check()
    task = reporter.task(place.name)
    place.prepare(task)
    task.end("ready")
    job = Job.of(
        recorded.source,
        known.scenario,
        recorded.seed,
        destination=recorded.destination,
    )
    found = differences(recorded.place, place.provenance(job), "place")
    build = _build(recorded, found, request, reporter, workshop)
    what = workshop.program(build)
    job = Job.of(what, known.scenario, recorded.seed)
    found = differences(recorded, job.inputs(place.provenance(job)))
    # Both sides have the same program, or nothing would have been built, so
    # it is named once.
    found = [x for x in found if not x.name.startswith("destination.")]
    if any(x.matters for x in found):
        raise _Missing(found)
    return place, job


def _driver(known: Bundle, name: str) -> Driver:
    try:
        return Driver(name)
    except ValueError:
        raise BundleError(
            f"{known.path}: there is no driver named {name!r}",
            "Use the vfio-p2p that wrote the bundle, or a newer one.",
        ) from None


def _build(
    recorded: Inputs,
    found: list[Difference],
    request: ReproduceRequest,
    reporter: Reporter,
    workshop: Workshop,
) -> Build:
    """Build the QEMU of both sides.

    :param found: The other inputs that have changed or are missing.
    """
    made_of = recorded.source.made_of
    if made_of is None:
        raise _Missing((*found, Difference(_SOURCE, NONE, NONE)))
    if recorded.destination != recorded.source:
        gone = Difference("destination", recorded.destination.build, NONE)
        raise _Missing((*found, gone))
    patches = list(_patches(made_of, request.patches))
    found = [*found, *(x for x in patches if isinstance(x, Difference))]
    variant = Variant(
        recorded.source.variant,
        tuple(x for x in patches if isinstance(x, Patch)),
    )
    release = ".".join(made_of.version.split(".")[:2])
    try:
        source = workshop.find_source(
            request.source, release, reporter.task("source")
        )
    except HostError as err:
        gone = Difference(_SOURCE, _told(made_of), f"{NONE}: {err.what}")
        raise _Missing((*found, gone)) from err
    if source.key != made_of.source:
        present = f"{source.key} (QEMU {source.version})"
        found = [*found, Difference(_SOURCE, _told(made_of), present)]
    if any(
        x.matters or x.name == _SOURCE or x.name.startswith(_PATCHES)
        for x in found
    ):
        raise _Missing(found)
    task = reporter.task(variant.name)
    made = workshop.build(source, variant, task)
    task.end("was there already" if made.reused else "built")
    return made


def _patches(
    made_of: MadeOf, more: Sequence[Path]
) -> Iterator[Patch | Difference]:
    """Find each patch by its hash; yield a difference for one that is not
    there.
    """
    here = [
        Patch.load(path)
        for path in (*sorted(resources.patches().rglob("*.patch")), *more)
    ]
    by_hash = {patch.sha256: patch for patch in here}
    for one in made_of.patches:
        if one.sha256 in by_hash:
            yield by_hash[one.sha256]
        else:
            others = [x.sha256 for x in here if x.name == one.name]
            yield Difference(
                f"{_PATCHES}.{one.name}",
                one.sha256,
                ", ".join(others) or NONE,
            )


def _told(made_of: MadeOf) -> str:
    return f"{made_of.source} (QEMU {made_of.version})"
