# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p build``: build variants into the store."""

from __future__ import annotations

import argparse

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.build import BuildRequest, Built, build_variants
from vfio_p2p.qemu import Checks

FORMAT = 1


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``build``."""
    parser = commands.add_parser(
        "build",
        help=summary,
        description="Build variants of a QEMU source into the store, and "
        "print where they are.",
    )
    options.add_origin(parser)
    options.add_variants(parser)
    parser.add_argument(
        "--mutant",
        action="append",
        default=[],
        metavar="FILE|NAME",
        help="also build patched with this patch on top; may be repeated",
    )
    parser.add_argument(
        "--werror",
        action="store_true",
        help="treat compiler warnings as errors",
    )
    parser.add_argument(
        "--sanitize",
        choices=["address"],
        help="let AddressSanitizer check every access to memory, and that "
        "all of it is freed; --qemu of other commands runs such a build, "
        "whose times are no measurements",
    )
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> BuildRequest:
    """Read the arguments."""
    return BuildRequest(
        origin=options.origin(args),
        variants=tuple(args.variant),
        mutants=tuple(args.mutant),
        checks=Checks(args.werror, args.sanitize == "address"),
    )


def run(wanted: BuildRequest, context: Context) -> int:
    """Build, and print where the builds are."""
    with context.reporter() as reporter:
        built = build_variants(wanted, reporter, context.workshop)
    if context.json:
        context.show_json(_document(built))
    else:
        for made in built.builds:
            context.show(f"{made.variant}\t{made.path}")
    return 0


def _document(built: Built) -> dict[str, object]:
    source = built.chosen.source
    return {
        "format": FORMAT,
        "base": built.chosen.base.name,
        "source": {
            "key": source.key,
            "kind": source.kind,
            "version": source.version,
            "origin": source.origin,
        },
        "builds": [
            {
                "variant": x.variant,
                "key": x.key,
                "directory": str(x.directory),
                "binary": str(x.path),
                "sha256": x.sha256,
                "version": x.version,
                "reused": x.reused,
            }
            for x in built.builds
        ],
    }
