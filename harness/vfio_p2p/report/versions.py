# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations between releases, as a table of each scenario."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vfio_p2p.oracle.verdict import Verdict, decided
from vfio_p2p.report.sections import Crossing, PairTrial, VersionMatrix


def scenarios_of(matrix: VersionMatrix) -> tuple[str, ...]:
    """Return the names of the scenarios, in order of appearance.

    :param matrix: The matrix.
    """
    return tuple(dict.fromkeys(x.scenario for x in matrix.pairs))


def rows_of(
    matrix: VersionMatrix, scenario: str
) -> Iterator[tuple[tuple[str, ...], Verdict]]:
    """Yield a row for each source: its name, and a cell for each destination.

    :param matrix: The matrix.
    :param scenario: The name of the scenario.
    :return: The rows with the verdict on each.
    """
    found = {
        (x.source, x.destination): x
        for x in matrix.pairs
        if x.scenario == scenario
    }
    names = [x.name for x in matrix.qemus]
    for source in names:
        row = [found.get((source, x)) for x in names]
        yield (
            (source, *map(cell, row)),
            decided(x.verdict for x in row if x is not None),
        )


def cell(trial: PairTrial | None) -> str:
    """Say in a word or a figure what came of a pair.

    :param trial: The pair; None if it was not tried.
    """
    if trial is None:
        return "-"
    if trial.crossing is not Crossing.JUDGED:
        return "refused"
    if trial.verdict is not Verdict.PASS:
        text = str(trial.verdict)
        return text.upper() if trial.verdict is Verdict.FAIL else text
    if trial.blackout_ns is None:
        return str(trial.verdict)
    return f"{trial.blackout_ns / 1e6:.3f} ms"


def remarks_of(matrix: VersionMatrix, scenario: str) -> Iterator[str]:
    """Yield what QEMU said when it refused, and for which pairs.

    :param matrix: The matrix.
    :param scenario: The name of the scenario.
    """
    words: dict[str, list[PairTrial]] = {}
    for trial in matrix.pairs:
        if trial.scenario == scenario and trial.words:
            words.setdefault(trial.words, []).append(trial)
    for text, trials in words.items():
        yield f"refused from {_pairs(trials)}: {text}"
    notes: dict[str, list[PairTrial]] = {}
    for trial in matrix.pairs:
        for note in trial.notes if trial.scenario == scenario else ():
            notes.setdefault(note, []).append(trial)
    for text, trials in notes.items():
        yield f"after that, from {_pairs(trials)}: {text}"


def machines_of(matrix: VersionMatrix) -> Iterator[str]:
    """Yield which pairs of QEMUs had which machine type.

    :param matrix: The matrix.
    """
    found: dict[str, dict[tuple[str, str], PairTrial]] = {}
    for trial in matrix.pairs:
        key = (trial.source, trial.destination)
        found.setdefault(trial.machine, {}).setdefault(key, trial)
    most = max(found, key=lambda x: len(found[x]), default="")
    for machine, pairs in found.items():
        if machine and machine != most:
            yield f"{machine} from {_pairs(pairs.values())}"
    if most:
        yield most if len(found) == 1 else f"{most} for all others"


def _pairs(trials: Iterable[PairTrial]) -> str:
    """Name pairs; those of one source share its name."""
    found: dict[str, list[str]] = {}
    for x in trials:
        found.setdefault(x.source, []).append(x.destination)
    return "; from ".join(
        f"{source} to {', '.join(names)}" for source, names in found.items()
    )
