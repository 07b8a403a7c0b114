# SPDX-License-Identifier: GPL-2.0-or-later
"""The one document that all reports are made from, and its JSON.

``report.json``, ``validate --json`` and ``report --format json`` are this
document; docs/report.schema.json is its JSON Schema.  A renderer takes the
document and nothing else, so `vfio-p2p report` shows an older report just
as the command that wrote it did.

The JSON is pure ASCII, so that none of its texts can act on a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from vfio_p2p.errors import InputError
from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict, decided, worst
from vfio_p2p.report.older import upgraded
from vfio_p2p.report.run import Run, Value
from vfio_p2p.report.sections import (
    ComparedSets,
    FollowupTrial,
    JudgedChange,
    JudgedPatch,
    JudgedTree,
    MutantTrial,
    VersionMatrix,
    counted,
)
from vfio_p2p.report.setup import build_of
from vfio_p2p.trace import printable

FORMAT = 2
KIND: Final = "vfio-p2p report"

_KEY_LENGTH = 8
_EXPECTED = (
    "Give a bundle, a folder of bundles or logs, or the report.json that "
    "'validate' or 'report' wrote."
)


class Document(Value, frozen=True, kw_only=True):
    """A whole report.

    :param verdict: The verdict over everything in the report.
    :param qemu: The version string of the QEMU under test; may be empty.
    :param base: The name of its base; may be empty.
    :param origin: Where its source is from; may be empty.
    :param unproven: The rules that nothing in this report broke.  A rule
        that nothing is known to break proves little.
    :param runs: The runs.
    :param trees: The sets of runs of 'validate --all'; see `Run.tree`.
    :param patches: The series judged patch by patch.
    :param control: The verdicts on the tree without any mutant, by the
        names of the scenarios.
    :param mutants: The results of the mutants.
    :param followups: The results of the follow-ups.
    :param versions: The migrations between QEMUs of different releases.
    :param comparison: The comparison of A with B.
    :param change: The change of QEMU that was judged.
    :param picture: The file with the picture that 'demo' drew.
    """

    format: int = FORMAT
    kind: Literal["vfio-p2p report"] = KIND
    verdict: Verdict
    qemu: str = ""
    base: str = ""
    origin: str = ""
    unproven: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    trees: tuple[JudgedTree, ...] = ()
    patches: tuple[JudgedPatch, ...] = ()
    control: dict[str, Verdict] = msgspec.field(default_factory=dict)
    mutants: tuple[MutantTrial, ...] = ()
    followups: tuple[FollowupTrial, ...] = ()
    versions: VersionMatrix | None = None
    comparison: ComparedSets | None = None
    change: JudgedChange | None = None
    picture: str = ""

    @classmethod
    def of(
        cls,
        runs: Iterable[Run],
        *,
        qemu: str = "",
        base: str = "",
        origin: str = "",
        verdict: Verdict | None = None,
        unproven: Sequence[str] | None = None,
        trees: Sequence[JudgedTree] = (),
        patches: Sequence[JudgedPatch] = (),
        control: Mapping[str, Verdict] | None = None,
        mutants: Sequence[MutantTrial] = (),
        followups: Sequence[FollowupTrial] = (),
        versions: VersionMatrix | None = None,
        comparison: ComparedSets | None = None,
        change: JudgedChange | None = None,
        picture: str = "",
    ) -> Document:
        """Make a report.

        :param runs: The runs.  Those without a `Run.tree` get one: the name
            of the variant, and of its build if the report has several.
        :param verdict: The verdict; by default the worst of the runs'.
        :param unproven: The rules that nothing broke; by default those that
            none of the runs broke.
        """
        named = _with_trees(tuple(runs))
        if verdict is None:
            verdict = worst(run.verdict for run in named)
        if unproven is None:
            unproven = unbroken(named)
        return cls(
            verdict=verdict,
            qemu=qemu,
            base=base,
            origin=origin,
            unproven=tuple(unproven),
            runs=named,
            trees=tuple(trees),
            patches=tuple(patches),
            control=dict(control or {}),
            mutants=tuple(mutants),
            followups=tuple(followups),
            versions=versions,
            comparison=comparison,
            change=change,
            picture=picture,
        )

    @property
    def tree_names(self) -> tuple[str, ...]:
        """The names of the sets of runs, in order of appearance."""
        return tuple(dict.fromkeys(run.tree for run in self.runs))

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The names of the scenarios, in order of appearance."""
        return tuple(dict.fromkeys(run.scenario for run in self.runs))


def with_tree(run: Run, name: str) -> Run:
    """Return a run that is of a tree with this name.

    :param run: The run.
    :param name: The name of a `JudgedTree`.
    """
    return msgspec.structs.replace(run, tree=name)


def unbroken(runs: Iterable[Run], also: Iterable[str] = ()) -> list[str]:
    """The rules that nothing broke, in the order of the oracle's table.

    :param runs: Runs, of which known defects count, too.
    :param also: Names of rules that something else broke.
    """
    broken = set(also)
    for run in runs:
        broken |= {found.rule for found in (*run.findings, *run.known)}
    return [rule.name for rule in RULES if rule.name not in broken]


def common(texts: Iterable[str]) -> str:
    """Join the different ones of some texts, without the empty ones.

    :param texts: A text of each report or tree, e.g. its QEMU.
    """
    return ", ".join(dict.fromkeys(x for x in texts if x))


def to_json(document: Document) -> str:
    """Encode a document as JSON, in pure ASCII.

    :param document: The document.
    """
    return json.dumps(msgspec.to_builtins(document), indent=1) + "\n"


def from_json(data: bytes, name: str) -> Document:
    """Decode a document, or a report of format 1.

    :param data: The JSON.
    :param name: The file's name, for messages.
    :raise InputError: When it is no report, or newer than this program.
    """
    try:
        raw = json.loads(data, parse_constant=_no_constant)
        if not isinstance(raw, dict):
            raise ValueError("it is no JSON object")
        version = msgspec.convert(raw.get("format"), int)
        if version > FORMAT:
            raise InputError(
                f"{printable(name)}: report format {version} is newer than "
                f"this program, which knows up to {FORMAT}",
                "Use a newer vfio-p2p.",
            )
        if version < FORMAT:
            raw = upgraded(raw)
        if raw.get("kind") != KIND:
            raise ValueError(f"it is a {raw.get('kind')!r}")
        document = msgspec.convert(raw, Document)
    except (ValueError, msgspec.ValidationError, RecursionError) as err:
        raise InputError(
            f"{printable(name)}: not a report: {printable(str(err))}",
            _EXPECTED,
        ) from err
    runs = _with_trees(tuple(map(_consistent, document.runs)))
    document = msgspec.structs.replace(document, runs=runs)
    # Anybody can write a report, so its verdict is checked by its contents.
    verdict = worst([document.verdict, *_contained(document)])
    told = document.unproven
    if "unproven" not in raw:
        told = tuple(unbroken(runs))
    return msgspec.structs.replace(
        document, verdict=verdict, unproven=told
    )


def _consistent(run: Run) -> Run:
    """Return a run whose verdict agrees with what was found in it."""
    if run.findings and run.verdict is Verdict.PASS:
        return msgspec.structs.replace(run, verdict=Verdict.FAIL)
    return run


def _contained(document: Document) -> list[Verdict]:
    """Return the verdicts on the parts of a report.

    The runs of an experiment or a comparison may break rules, and those of the
    tree without a mutant are its controls; otherwise the runs count.  A report
    without any part knows nothing.
    """
    experiment = document.picture or document.comparison
    parts = [
        *_of_change(document),
        *counted(trial.fate for trial in document.mutants),
        *document.control.values(),
        *(patch.verdict for patch in document.patches),
        *(trial.verdict for trial in document.followups),
    ]
    if document.versions:
        # What QEMU refuses does not make the verdict less sure.
        parts.append(decided(run.verdict for run in document.runs))
    elif document.trees:
        # Nor does a scenario that is not for the release of a tree.
        for tree in document.tree_names:
            parts.append(
                decided(x.verdict for x in document.runs if x.tree == tree)
            )
    elif not (
        experiment
        or document.mutants
        or document.followups
        or document.change
    ):
        parts += [run.verdict for run in document.runs]
    if not parts and not (experiment and document.runs):
        parts.append(Verdict.INCONCLUSIVE)
    return parts


def _of_change(document: Document) -> list[Verdict]:
    """Return the verdicts on a change, in scenarios that could be run."""
    if document.change is None:
        return []
    if document.change.not_built:
        return [Verdict.FAIL]
    return [decided(trial.verdict for trial in document.change.trials)]


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _with_trees(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    builds: dict[str, dict[str, None]] = {}
    for run in runs:
        builds.setdefault(run.variant, {})[build_of(run)] = None

    def name(run: Run) -> str:
        if len(builds[run.variant]) == 1:
            return run.variant
        return f"{run.variant} ({build_of(run, _KEY_LENGTH)})"

    return tuple(
        run if run.tree else msgspec.structs.replace(run, tree=name(run))
        for run in runs
    )
