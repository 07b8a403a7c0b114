# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge any change of QEMU: a tree without and with patches on top."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from vfio_p2p.choice import SEALED
from vfio_p2p.errors import BuildError, SkipError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.bearing import bearing_of, scenarios_for
from vfio_p2p.plans.installed import AsItIs
from vfio_p2p.plans.judging.change import ChangeRuns, trial, verdict
from vfio_p2p.plans.runs import (
    TreeRuns,
    forget_reports,
    judge_trees,
    write_reports,
)
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import Chosen, build_all, choose
from vfio_p2p.plans.validate import load_scenarios
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.qemu import Build
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import JudgedChange
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Patch, Variant, parse_variant
from vfio_p2p.series.pile import changed_files, patches_of_file
from vfio_p2p.side import Side

# The newest release that Debian has as a source, and A, if none is named.
BASE = "v10.2"
AGAINST = "stock"

_MOST_NAME = 40


@dataclass(frozen=True)
class ChangeRequest:
    """Patches, and the tree that they are judged on.

    :param patches: The files with the patches, in the order in which they
        apply; each is a patch, or an mbox with a series.
    :param against: The variant without them, see `parse_variant`.
    :param scenarios: The names or files of the scenarios; empty means those
        that the changed files bear on.
    :param origin: The source; without any, it is that of Debian for `BASE`.
    :param setting: Where and how the runs are made.
    """

    patches: tuple[Path, ...]
    against: str = AGAINST
    scenarios: tuple[str, ...] = ()
    origin: Origin = Origin()
    setting: Setting = Setting()


def validate_change(
    request: ChangeRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Build a tree without and with patches, and compare what they do.

    The bundles, ``report.json`` and ``junit.xml`` are left in the folder of
    the setting.

    :return: The report.  Its verdict is FAIL if the patches break something
        that the tree without them keeps, or do not build.
    :raise PatchError: When a patch cannot be read, or does not apply.
    :raise SkipError: When the patches bear on no scenario, or change nothing
        in the binary.
    :raise InputError: When an option, a file or the source is wrong.
    :raise BuildError: When the tree without them does not build.
    """
    setting = request.setting
    patches = tuple(
        patch
        for path in request.patches
        for patch in patches_of_file(Patch.load(path))
    )
    changed = changed_files(patches)
    names = request.scenarios or scenarios_for(changed)
    if not names:
        raise SkipError(
            f"no scenario bears on {', '.join(changed)[:200]}",
            "Name scenarios with --scenario to run them all the same.",
        )
    scenarios = load_scenarios(names, setting, reporter)
    setting.check()
    workshop.check(setting)
    chosen = choose(_origin(request.origin), reporter, workshop)
    a = parse_variant(chosen.base, request.against)
    b = Variant(
        f"{a.name}+{_name_of(request.patches)}", (*a.patches, *patches)
    )
    # If A's own patches do not apply, these are not to blame.
    workshop.check_patches(chosen.source, a.patches)
    workshop.check_patches(chosen.source, b.patches)
    judged = _described(request, b, patches, changed)
    forget_reports(setting.out)
    built = build_all(chosen.source, [a], reporter, workshop)
    try:
        built += build_all(chosen.source, [b], reporter, workshop)
    except BuildError as err:
        text = f"{err.what}\n{err.tail}".strip()
        document = _document(
            chosen, None, msgspec.structs.replace(judged, not_built=text)
        )
    else:
        _check_differ(built)
        made = judge_trees(
            chosen,
            [(tree, x) for x in scenarios for tree in (a, b)],
            setting,
            reporter,
            workshop,
            _as_built(chosen, built, workshop),
        )
        document = _judged(chosen, made, judged, (a, b), scenarios)
    write_reports(setting.out, document)
    return document


def _described(
    request: ChangeRequest,
    b: Variant,
    patches: Sequence[Patch],
    changed: tuple[str, ...],
) -> JudgedChange:
    """Describe the change, before anything is known of it."""
    setting = request.setting
    why = "the ones that were named"
    if not request.scenarios:
        why = _why(changed)
    return JudgedChange(
        a=request.against,
        b=b.name,
        files=tuple(map(str, request.patches)),
        subjects=tuple(x.subject for x in patches if x.subject),
        changed=changed,
        why=why,
        named=request.scenarios,
        source=str(request.origin.source or ""),
        seeds=tuple(setting.every_seed) if setting.at == SEALED else (),
    )


def _as_built(
    chosen: Chosen, built: Sequence[Build], workshop: Workshop
) -> dict[str, AsItIs]:
    """Return the builds as QEMUs that need not be built, by variant."""
    return {
        x.variant: AsItIs(
            chosen.source.origin,
            dict.fromkeys(Side, workshop.program(x)),
            chosen.base,
        )
        for x in built
    }


def _origin(origin: Origin) -> Origin:
    if origin.source is None and origin.base is None:
        return replace(origin, base=BASE)
    return origin


def _check_differ(built: Sequence[Build]) -> None:
    """See that there is something to test.

    A change of code that is not built, or of comments, would pass anything.

    :raise SkipError: When both trees gave the same binary.
    """
    a, b = (x.sha256 for x in built)
    if a and a == b:
        raise SkipError(
            "the QEMU with the patches is the same as without them, to the "
            "byte",
            "They change nothing in this build, which has no more than the "
            "testbed needs; so there is nothing to run.",
        )


def _name_of(paths: Sequence[Path]) -> str:
    """Return what the tree with the patches is called, after their file."""
    if not paths:
        raise UsageError("there is no patch", "Name one with --patch FILE.")
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", paths[0].stem)[:_MOST_NAME]
    return name.strip("-.") or "patch"


def _why(changed: Sequence[str]) -> str:
    """Say why these scenarios are run."""
    found = {bearing_of(path).what: path for path in reversed(changed)}
    found.pop("no scenario", None)
    return "; ".join(f"{what} ({path})" for what, path in found.items())


def _judged(
    chosen: Chosen,
    made: TreeRuns,
    judged: JudgedChange,
    trees: tuple[Variant, Variant],
    scenarios: Sequence[Scenario],
) -> Document:
    runs: list[Run] = []
    for letter, tree in zip("AB", trees, strict=True):
        shown = judged.a if letter == "A" else judged.b
        runs += [
            msgspec.structs.replace(x.run, tree=f"{letter} ({shown})")
            for x in made.results
            if x.run.variant == tree.name
        ]
    found = [
        trial(
            ChangeRuns(
                name,
                *(
                    tuple(
                        run
                        for run in runs
                        if run.variant == tree.name and run.scenario == name
                    )
                    for tree in trees
                ),
            )
        )
        for name in (x.name for x in scenarios)
    ]
    return _document(
        chosen,
        made.version,
        msgspec.structs.replace(judged, trials=tuple(found)),
        runs,
        verdict(found),
    )


def _document(
    chosen: Chosen,
    qemu: str | None,
    judged: JudgedChange,
    runs: Sequence[Run] = (),
    found: Verdict = Verdict.FAIL,
) -> Document:
    return Document.of(
        runs,
        qemu=qemu or f"QEMU {chosen.source.version}",
        base=chosen.base.name,
        origin=chosen.source.origin,
        verdict=found,
        change=judged,
    )
