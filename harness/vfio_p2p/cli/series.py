# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p series``: the patches."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.series import (
    Base,
    Followup,
    Mutant,
    Patch,
    apply_patches,
    base_for,
    check_patch,
    find_base,
    load_bases,
    load_followups,
    load_mutants,
    parse_variant,
)
from vfio_p2p.series.fit import (
    SeriesLevel,
    applied_count,
    fitting_base,
    misfit,
    recognise,
    stock_error,
)
from vfio_p2p.series.git import commit_patches, local_changes
from vfio_p2p.series.thread import export
from vfio_p2p.series.tree import Folder, open_folder, replace_files
from vfio_p2p.series.verify import Verified, verify
from vfio_p2p.trace import printable

FORMAT = 1


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``series``."""
    parser = commands.add_parser(
        "series",
        help="the patches: list, apply, verify, export",
        description="The series as patches, for each QEMU that it is for.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_list(actions)
    _add_apply(actions)
    _add_verify(actions)
    _add_export(actions)


def _add_list(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    parser = actions.add_parser(
        "list",
        help="bases, their patches, mutants and follow-ups",
        description="List the bases, the QEMU versions that each is for, "
        "its patches, its mutants with what must catch them, and its "
        "follow-ups with what they mend.",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=_list)


def _add_tree_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tree", type=Path, metavar="TREE", help="QEMU")
    parser.add_argument(
        "--base",
        metavar="B",
        help="whose patches; by default those of the base that is for the "
        "tree's version",
    )


def _add_apply(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    parser = actions.add_parser(
        "apply",
        help="apply the series to a tree",
        description="Apply the series, and what has to come before it, to a "
        "QEMU tree: all or nothing. What the tree has already is not "
        "applied again.",
    )
    _add_tree_arguments(parser)
    parser.add_argument(
        "--upto",
        type=int,
        metavar="N",
        help="only the first N patches; 0 is the base (default: all)",
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
        help="even if the tree has local changes, which are kept",
    )
    parser.set_defaults(run=_apply)


def _add_verify(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    parser = actions.add_parser(
        "verify",
        help="whether each patch applies, and checkpatch.pl likes it",
        description="Say for every patch whether it applies, is applied, or "
        "where it conflicts, and what the tree's checkpatch.pl says. The "
        "tree is not touched. Exit code 1: there is something to mend.",
    )
    _add_tree_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=_verify)


def _add_export(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    parser = actions.add_parser(
        "export",
        help="write the series as mails, ready to send",
        description="Write the series as a thread of mails, one file each "
        "for 'git send-email', and as one mbox, which 'git am --empty=drop' "
        "takes.",
    )
    parser.add_argument("--base", required=True, metavar="B", help="whose")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a new or empty folder"
    )
    parser.set_defaults(run=_export)


def _list(args: argparse.Namespace) -> int:
    bases = load_bases()
    mutants = load_mutants()
    followups = load_followups()
    if args.json:
        document = {
            "format": FORMAT,
            "bases": [_base_document(x, mutants, followups) for x in bases],
        }
        print(json.dumps(document, indent=2))
        return 0
    for base in bases:
        where = base.folder or "has upstream's series, judged as it is"
        print(f"{base.name}, for QEMU {base.qemu}.x: {where}")
        for kind, patches in (("pre", base.pre), ("", base.patches)):
            for number, patch in enumerate(patches, 1):
                print(f"  {kind:3} {number}  {printable(patch.subject)}")
        for mutant in mutants:
            if mutant.base == base.name:
                _show_mutant(mutant)
        for followup in followups:
            if followup.base == base.name:
                fixes = ", ".join(followup.fixes)
                print(f"  follow-up {followup.name}: mends {fixes}")
    return 0


def _show_mutant(mutant: Mutant) -> None:
    print(
        f"  mutant {mutant.name}: {mutant.trips} "
        f"in {', '.join(mutant.scenarios)}"
    )
    if mutant.waits_for:
        print(f"    waits for: {printable(mutant.waits_for)}")


def _base_document(
    base: Base, mutants: Sequence[Mutant], followups: Sequence[Followup]
) -> dict[str, object]:
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
            }
            for x in mutants
            if x.base == base.name
        ],
        "followups": [
            {
                "name": x.name,
                "subject": Patch.load(x.path).subject,
                "fixes": list(x.fixes),
                "keeps": list(x.keeps),
            }
            for x in followups
            if x.base == base.name
        ],
    }


def _patch_documents(patches: Sequence[Patch]) -> list[dict[str, object]]:
    return [
        {"number": number, "file": x.name, "subject": x.subject}
        for number, x in enumerate(patches, 1)
    ]


def _apply(args: argparse.Namespace) -> int:
    tree = open_folder(args.tree)
    base = find_base(args.base) if args.base else fitting_base(tree)
    if not base.sequence:
        raise stock_error(tree)
    for patch in base.sequence:
        check_patch(patch)
    wanted = _wanted(base, args.upto, args.mutant)
    count = applied_count(tree, base)
    print(_describe(tree, base, count))
    length = len(wanted) - (1 if args.mutant else 0)
    if count > length:
        raise SourceError(
            f"{tree.root} has more of the series than that already",
            "take a fresh tree: nothing is taken out here",
        )
    patches = wanted[count:]
    if not patches:
        print("nothing to do")
        return 0
    _check_clean(tree, args)
    changes = apply_patches(tree, patches)
    if args.am:
        commit_patches(tree.root, patches)
    else:
        replace_files(tree.root, changes)
    for patch in patches:
        print(f"applied {patch.name}")
    return 0


def _wanted(
    base: Base, upto: int | None, mutant: str | None
) -> tuple[Patch, ...]:
    last = len(base.patches)
    if upto is not None and not 0 <= upto <= last:
        raise UsageError(
            f"--upto {upto}: there is no such patch",
            f"{base.name} has patches 1 to {last}; 0 is the base",
        )
    name = "patched" if upto is None else f"patch-{upto}" if upto else "base"
    plus = "" if mutant is None else f"+{mutant}"
    return parse_variant(base, f"{name}{plus}").patches


def _check_clean(tree: Folder, args: argparse.Namespace) -> None:
    changed = local_changes(tree.root)
    if not changed:
        return
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    what = f"{tree.root} has local changes: {changed[0]}{more}"
    if not args.allow_dirty:
        other = "" if args.am else ", or give --allow-dirty"
        raise SourceError(what, f"commit or stash them{other}")
    print(f"{printable(what)}; they are kept")


def _describe(tree: Folder, base: Base | None, count: int) -> str:
    """What a tree is, in one line."""
    level = recognise(tree)
    start = f"{tree.root}: QEMU {tree.version}"
    if base is None or count == 0:
        if level is SeriesLevel.SERIES:
            pure = base is None or misfit(tree, base) is None
            return printable(
                f"{start}, {level} ({'stock' if pure else 'changed'})"
            )
        return printable(f"{start}, {level}")
    series = count - len(base.pre)
    if series < 0:
        return printable(
            f"{start}, with pre-patches 1 to {count} of {base.name}"
        )
    if series == 0:
        return printable(f"{start}, is base {base.name}")
    return printable(
        f"{start}, is base {base.name} with patches 1 to {series}"
    )


def _verify(args: argparse.Namespace) -> int:
    tree = open_folder(args.tree)
    base = find_base(args.base) if args.base else _base_of(tree)
    results = verify(tree, base) if base else []
    if args.json:
        document = {
            "format": FORMAT,
            "tree": str(tree.root),
            "version": tree.version,
            "series": recognise(tree).name.lower(),
            "base": base.name if base else None,
            "patches": [_verified_document(x) for x in results],
        }
        print(json.dumps(document, indent=2))
    else:
        count = applied_count(tree, base) if base else 0
        print(_describe(tree, base, count))
        if not results:
            print("there is nothing to apply")
        for number, result in enumerate(results):
            pre = base is not None and number < len(base.pre)
            _show_verified(result, "pre/" if pre else "")
    return 0 if all(x.good for x in results) else 1


def _base_of(tree: Folder) -> Base | None:
    """The base to verify with; None if there is none, and no need."""
    covered = any(x.covers(tree.version) for x in load_bases())
    if not covered and recognise(tree) is SeriesLevel.SERIES:
        return None
    try:
        return fitting_base(tree)
    except SourceError:
        # What of it does not fit is what we are asked for.
        return base_for(tree.version)


def _show_verified(result: Verified, folder: str) -> None:
    name = printable(result.patch.name)
    print(f"  {result.state:15}  {folder}{name}")
    if result.conflict:
        where = (result.conflict.file, result.conflict.hunk)
        text = ": ".join([*filter(None, where), result.conflict.why])
        print(f"    {printable(text)}")
    style = result.style
    if style.errors or style.warnings:
        print(
            f"    checkpatch: {style.errors} errors, "
            f"{style.warnings} warnings"
        )
        for line in style.lines:
            print(f"      {printable(line)}")


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


def _export(args: argparse.Namespace) -> int:
    for path in export(find_base(args.base), args.folder):
        print(path)
    return 0
