# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate``: the main job, and its modes."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.errors import UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.change import (
    AGAINST,
    BASE,
    ChangeRequest,
    validate_change,
)
from vfio_p2p.plans.collected import CollectedWorkshop
from vfio_p2p.plans.everything import validate_everything
from vfio_p2p.plans.followups import validate_followups
from vfio_p2p.plans.modes import ModeRequest
from vfio_p2p.plans.mutants import MutantsRequest, validate_mutants
from vfio_p2p.plans.patches import validate_patches
from vfio_p2p.plans.releases import validate_releases
from vfio_p2p.plans.runs import JSON, JUNIT
from vfio_p2p.plans.shards import Shard, make_shard
from vfio_p2p.plans.validate import SCENARIOS, ValidateRequest, validate
from vfio_p2p.plans.versions import VersionsRequest, validate_versions
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document, to_json
from vfio_p2p.report.formats import render
from vfio_p2p.report.shard import SHARD

# Each mode, and where it finds its scenarios.
_MODES = {
    "per_patch": "It runs one device and two devices.",
    "mutants": "Each mutant has its own: see 'vfio-p2p series list'.",
    "followups": "Each follow-up has its own: see 'vfio-p2p series list'.",
    "versions": "It runs one device and two devices.",
    "all": "It runs every scenario that comes with the tool.",
    "releases": "It runs every scenario that comes with the tool.",
}


# What cannot be divided among machines, and why.
_WHOLE = {
    "versions": "which asks each QEMU for its machine types",
    "patch": "which chooses its runs as it goes",
}
_APART = {
    "shard": {
        **_WHOLE,
        "json": "which prints a report of all runs",
        "collect": "which needs all shards",
    },
    "collect": {
        **_WHOLE,
        "history": "which belongs to a machine that makes runs",
    },
}


@dataclass(frozen=True)
class _Request:
    """The request of ``validate``, in any of its modes.

    :param mode: A key of the modes; empty for the plain matrix.
    :param plain: The request, of which a mode takes source and setting.
    :param mutants: The names of the mutants that were asked for.
    :param machine: The machine type that was asked for.
    :param change: The change to be judged instead, if there is one.
    :param shard: The only part of the runs that is made, and not judged.
    :param collect: The folders of all shards, whose runs are judged instead
        of making any.
    """

    mode: str
    plain: ValidateRequest
    mutants: tuple[str, ...]
    machine: str | None = None
    change: ChangeRequest | None = None
    shard: Shard | None = None
    collect: tuple[Path, ...] = ()


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``validate``."""
    parser = commands.add_parser(
        "validate",
        help=summary,
        description="Build QEMU without and with the series, migrate one, "
        "two and four devices with each, and report whether the P2P order is "
        "kept and how long the blackout is.",
    )
    options.add_origin(parser)
    options.add_variants(parser)
    _add_modes(parser)
    options.add_qemu(parser, several=True)
    options.add_machine(parser)
    parser.add_argument(
        "--against",
        metavar="V",
        help="with --patch: the tree that the patches go on top of (default: "
        f"{AGAINST}, the source as it is; without --source and --base, that "
        f"of base {BASE})",
    )
    parser.add_argument(
        "--mutant",
        action="append",
        default=[],
        metavar="NAME",
        help="with --mutants: test only this mutant; may be repeated",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="S",
        help="a scenario's name or file; may be repeated (default: "
        f"{', '.join(SCENARIOS)}; with --patch, those that the changed files "
        "bear on)",
    )
    options.add_setting(parser, seeds=1)
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="make only part I of N of the runs, and build only what they "
        "need, so that N machines share the work. Nothing is judged; see "
        "--collect",
    )
    parser.add_argument(
        "--collect",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="DIR",
        help="judge the runs that all shards have left in these folders, "
        "with the same options as theirs; nothing is built or run",
    )
    options.add_p2p_gate(parser)
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def _add_modes(parser: argparse.ArgumentParser) -> None:
    """Add what is judged instead of the usual trees."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--versions",
        action="store_true",
        help="judge migrations from each QEMU to each QEMU, named by "
        "--variant (also BASE:V, as in v10.2:stock) and --qemu; by default "
        "base and patched, v10.2:stock, debian:11.1, and the patched tree of "
        "a --source of another release",
    )
    what.add_argument(
        "--per-patch",
        action="store_true",
        help="judge the base and every patch by the rules that hold there",
    )
    what.add_argument(
        "--mutants",
        action="store_true",
        help="judge this suite: each mutant must be caught by its rule, in "
        "its scenarios",
    )
    what.add_argument(
        "--all",
        action="store_true",
        help="judge everything: each scenario on the patched tree and on "
        "each QEMU that has upstream's series, each mutant, and whether each "
        "rule is broken by something; if interrupted, it resumes where it "
        "stopped",
    )
    what.add_argument(
        "--releases",
        action="store_true",
        help="judge each release that Debian has, as it was released, with "
        "every scenario; 'vfio-p2p report --format markdown' makes a table "
        "of the result; if interrupted, it resumes where it stopped",
    )
    what.add_argument(
        "--followups",
        action="store_true",
        help="judge the follow-up patches: each defect must reproduce "
        "without its patch and disappear with it",
    )
    what.add_argument(
        "--patch",
        action="append",
        type=Path,
        default=[],
        metavar="FILE|MBOX",
        help="judge any change of QEMU: run the tree without and with the "
        "patches of this file, a patch or an mbox with a series, and say "
        "what they break and repair, and how the blackout changes; may be "
        "repeated, in the order in which they apply",
    )


def request(args: argparse.Namespace) -> _Request:
    """Read the arguments.

    :raise UsageError: When options exclude one another.
    """
    _check_shards(args)
    if args.patch:
        return _change(args)
    if args.against:
        raise UsageError(
            "--against has no effect without --patch",
            "Give --patch FILE, or choose trees with --variant.",
        )
    mode = next((x for x in _MODES if getattr(args, x)), "")
    if mode and args.scenario:
        raise UsageError(
            f"--{mode.replace('_', '-')} has scenarios of its own",
            f"Leave out --scenario. {_MODES[mode]}",
        )
    if args.mutant and mode != "mutants":
        raise UsageError(
            "--mutant has no effect without --mutants", "Give --mutants, too."
        )
    for name in ("variant", "qemu"):
        _check_names(mode, name, getattr(args, name))
    if args.machine and mode != "versions":
        raise UsageError(
            "--machine has no effect without --versions",
            "Give --versions, too, or make one run with 'vfio-p2p run "
            "--machine'.",
        )
    if mode and args.fail_above_p2p is not None:
        raise UsageError(
            f"--fail-above-p2p has no effect with --{mode.replace('_', '-')}",
            "Leave out one of them.",
        )
    return _Request(
        mode=mode,
        plain=ValidateRequest(
            origin=options.origin(args),
            setting=options.setting(args),
            variants=(*args.variant, *args.qemu),
            scenarios=tuple(args.scenario or SCENARIOS),
            most_p2p_ms=args.fail_above_p2p,
        ),
        mutants=tuple(args.mutant),
        machine=args.machine,
        shard=Shard.parse(args.shard) if args.shard else None,
        collect=tuple(args.collect),
    )


def _check_shards(args: argparse.Namespace) -> None:
    """Refuse what cannot be divided among machines.

    :raise UsageError: When there is such an option.
    """
    for option, others in _APART.items():
        for other, why in others.items():
            if getattr(args, option) and getattr(args, other):
                raise UsageError(
                    f"--{option} has no effect with --{other}, {why}",
                    "Leave out one of them.",
                )


def _check_names(mode: str, name: str, given: Sequence[str]) -> None:
    """Refuse names of QEMUs in a mode that has QEMUs of its own.

    :raise UsageError: When there are any.
    """
    if given and mode not in ("", "versions"):
        raise UsageError(
            f"--{name} has no effect with --{mode.replace('_', '-')}, which "
            "builds its QEMUs",
            "Leave out one of them.",
        )


def _change(args: argparse.Namespace) -> _Request:
    for name, given in (
        ("--qemu", args.qemu),
        ("--mutant", args.mutant),
        ("--fail-above-p2p", args.fail_above_p2p is not None),
    ):
        if given:
            raise UsageError(
                f"{name} has no effect with --patch",
                "Leave out one of them.",
            )
    setting = options.setting(args)
    return _Request(
        mode="change",
        plain=ValidateRequest(setting=setting),
        mutants=(),
        change=ChangeRequest(
            patches=tuple(args.patch),
            against=args.against or AGAINST,
            scenarios=tuple(args.scenario or ()),
            origin=options.origin(args),
            setting=setting,
        ),
    )


def run(wanted: _Request, context: Context) -> int:
    """Judge, and print the report."""
    if wanted.shard is not None:
        return _make(wanted, wanted.shard, context)
    with context.reporter() as reporter:
        workshop = context.workshop
        if wanted.collect:
            workshop = CollectedWorkshop(workshop, wanted.collect)
        document = _judge(wanted, reporter, workshop)
    if context.json:
        context.show(to_json(document).rstrip())
        return document.verdict.exit_code
    context.show(render("table", document).rstrip())
    # Nothing follows the verdict on mutants and on follow-ups.
    if wanted.mode in ("mutants", "followups"):
        return document.verdict.exit_code
    out = wanted.plain.setting.out
    if wanted.change is not None:
        context.show("\nAs a mail:\n")
        context.show(textwrap.indent(render("text", document), "  ").rstrip())
        context.show("")
    context.show(f"bundles, {JSON} and {JUNIT}: {out}")
    return document.verdict.exit_code


def _make(wanted: _Request, shard: Shard, context: Context) -> int:
    """Make the runs of a shard, and tell how many there are."""
    out = wanted.plain.setting.out
    with context.reporter() as reporter:
        made = make_shard(
            shard,
            partial(_judge, wanted, SILENT),
            out,
            reporter,
            context.workshop,
        )
    context.show(f"shard {shard}: {len(made.runs)} of {made.count} runs")
    for name, why in made.failed.items():
        context.show(f"  not made: {name}: {why}")
    context.show(
        f"bundles and {SHARD}: {out}; 'vfio-p2p validate --collect' judges "
        "them, with those of the other shards"
    )
    return Verdict.ERROR.exit_code if made.failed else 0


def _judge(
    wanted: _Request, reporter: Reporter, workshop: Workshop
) -> Document:
    plain = wanted.plain
    if wanted.change is not None:
        return validate_change(wanted.change, reporter, workshop)
    mode = ModeRequest(plain.origin, plain.setting)
    match wanted.mode:
        case "per_patch":
            return validate_patches(mode, reporter, workshop)
        case "mutants":
            return validate_mutants(
                MutantsRequest(plain.origin, plain.setting, wanted.mutants),
                reporter,
                workshop,
            )
        case "followups":
            return validate_followups(mode, reporter, workshop)
        case "versions":
            return validate_versions(
                VersionsRequest(
                    plain.origin,
                    plain.setting,
                    plain.variants,
                    wanted.machine,
                ),
                reporter,
                workshop,
            )
        case "all":
            return validate_everything(mode, reporter, workshop)
        case "releases":
            return validate_releases(mode, reporter, workshop)
    return validate(plain, reporter, workshop)
