# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p reproduce``: a bundle's run, made again from what it names."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from vfio_p2p.bundle.inputs import NONE, Difference, differences
from vfio_p2p.bundle.manifest import Inputs, MadeOf
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import check_replaceable, claimed
from vfio_p2p.cli.progress import Display, display
from vfio_p2p.devices import Driver
from vfio_p2p.errors import BundleError, HostError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import Job, Place, cache, open_place
from vfio_p2p.qemu import build, find_source
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.series import Patch, Variant
from vfio_p2p.series.data import patches_folder
from vfio_p2p.trace import printable

FORMAT = 1
_SOURCE = "source.made_of.source"
_PATCHES = "source.made_of.patches"


class _Missing(Exception):
    """What cannot be had."""

    def __init__(self, inputs: Iterable[Difference]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``reproduce``."""
    parser = commands.add_parser(
        "reproduce",
        help="make a bundle's run again, and see that it is the same",
        description="Build again all that a bundle names, run it again, and "
        "say whether what comes of it is the same to the byte.",
        epilog="Exit code: 0 identical; 2 no whole bundle; 4 nothing was "
        "run, for an input is not to be had, and each is named; 5 it is not "
        "the same though all inputs are, which is a bug of the testbed. "
        "docs/exactness.md says what is exact.",
    )
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="its folder or zip file"
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR|TARBALL",
        help="the QEMU that it was built from; by default the tarball that "
        "Debian has",
    )
    parser.add_argument(
        "--patch",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a patch that is not of this checkout; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="BUNDLE",
        help="where to leave the new bundle, a folder (default: "
        "out/again/NAME)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    known = open_bundle(args.bundle)
    name = args.bundle.resolve().name.removesuffix(".zip")
    out: Path = args.out or Path("out", "again", name)
    if out.resolve() == args.bundle.resolve():
        raise UsageError(
            f"{out}: the run again would replace the bundle itself",
            "if they differ both are needed: give another --out",
        )
    check_replaceable(out)
    verdict = Verdict.PASS
    missing: tuple[Difference, ...] = ()
    try:
        place, job = _prepared(known, args)
    except _Missing as err:
        verdict = Verdict.SKIP
        missing = err.inputs
    else:
        with claimed(out.parent):
            made = asyncio.run(place.run(job, out))
            cache.check_same(known, made)
    if args.json:
        document = {
            "format": FORMAT,
            "kind": "vfio-p2p reproduction",
            "verdict": str(verdict),
            "bundle": str(known.path),
            "digest": known.digest,
            "again": "" if missing else str(out),
            "missing": [asdict(one) for one in missing],
        }
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(_text(known, out, missing)))
    return verdict.exit_code


def _prepared(
    known: Bundle, args: argparse.Namespace
) -> tuple[Place, Job]:
    """All that the run was made from.

    :raise _Missing: When something of that cannot be had.
    """
    inputs = known.manifest.inputs
    programs = KnownPrograms()
    place = open_place(
        "sealed", driver=_driver(known), programs=programs
    )
    place.check()
    job = Job.of(
        inputs.source,
        known.scenario,
        inputs.seed,
        destination=inputs.destination,
    )
    with display() as shown:
        line = shown.line("testbed")
        place.prepare(line)
        line.end("ready")
        found = differences(inputs.place, place.provenance(job), "place")
        made_of = inputs.source.made_of
        if made_of is None:
            raise _Missing((*found, Difference(_SOURCE, NONE, NONE)))
        patches = list(_patches(made_of, args.patch))
        found += [x for x in patches if isinstance(x, Difference)]
        variant = Variant(
            inputs.source.variant,
            tuple(x for x in patches if isinstance(x, Patch)),
        )
        program = _built(made_of, variant, args, found, shown)
    job = Job.of(programs.add(program), known.scenario, inputs.seed)
    _check(inputs, job.inputs(place.provenance(job)))
    return place, job


def _check(recorded: Inputs, present: Inputs) -> None:
    found = differences(recorded, present)
    if any(x.matters for x in found):
        raise _Missing(found)


def _driver(known: Bundle) -> Driver:
    name = known.manifest.inputs.place.driver
    try:
        return Driver(name)
    except ValueError:
        raise BundleError(
            f"{known.path}: a driver named {name!r} is not known",
            "use the vfio-p2p that wrote the bundle, or a newer one",
        ) from None


def _patches(
    made_of: MadeOf, more: Sequence[Path]
) -> Iterator[Patch | Difference]:
    """Each patch by its hash, or what there is in its place."""
    here = [
        Patch.load(path)
        for path in (*sorted(patches_folder().rglob("*.patch")), *more)
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


def _built(
    made_of: MadeOf,
    variant: Variant,
    args: argparse.Namespace,
    found: list[Difference],
    shown: Display,
) -> Program:
    """The QEMU, unless it is known already that it cannot be the same.

    :param found: What else is not what it was.
    """
    release = ".".join(made_of.version.split(".")[:2])
    line = shown.line("source")
    try:
        source = find_source(args.source, release, line)
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
    line = shown.line(variant.name)
    made = build(source, variant, line)
    line.end("was there already" if made.reused else "built")
    return Program.of(made)


def _told(made_of: MadeOf) -> str:
    return f"{made_of.source} (QEMU {made_of.version})"


def _text(
    known: Bundle, out: Path, missing: Sequence[Difference]
) -> Iterator[str]:
    yield f"bundle: {printable(str(known.path))}"
    yield f"digest: {known.digest}"
    if not missing:
        count = len(known.manifest.files)
        yield f"run again: {out}"
        yield f"identical: {count} files, to the byte"
        return
    yield "not run again: these inputs are not what they were"
    for one in missing:
        yield f"  {printable(one.name)}"
        yield f"    recorded: {printable(one.recorded)}"
        yield f"    present:  {printable(one.present)}"
    yield "docs/exactness.md says where to have them from"
