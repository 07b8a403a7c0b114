# SPDX-License-Identifier: GPL-2.0-or-later
"""Repeat the run of a bundle from the inputs that it names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p import resources
from vfio_p2p.bundle.inputs import NONE, Difference, differences
from vfio_p2p.bundle.manifest import Inputs, MadeOf, ProgramInput
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import check_replaceable, claimed
from vfio_p2p.choice import SEALED, PlaceChoice, VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.errors import BundleError, HostError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import ExactPlace, Job
from vfio_p2p.places.cache import check_same
from vfio_p2p.plans.setting import OUT
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.qemu import Source
from vfio_p2p.series import Patch, Variant
from vfio_p2p.side import Side

_SOURCE = "made_of.source"
_PATCHES = "made_of.patches"


@dataclass(frozen=True)
class ReproduceRequest:
    """A request to repeat the run of a bundle.

    :param bundle: Its folder or zip file.
    :param source: The QEMU source that it was built from; None takes the
        tarball that Debian has.
    :param to_source: The source that the destination's QEMU was built from,
        if it is another one; None takes `source` or the tarball.
    :param patches: Patch files that do not come with vfio-p2p.
    :param out: The folder for the new bundle; None is ``out/again/NAME``.
    :param at: The name of the place of the new run.
    """

    bundle: Path
    source: Path | None = None
    to_source: Path | None = None
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
    place = workshop.place(
        PlaceChoice(
            request.at,
            _driver(known, recorded.place.driver),
            boot=not recorded.place.snapshot,
            kernel=_kernel(known, recorded.place.kernel_kind),
        )
    )
    if not isinstance(place, ExactPlace):
        raise UsageError(
            f"figures of the place {request.at!r} are measured, not exact",
            "Leave out --at: the testbed repeats a run to the byte.",
        )
    place.check()
    task = reporter.task(place.name)
    place.prepare(task, [known.scenario])
    task.end("ready")
    job = Job.of(
        recorded.source,
        known.scenario,
        recorded.seed,
        destination=recorded.destination,
    )
    found = differences(recorded.place, place.provenance(job), "place")
    source, destination = _programs(
        recorded, found, request, reporter, workshop
    )
    job = Job.of(
        source, known.scenario, recorded.seed, destination=destination
    )
    found = differences(recorded, job.inputs(place.provenance(job)))
    if recorded.destination == recorded.source:
        # Both sides have the same program, so it is named once.
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


def _kernel(known: Bundle, name: str) -> VmKernel:
    try:
        return VmKernel(name)
    except ValueError:
        raise BundleError(
            f"{known.path}: there is no kernel named {name!r}",
            "Use the vfio-p2p that wrote the bundle, or a newer one.",
        ) from None


def _programs(
    recorded: Inputs,
    found: list[Difference],
    request: ReproduceRequest,
    reporter: Reporter,
    workshop: Workshop,
) -> tuple[ProgramInput, ProgramInput]:
    """Build the QEMU of each side.

    :param found: The other inputs that have changed or are missing.
    :raise _Missing: When something is not available, after all of that has
        been found out.
    """
    wanted = {Side.SOURCE: recorded.source}
    if recorded.destination != recorded.source:
        wanted[Side.DESTINATION] = recorded.destination
    trees = {
        side: _tree(side, program, request, reporter, workshop)
        for side, program in wanted.items()
    }
    found = [*found, *(x for tree in trees.values() for x in tree.missing)]
    if any(x.matters or _is_made_of(x) for x in found):
        raise _Missing(found)
    programs = {}
    for side, tree in trees.items():
        assert tree.source
        task = reporter.task(tree.variant.name)
        made = workshop.build(tree.source, tree.variant, task)
        task.end("was there already" if made.reused else "built")
        programs[side] = workshop.program(made)
    source = programs[Side.SOURCE]
    return source, programs.get(Side.DESTINATION, source)


@dataclass(frozen=True)
class _Found:
    """The source and the patches of a QEMU, as far as they are there.

    :param variant: Its variant.
    :param source: Its source.
    :param missing: What has changed or is missing.
    """

    variant: Variant
    source: Source | None = None
    missing: tuple[Difference, ...] = ()


def _is_made_of(one: Difference) -> bool:
    """Return whether something is missing that a QEMU is built from."""
    _, _, name = one.name.partition(".")
    return name.startswith((_SOURCE, _PATCHES))


def _tree(
    side: Side,
    program: ProgramInput,
    request: ReproduceRequest,
    reporter: Reporter,
    workshop: Workshop,
) -> _Found:
    """Look for everything that the QEMU of a side is built from."""
    made_of = program.made_of
    name = f"{side}.{_SOURCE}"
    if made_of is None:
        return _Found(
            Variant(program.variant, ()),
            missing=(Difference(name, NONE, NONE),),
        )
    patches = list(_patches(side, made_of, request.patches))
    missing = [x for x in patches if isinstance(x, Difference)]
    variant = Variant(
        program.variant, tuple(x for x in patches if isinstance(x, Patch))
    )
    release = ".".join(made_of.version.split(".")[:2])
    given = [request.source]
    if side is Side.DESTINATION:
        # It may be of the source's tree, of Debian's, or of one of its own.
        given = [request.to_source or request.source, None]
    source = None
    for path in dict.fromkeys(given):
        try:
            source = workshop.find_source(
                path, release, reporter.task("source")
            )
        except HostError as err:
            gone = Difference(name, _told(made_of), f"{NONE}: {err.what}")
            return _Found(variant, None, (*missing, gone))
        if source.key == made_of.source:
            return _Found(variant, source, tuple(missing))
    assert source
    present = f"{source.key} (QEMU {source.version})"
    missing.append(Difference(name, _told(made_of), present))
    return _Found(variant, source, tuple(missing))


def _patches(
    side: Side, made_of: MadeOf, more: Sequence[Path]
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
                f"{side}.{_PATCHES}.{one.name}",
                one.sha256,
                ", ".join(others) or NONE,
            )


def _told(made_of: MadeOf) -> str:
    return f"{made_of.source} (QEMU {made_of.version})"
