# SPDX-License-Identifier: GPL-2.0-or-later
"""A against B, for a terminal or a mail, and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from vfio_p2p.downtime.compare import Change, Comparison, MetricRow
from vfio_p2p.downtime.metrics import DEVICE, PHASE
from vfio_p2p.downtime.stats import LEVEL
from vfio_p2p.trace import printable

FORMAT = 1

# Room for the name of every phase; those of devices may be longer.
_NAME = 18

_RISK = f"{100 - 100 * LEVEL:.0f} %"
_LEGEND = (
    "A, B: medians. B-A: median difference, in ms and in percent of A's "
    f"blackout,\nwith its {_RISK} interval (bootstrap). p: of the blackout "
    "alone, of the parts\ntogether. tells: the smallest difference that "
    "these runs could have shown."
)


@dataclass(frozen=True)
class Group:
    """What A or B is.

    :param name: The variant's, or the folder's.
    :param qemu: QEMU's version.
    :param scenario: Name of the scenario.
    :param latencies: What `vfio_p2p.scenario.profile.latencies` says of it.
    """

    name: str
    qemu: str
    scenario: str
    latencies: str = ""


def render(first: Group, second: Group, found: Comparison) -> str:
    """The comparison as text of 79 columns.

    :param first: What A is.
    :param second: What B is.
    :param found: How they compare.
    """
    lines = [
        f"{letter}: {printable(x.name)}, {printable(x.scenario)}, "
        f"{printable(x.qemu)}"
        for letter, x in (("A", first), ("B", second))
    ]
    told = dict.fromkeys(x.latencies for x in (first, second))
    lines += [f"latencies: {printable(x)}" for x in told if x]
    lines.append(_runs(found))
    if found.rows:
        lines += ["", *_table(found), "", _LEGEND]
    for letter, values_ns in zip("AB", found.outliers_ns, strict=True):
        if values_ns:
            shown = ", ".join(f"{x / 1e6:.3f}" for x in values_ns)
            lines.append(f"apart, but counted, in {letter}: {shown} ms")
    lines += [
        line
        for note in found.notes
        for line in wrap(f"note: {printable(note)}", subsequent_indent="  ")
    ]
    lines += ["", *answer(found)]
    return "\n".join(lines)


def _runs(found: Comparison) -> str:
    if found.seeds:
        seeds = ", ".join(map(str, found.seeds))
        return f"{len(found.seeds)} pairs, of seeds {seeds}"
    return f"{found.count_a} runs of A and {found.count_b} of B, not paired"


def _table(found: Comparison) -> list[str]:
    heads = ("A ms", "B ms", "B-A ms", "%", f"{_RISK} interval", "p", "tells")
    widths = (8, 8, 8, 8, 17, 6, 6)
    lines = [" " * _NAME + "".join(map(str.rjust, heads, widths))]
    parts = [x for x in found.rows[1:] if x.name.startswith(PHASE)]
    parts += [x for x in found.where if x.name.startswith(DEVICE)]
    for row in (*found.rows[:1], *parts):
        effect = row.effect
        name = printable(row.name.removeprefix(PHASE).removeprefix(DEVICE))
        smallest_ns = effect.smallest_ns
        if len(name) > _NAME:
            lines.append(name)
            name = ""
        lines.append(
            f"{name:{_NAME}}"
            + _fit(row.a_ns / 1e6, 8)
            + _fit(row.b_ns / 1e6, 8)
            + _fit(effect.difference_ns / 1e6, 8, "+")
            + _fit(found.percent(effect.difference_ns), 8, "+")
            + _fit(effect.low_ns / 1e6, 8, "+")
            + _fit(effect.high_ns / 1e6, 9, "+")
            + f"{effect.p:6.3f}"
            + (
                f"{'-':>6}"
                if smallest_ns is None
                else _fit(smallest_ns / 1e6, 6)
            )
        )
    return lines


def _fit(value: float, width: int, sign: str = "-") -> str:
    """A number with as many decimals as there is room for."""
    for decimals in (3, 2, 1):
        text = f"{value:{sign}.{decimals}f}"
        if len(text) < width:
            break
    return f"{text:>{width}}"


def answer(found: Comparison) -> list[str]:
    """What became of the blackout, and which parts of it changed.

    :param found: The comparison.
    """
    whole = found.whole
    if whole is None:
        return ["blackout: there is none to compare"]
    if all(x.change is Change.IDENTICAL for x in found.rows):
        return ["blackout: identical, and so is every part of it"]
    lines = [f"blackout: {_words(found, whole)}"]
    for row in found.where:
        kind, _, name = row.name.partition(".")
        lines.append(f"  {kind} {printable(name)}: {_words(found, row)}")
    return lines


def _words(found: Comparison, row: MetricRow) -> str:
    effect = row.effect
    by_ns = abs(effect.difference_ns)
    if row.changed:
        return (
            f"{row.change} by {by_ns / 1e6:.3f} ms "
            f"({found.percent(effect.difference_ns):+.2f} %), "
            f"p = {effect.p:.4f}"
        )
    return str(row.change)


def as_json(
    first: Group, second: Group, found: Comparison
) -> dict[str, Any]:
    """The comparison as one document; `FORMAT` is its version.

    :param first: What A is.
    :param second: What B is.
    :param found: How they compare.
    """
    return {
        "format": FORMAT,
        "kind": "vfio-p2p comparison",
        **{
            letter: {
                "name": x.name,
                "qemu": x.qemu,
                "scenario": x.scenario,
                "latencies": x.latencies,
                "runs": count,
                "outliers_ns": list(apart),
            }
            for letter, x, count, apart in zip(
                "ab",
                (first, second),
                (found.count_a, found.count_b),
                found.outliers_ns,
                strict=True,
            )
        },
        "seeds": list(found.seeds),
        "confidence": 1 - LEVEL,
        "change": str(found.change),
        "rows": [
            {
                "name": row.name,
                "change": str(row.change),
                "a_ns": row.a_ns,
                "b_ns": row.b_ns,
                "difference_ns": row.effect.difference_ns,
                "percent": found.percent(row.effect.difference_ns),
                "interval_ns": [row.effect.low_ns, row.effect.high_ns],
                "p": row.effect.p,
                "smallest_ns": row.effect.smallest_ns,
            }
            for row in found.rows
        ],
        "where": [row.name for row in found.where],
        "notes": list(found.notes),
    }
