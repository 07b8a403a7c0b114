# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p series``: list, apply, verify and export the patches."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.series import (
    ApplyRequest,
    ExportRequest,
    ListedBase,
    ListRequest,
    TreeStatus,
    VerifiedSeries,
    VerifyRequest,
    apply_series,
    export_series,
    list_series,
    verify_series,
)
from vfio_p2p.series import Patch, SeriesLevel
from vfio_p2p.series.verify import Verified
from vfio_p2p.trace import printable

FORMAT = 1


def add_parser(
    commands: options.Commands, summary: str, folder: Path | None = None
) -> None:
    """Add the command ``series``.

    :param commands: Where the command is added.
    :param summary: What the list of commands says about it.
    :param folder: The folder of patches; by default the project's own.
    """
    parser = commands.add_parser(
        "series",
        help=summary,
        description="The series as patches, for each QEMU that it is for.",
    )
    parser.set_defaults(folder=folder)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_list(actions)
    _add_apply(actions)
    _add_verify(actions)
    _add_export(actions)


def _add_list(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "list",
        help="list bases, patches, mutants and follow-ups",
        description="List the bases, the QEMU version that each is for, its "
        "patches, its mutants with the rule that must catch each, and its "
        "follow-ups with the scenarios that each fixes.",
    )
    options.add_json(parser)
    parser.set_defaults(
        request=lambda x: ListRequest(x.folder), run=_list
    )


def _add_apply(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "apply",
        help="apply the series to a tree",
        description="Apply the series to a QEMU tree, together with the "
        "patches that must come before it. Either all of them are applied "
        "or none. Patches that the tree contains already are not applied "
        "again.",
    )
    _add_tree_arguments(parser)
    parser.add_argument(
        "--upto",
        type=int,
        metavar="N",
        help="apply only the first N patches; 0 is the base (default: all)",
    )
    parser.add_argument(
        "--mutant",
        metavar="FILE|NAME",
        help="a patch to apply on top",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--am",
        action="store_true",
        help="make commits with 'git am'; otherwise only files change",
    )
    how.add_argument(
        "--allow-dirty",
        action="store_true",
        help="accept a tree with local changes, and keep them",
    )
    parser.set_defaults(request=_apply_request, run=_apply)


def _add_verify(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "verify",
        help="try each patch on a tree, and run checkpatch.pl on it",
        description="Report for every patch whether it applies, is applied "
        "already, or where it conflicts, and what QEMU's checkpatch.pl says "
        "about it. The tree does not change. The exit code is 1 if a patch "
        "conflicts or checkpatch.pl complains.",
    )
    _add_tree_arguments(parser)
    parser.add_argument(
        "--own-checkpatch",
        action="store_true",
        help="run the tree's own checkpatch.pl, which can do whatever you "
        "can, and not that of Debian's QEMU",
    )
    options.add_json(parser)
    parser.set_defaults(
        request=lambda x: VerifyRequest(
            x.tree, x.base, x.folder, x.own_checkpatch
        ),
        run=_verify,
    )


def _add_export(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "export",
        help="write the series as mails, ready to send",
        description="Write the series as a thread of mails: one file each "
        "for 'git send-email', and one mbox for 'git am --empty=drop'.  The "
        "same series and options always give the same mails.",
    )
    parser.add_argument(
        "--base",
        required=True,
        metavar="B",
        help="the base that has the series",
    )
    parser.add_argument(
        "--signoff",
        metavar="NAME <MAIL>",
        help="post the series under this name: sign each patch off, and be "
        "the author of those that have none with a real address",
    )
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a recipient; may be repeated",
    )
    parser.add_argument(
        "--cover",
        action="store_true",
        help="write a cover letter to be filled in if the base has none",
    )
    parser.add_argument(
        "out", type=Path, metavar="DIR", help="a new or empty folder"
    )
    parser.set_defaults(
        request=lambda x: ExportRequest(
            base=x.base,
            out=x.out,
            folder=x.folder,
            signoff=x.signoff,
            to=tuple(x.to),
            cover=x.cover,
        ),
        run=_export,
    )


def _add_tree_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tree", type=Path, metavar="TREE", help="the QEMU tree"
    )
    parser.add_argument(
        "--base",
        metavar="B",
        help="the base that has the patches (default: the one for the "
        "tree's version)",
    )


def _list(wanted: ListRequest, context: Context) -> int:
    bases = list_series(wanted)
    if context.json:
        documents = [_base_document(x) for x in bases]
        context.show_json({"format": FORMAT, "bases": documents})
        return 0
    for listed in bases:
        for line in _base_lines(listed):
            context.show(line)
    return 0


def _apply_request(args: argparse.Namespace) -> ApplyRequest:
    return ApplyRequest(
        tree=args.tree,
        base=args.base,
        upto=args.upto,
        on_top=args.mutant,
        am=args.am,
        allow_dirty=args.allow_dirty,
        folder=args.folder,
    )


def _apply(wanted: ApplyRequest, context: Context) -> int:
    done = apply_series(wanted)
    context.show(_describe(done.before))
    if done.local_changes:
        first, *others = done.local_changes
        more = f" and {len(others)} more" if others else ""
        what = f"{done.before.root} has local changes: {first}{more}"
        context.show(f"{printable(what)}; they are kept")
    for patch in done.patches:
        context.show(f"applied {printable(patch.name)}")
    if not done.patches:
        context.show("nothing to do")
    return 0


def _verify(wanted: VerifyRequest, context: Context) -> int:
    with context.reporter() as reporter:
        found = verify_series(wanted, reporter, context.workshop)
    if context.json:
        document = _verified_series_document(found)
        context.show_json({"format": FORMAT} | document)
    else:
        for line in _verified_series_lines(found):
            context.show(line)
    return 0 if found.good else 1


def _export(wanted: ExportRequest, context: Context) -> int:
    done = export_series(wanted)
    for path in done.files:
        context.show(str(path))
    if done.nobody:
        what = f"nobody can send mails as {done.nobody}"
        print(
            f"vfio-p2p: {printable(what)}\n"
            "  Give your own name with --signoff before you send them.",
            file=sys.stderr,
        )
    return 0


def _base_lines(listed: ListedBase) -> Iterator[str]:
    base = listed.base
    where = base.folder or "has upstream's series, judged as it is"
    more = "; judged as it is by default" if base.stock else ""
    yield (f"{base.name}, for QEMU {base.qemu}.x: {where}{more}")
    for kind, patches in (("pre", base.pre), ("", base.patches)):
        for number, patch in enumerate(patches, 1):
            yield (f"  {kind:3} {number}  {printable(patch.subject)}")
    for mutant in listed.mutants:
        scenarios = ", ".join(mutant.scenarios)
        yield (f"  mutant {mutant.name}: {mutant.trips} in {scenarios}")
        if mutant.waits_for:
            yield (f"    waits for: {printable(mutant.waits_for)}")
        if mutant.equivalent:
            yield (f"    equivalent: {printable(mutant.equivalent)}")
    for followup in listed.followups:
        fixes = ", ".join(followup.fixes)
        real = " (real devices)" if followup.devices == "real" else ""
        yield f"  follow-up {followup.name}: mends {fixes}{real}"


def _base_document(listed: ListedBase) -> dict[str, object]:
    base = listed.base
    return {
        "name": base.name,
        "qemu": base.qemu,
        "folder": str(base.folder) if base.folder else None,
        "pre": _patch_documents(base.pre),
        "patches": _patch_documents(base.patches),
        "mutants": [
            {
                "name": x.name,
                "subject": Patch.load(x.path).subject,
                "trips": x.trips,
                "scenarios": list(x.scenarios),
                "waits_for": x.waits_for or None,
                "equivalent": x.equivalent or None,
            }
            for x in listed.mutants
        ],
        "followups": [
            {
                "name": x.name,
                "subject": Patch.load(x.path).subject,
                "fixes": list(x.fixes),
                "keeps": list(x.keeps),
                "devices": x.devices,
            }
            for x in listed.followups
        ],
    }


def _patch_documents(patches: Sequence[Patch]) -> list[dict[str, object]]:
    return [
        {"number": number, "file": x.name, "subject": x.subject}
        for number, x in enumerate(patches, 1)
    ]


def _describe(status: TreeStatus) -> str:
    """Return one line about what a tree contains."""
    start = f"{status.root}: QEMU {status.version}"
    if status.base is None or status.count == 0:
        how = ""
        if status.level is SeriesLevel.SERIES:
            how = " (stock)" if status.stock else " (changed)"
        return printable(f"{start}, {status.level}{how}")
    name = status.base.name
    patches = status.count - len(status.base.pre)
    if patches < 0:
        return printable(
            f"{start}, with pre-patches 1 to {status.count} of {name}"
        )
    more = f" with patches 1 to {patches}" if patches else ""
    return printable(f"{start}, is base {name}{more}")


def _verified_series_lines(found: VerifiedSeries) -> Iterator[str]:
    yield (_describe(found.status))
    if not found.patches:
        yield ("there is nothing to apply")
    base = found.status.base
    for number, result in enumerate(found.patches):
        pre = base is not None and number < len(base.pre)
        yield from _verified_lines(result, "pre/" if pre else "")


def _verified_lines(result: Verified, folder: str) -> Iterator[str]:
    name = printable(result.patch.name)
    yield (f"  {result.state:15}  {folder}{name}")
    if result.conflict:
        where = (result.conflict.file, result.conflict.hunk)
        text = ": ".join([*filter(None, where), result.conflict.why])
        yield (f"    {printable(text)}")
    style = result.style
    if style.errors or style.warnings:
        yield (
            f"    checkpatch: {style.errors} errors, "
            f"{style.warnings} warnings"
        )
        for line in style.lines:
            yield (f"      {printable(line)}")


def _verified_series_document(found: VerifiedSeries) -> dict[str, object]:
    status = found.status
    return {
        "tree": str(status.root),
        "version": status.version,
        "series": status.level.name.lower(),
        "base": status.base.name if status.base else None,
        "patches": [_verified_document(x) for x in found.patches],
    }


def _verified_document(result: Verified) -> dict[str, object]:
    conflict = result.conflict
    return {
        "file": result.patch.name,
        "subject": result.patch.subject,
        "state": result.state.name.lower(),
        "conflict": {
            "file": conflict.file,
            "hunk": conflict.hunk,
            "why": conflict.why,
        }
        if conflict
        else None,
        "checkpatch": {
            "errors": result.style.errors,
            "warnings": result.style.warnings,
            "lines": list(result.style.lines),
        },
    }
