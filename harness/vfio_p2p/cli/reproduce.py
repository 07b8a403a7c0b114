# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p reproduce``: repeat the run of a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.reproduce import (
    ReproduceRequest,
    Reproduction,
    reproduce,
)
from vfio_p2p.trace import printable

FORMAT = 1


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``reproduce``."""
    parser = commands.add_parser(
        "reproduce",
        help=summary,
        description="Build again all that a bundle names, run it again, and "
        "report whether the new bundle is the same to the byte.",
        epilog="Exit code: 0 identical; 2 no whole bundle; 4 nothing was "
        "run, because an input is not available, and each is named; 5 the "
        "bundles differ although all inputs are the same, which is a bug of "
        "the testbed.",
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
        "--to-source",
        type=Path,
        metavar="DIR|TARBALL",
        help="the QEMU that the destination's was built from, if it is "
        "another one",
    )
    parser.add_argument(
        "--patch",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a patch that does not come with vfio-p2p; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="BUNDLE",
        help="where to leave the new bundle, a folder (default: "
        "out/again/NAME)",
    )
    options.add_place(parser)
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> ReproduceRequest:
    """Read the arguments."""
    return ReproduceRequest(
        bundle=args.bundle,
        source=args.source,
        to_source=args.to_source,
        patches=tuple(args.patch),
        out=args.out,
        at=args.at,
    )


def run(wanted: ReproduceRequest, context: Context) -> int:
    """Repeat the run, and print whether it is the same."""
    with context.reporter() as reporter:
        found = reproduce(wanted, reporter, context.workshop)
    if context.json:
        context.show_json(
            {
                "format": FORMAT,
                "kind": "vfio-p2p reproduction",
                "verdict": str(found.verdict),
                "bundle": str(found.known.path),
                "digest": found.known.digest,
                "again": "" if found.missing else str(found.out),
                "missing": [asdict(one) for one in found.missing],
            }
        )
    else:
        context.show("\n".join(_text(found)))
    return found.verdict.exit_code


def _text(found: Reproduction) -> Iterator[str]:
    yield f"bundle: {printable(str(found.known.path))}"
    yield f"digest: {found.known.digest}"
    if not found.missing:
        count = len(found.known.manifest.files)
        yield f"run again: {found.out}"
        yield f"identical: {count} files, to the byte"
        return
    yield "not run again: these inputs have changed or are missing"
    for one in found.missing:
        yield f"  {printable(one.name)}"
        yield f"    recorded: {printable(one.recorded)}"
        yield f"    present:  {printable(one.present)}"
    yield "See 'Exactness' in the documentation for where to get them."
