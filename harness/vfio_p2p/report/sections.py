# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts that only some documents have, as plain values.

The modules of `vfio_p2p.plans.judging` decide what they say.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from vfio_p2p.downtime.compare import Change
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.run import LengthNs, Value


class JudgedTree(Value, frozen=True, kw_only=True):
    """A set of runs of one tree; `Run.tree` refers to it by its name.

    :param name: The name, which tells the tree from all others.
    :param qemu: The version string of its QEMU.
    :param base: The name of its base.
    :param origin: Where its source is from.
    """

    name: str
    qemu: str = ""
    base: str = ""
    origin: str = ""


class JudgedPatch(Value, frozen=True, kw_only=True):
    """A row of the table that judges the series patch by patch.

    :param patch: How many patches the tree has; 0 is the base.
    :param subject: The subject of its last patch; empty for the base.
    :param verdict: The verdict over its runs.
    :param columns: The cells of the row, by the titles of the columns.
    """

    patch: int
    subject: str
    verdict: Verdict
    columns: dict[str, str]


class Fate(StrEnum):
    """The fate of a mutant, from the best to the worst."""

    KILLED = "killed"
    EQUIVALENT = "equivalent"
    WAITS = "waits"
    NOT_JUDGED = "not judged"
    BY_ANOTHER = "killed by another rule"
    NOT_BUILT = "did not build"
    SURVIVED = "survived"

    @property
    def verdict(self) -> Verdict:
        """The verdict that the fate means for the suite."""
        return _VERDICTS[self]


_VERDICTS = {
    Fate.KILLED: Verdict.PASS,
    # It lives because it does nothing else, which says nothing of the suite.
    Fate.EQUIVALENT: Verdict.SKIP,
    Fate.WAITS: Verdict.SKIP,
    Fate.NOT_JUDGED: Verdict.ERROR,
    # The rule that has to see the mutant does not.
    Fate.BY_ANOTHER: Verdict.FAIL,
    # A mutant that does not build proves nothing.
    Fate.NOT_BUILT: Verdict.FAIL,
    Fate.SURVIVED: Verdict.FAIL,
}


def counted(fates: Iterable[Fate]) -> list[Verdict]:
    """The verdicts that the fates of mutants mean together.

    Mutants that wait do not make the verdict on the others less sure.

    :param fates: The fates.
    """
    found = [fate.verdict for fate in fates]
    if Verdict.PASS in found:
        return [x for x in found if x is not Verdict.SKIP]
    return found


class MutantTrial(Value, frozen=True, kw_only=True):
    """The result of judging one mutant.

    :param name: The name of the mutant.
    :param trips: The rule that has to catch it.
    :param scenarios: The scenarios in which the rule has to catch it.
    :param fate: The fate of the mutant.
    :param rules: The rules that did catch the mutant, in any scenario.
    :param detail: Details of the fate; may be empty.
    """

    name: str
    trips: str
    scenarios: tuple[str, ...]
    fate: Fate
    rules: tuple[str, ...] = ()
    detail: str = ""


class FollowupTrial(Value, frozen=True, kw_only=True):
    """The result of one follow-up in one scenario.

    :param followup: The name of the follow-up.
    :param scenario: The name of the scenario.
    :param fixes: Whether the scenario shows the defect that the follow-up
        fixes; otherwise it only has to pass all the same.
    :param verdict: The verdict on the trial.
    :param detail: Why the verdict is not a pass; empty if it is.
    :param without: The result of the tree without the follow-up, in a word.
    :param mended: The result of the tree with the follow-up, in a word.
    """

    followup: str
    scenario: str
    fixes: bool
    verdict: Verdict
    detail: str = ""
    without: str = ""
    mended: str = ""


class Crossing(StrEnum):
    """Whether a scenario could be judged between two QEMUs."""

    JUDGED = "judged"
    # QEMU refuses the devices, as the scenario expects of one of the trees.
    REFUSED = "refused"
    # One QEMU cannot be the machine that the other one is.
    UNLIKE = "another machine"


class PairTrial(Value, frozen=True, kw_only=True):
    """The result of one scenario from one QEMU to another.

    :param source: The name of the source's QEMU.
    :param destination: The name of the destination's QEMU.
    :param scenario: The name of the scenario.
    :param machine: The machine type of the VM.
    :param crossing: Whether it could be judged.
    :param verdict: The verdict on the run.
    :param blackout_ns: The blackout, in nanoseconds; null if there was none.
    :param words: What QEMU said when it refused; empty if it did not.
    :param notes: The rules that were broken although it was refused.
    """

    source: str
    destination: str
    scenario: str
    machine: str
    crossing: Crossing
    verdict: Verdict
    blackout_ns: LengthNs | None = None
    words: str = ""
    notes: tuple[str, ...] = ()


class VersionMatrix(Value, frozen=True, kw_only=True):
    """Migrations from each of several QEMUs to each of them.

    :param qemus: The QEMUs.
    :param pairs: The results of all ordered pairs.
    """

    qemus: tuple[JudgedTree, ...]
    pairs: tuple[PairTrial, ...]


class ChangeFate(StrEnum):
    """What a change of QEMU does in one scenario."""

    KEPT = "as before"
    REPAIRED = "repaired"
    BROKEN_BEFORE = "broken before"
    NOT_JUDGED = "not judged"
    BROKEN = "broken"


class ComparedRuns(Value, frozen=True, kw_only=True):
    """One of the two sets of runs that are compared.

    :param name: The name of the variant or folder.
    :param qemu: The version string of its QEMU.
    :param scenario: The name of its scenario.
    :param latencies: The model that its latencies are taken from; empty if
        they are the scenario's own.
    :param runs: The number of runs that were compared.
    :param outliers_ns: Blackouts that lie apart from the others; they
        count all the same.
    """

    name: str
    qemu: str
    scenario: str
    latencies: str = ""
    runs: int = 0
    outliers_ns: tuple[int, ...] = ()


class ComparedFigure(Value, frozen=True, kw_only=True):
    """One figure of A, compared with the same figure of B.

    :param name: The name, as in `vfio_p2p.downtime.metrics`.
    :param change: How the figure changed.
    :param a_ns: The median of A, nanoseconds.
    :param b_ns: The median of B.
    :param difference_ns: The median difference, B less A.
    :param percent: The difference in percent of A's blackout.
    :param interval_ns: The interval of confidence of the difference.
    :param p: How often chance alone would show such a difference.
    :param smallest_ns: The smallest difference that these runs could have
        shown; null if they could not have shown any.
    """

    name: str
    change: Change
    a_ns: float
    b_ns: float
    difference_ns: float
    percent: float
    interval_ns: tuple[float, float]
    p: float
    smallest_ns: float | None = None

    @property
    def changed(self) -> bool:
        """Whether these runs show a difference that is of interest."""
        return self.change in (Change.SLOWER, Change.FASTER)


class ComparedSets(Value, frozen=True, kw_only=True):
    """The comparison of A with B.

    :param a: The runs of A.
    :param b: The runs of B.
    :param seeds: The seeds of the pairs; empty if the runs are not paired.
    :param confidence: The level of confidence of all intervals.
    :param change: How the blackout changed.
    :param rows: The blackout, its phases in order, then devices; empty if
        there was nothing to compare.
    :param where: The names of the phases and devices that changed, those
        that changed most first.
    :param notes: Further remarks.
    """

    a: ComparedRuns
    b: ComparedRuns
    seeds: tuple[int, ...]
    confidence: float
    change: Change
    rows: tuple[ComparedFigure, ...]
    where: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[ComparedFigure, ...]:
        """The figures that `where` names, in its order."""
        rows = {row.name: row for row in self.rows}
        return tuple(rows[name] for name in self.where if name in rows)


class ChangeTrial(Value, frozen=True, kw_only=True):
    """A change of QEMU in one scenario; A is without it, and B with it.

    :param scenario: The name of the scenario.
    :param fate: What the change does.
    :param verdict: The verdict that this means for the change.
    :param a: How the runs of A came out, in a few words.
    :param b: How those of B came out.
    :param breaks: The rules that B breaks and A does not.
    :param repairs: The rules that A breaks and B does not.
    :param a_ns: The median of A's blackouts, nanoseconds; null if none of
        its runs has one.
    :param b_ns: The median of B's blackouts.
    :param moved: The blackout and its phases, as far as they changed.
    :param detail: Why the scenario is not judged; empty if it is.
    """

    scenario: str
    fate: ChangeFate
    verdict: Verdict
    a: str
    b: str
    breaks: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    a_ns: float | None = None
    b_ns: float | None = None
    moved: tuple[ComparedFigure, ...] = ()
    detail: str = ""


class JudgedChange(Value, frozen=True, kw_only=True):
    """A change of QEMU's source, judged against the tree without it.

    :param a: The name of the tree without the change.
    :param b: The name of the tree with it.
    :param files: The files that the patches were read from, as they were
        named.
    :param subjects: The titles of the patches, in order.
    :param changed: The paths in QEMU's tree that they change.
    :param why: Why these scenarios were run, in words.
    :param named: The scenarios that were asked for; empty if the changed
        files decided.
    :param source: The source as it was named; empty if it is Debian's.
    :param seeds: The seeds of the runs; empty if they are not sealed.
    :param trials: The scenarios.
    :param not_built: Why B did not build; empty if it did.
    """

    a: str
    b: str
    files: tuple[str, ...]
    subjects: tuple[str, ...]
    changed: tuple[str, ...]
    why: str
    named: tuple[str, ...] = ()
    source: str = ""
    seeds: tuple[int, ...] = ()
    trials: tuple[ChangeTrial, ...] = ()
    not_built: str = ""

    def having(self, fate: ChangeFate) -> tuple[ChangeTrial, ...]:
        """The scenarios with a fate.

        :param fate: The fate.
        """
        return tuple(x for x in self.trials if x.fate is fate)
