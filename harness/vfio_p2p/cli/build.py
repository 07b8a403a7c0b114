# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p build``: build variants into the store."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from vfio_p2p.cli.progress import Display, display
from vfio_p2p.errors import SourceError
from vfio_p2p.qemu import Build, Source, build, find_source
from vfio_p2p.series import (
    Base,
    SeriesLevel,
    Variant,
    apply_patches,
    base_for,
    default_base,
    find_base,
    parse_variant,
    recognise,
    stock_base,
)

FORMAT = 1

_DEFAULT_VARIANTS = ("base", "patched")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which QEMU, as `choose_source` reads them."""
    parser.add_argument(
        "--base",
        metavar="B",
        help="the base whose patches are used; by default the one for the "
        "source's version (qemu-patches/series.toml lists them)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR|TARBALL",
        help="a QEMU checkout, with its local changes, or a release; "
        "by default the tarball that Debian has",
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="look for a newer tarball in Debian even if one is here",
    )


def add_variants_argument(parser: argparse._ActionsContainer) -> None:
    """Add the option that says which trees, for `choose_variants`."""
    parser.add_argument(
        "--variant",
        action="append",
        metavar="V",
        help="stock, base, patch-1 to patch-6, patched, each with +MUTANT or "
        "+FOLLOWUP if wanted; may be repeated (default: base and patched)",
    )


def choose_source(args: argparse.Namespace) -> tuple[Base, Source]:
    """Find the base and the source that the options ask for.

    :param args: With the options of `add_source_arguments`.
    :raise UsageError: When the base is unknown.
    :raise SourceError: When the source is not QEMU, or has no base.
    """
    base = find_base(args.base) if args.base else None
    wanted = (base or default_base()).qemu
    with display() as shown:
        source = find_source(
            args.source, wanted, shown.line("source"), refresh=args.refresh
        )
    return base or _base_of(source), source


def _base_of(source: Source) -> Base:
    """The base for a source; a QEMU that has the series needs none."""
    try:
        return base_for(source.version)
    except SourceError:
        if recognise(source) is not SeriesLevel.SERIES:
            raise
        return stock_base(source.version)


def default_variants(base: Base) -> tuple[str, ...]:
    """Names of the variants of users who name none."""
    return _DEFAULT_VARIANTS if base.patches else ("stock",)


def choose_variants(
    base: Base, source: Source, names: Iterable[str]
) -> list[Variant]:
    """Find variants, and see that each can be made of the source.

    :raise UsageError: When a name is unknown.
    :raise PatchError: When a patch does not apply. That is known here,
                       before minutes go into building the others.
    """
    variants = [parse_variant(base, x) for x in dict.fromkeys(names)]
    for variant in variants:
        apply_patches(source, variant.patches)
    return variants


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``build``."""
    parser = commands.add_parser(
        "build",
        help="build QEMU variants into the store",
        description="Build variants of a QEMU source into the store, and "
        "print where they are.",
    )
    add_source_arguments(parser)
    add_variants_argument(parser)
    parser.add_argument(
        "--mutant",
        action="append",
        default=[],
        metavar="FILE|NAME",
        help="also build patched with this patch on top; may be repeated",
    )
    parser.add_argument(
        "--werror", action="store_true", help="compiler warnings are errors"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    base, source = choose_source(args)
    default = () if args.mutant else default_variants(base)
    names = list(args.variant or default)
    names += [f"patched+{x}" for x in args.mutant]
    variants = choose_variants(base, source, names)
    with display() as shown:
        builds = build_all(source, variants, shown, werror=args.werror)
    if args.json:
        print(json.dumps(_document(base, source, builds), indent=2))
    else:
        for made in builds:
            print(f"{made.variant}\t{made.path}")
    return 0


def build_all(
    source: Source,
    variants: Sequence[Variant],
    shown: Display,
    *,
    werror: bool = False,
) -> list[Build]:
    """Build variants one after another, each from the one before."""
    builds = []
    for variant in variants:
        line = shown.line(variant.name)
        made = build(source, variant, line, werror=werror)
        line.end("was there already" if made.reused else "built")
        builds.append(made)
    return builds


def _document(
    base: Base, source: Source, builds: list[Build]
) -> dict[str, object]:
    return {
        "format": FORMAT,
        "base": base.name,
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
            for x in builds
        ],
    }
