# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as one HTML file, which opens anywhere and asks for nothing.

Whatever a template prints passes `_fit` and is then escaped; what the
script shows is JSON, of which it makes text and never markup.  The page's
policy lets only our own script and style act, by their hashes.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vfio_p2p.downtime.stats import LEVEL
from vfio_p2p.history.trend import Trend
from vfio_p2p.report import figures, trends
from vfio_p2p.report.compare import answer
from vfio_p2p.report.document import Document, Lane, Run
from vfio_p2p.report.figures import ms
from vfio_p2p.resources import resource
from vfio_p2p.trace import printable
from vfio_p2p.uapi import DeviceState

_TEMPLATES = resource("report", "templates")

# What a page shows of texts and lists that are not ours.
_MOST_CHARACTERS = 2000
_MOST_FINDINGS = 100
_MOST_LINES = 20
_MOST_NOTES = 100
_MOST_TREES = 6
# Stretches of time in all lanes of all runs; 500 usual runs have 80,000.
_MOST_STRETCHES = 120_000

# Where dots go that would hide one another.
_PILE = (0, 1, -1, 2, -2, 3, -3)

# Known to the style and the script by these places.
_STATES = tuple(state.name for state in DeviceState)


def render(document: Document, history: Sequence[Trend] | None = None) -> str:
    """The whole page.

    :param document: What to show.
    :param history: What went before, if that is to be shown.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_fit,
    )
    environment.filters["ms"] = ms
    style = _own("report.css")
    script = _own("report.js")
    found = figures.broken(document)
    tables = figures.tables(document)
    commands = figures.commands(document)
    shown = _with_lanes(document)
    return environment.get_template("report.html").render(
        document=document,
        style=style,
        script=script,
        policy=_policy(style, script),
        groups=figures.groups(document),
        tables=[_bars(table) for table in tables],
        strips=_strips(document, tables),
        findings=found[:_MOST_FINDINGS],
        findings_left_out=len(found) - len(found[:_MOST_FINDINGS]),
        confidence=f"{100 - 100 * LEVEL:.0f} %",
        most_lines=_MOST_LINES,
        most_trees=_MOST_TREES,
        notes=_notes(document),
        latencies=figures.latencies(document),
        commands=commands,
        exact_command=figures.exact_command(document),
        charts=None if history is None else [*map(trends.chart, history)],
        height=trends.HEIGHT,
        setups=_setups(document),
        states=_STATES,
        lanes_left_out=sum(bool(run.lanes) for run in document.runs)
        - len(shown),
        data=_data(document, shown),
    )


def _fit(value: object) -> object:
    """Make any text fit to show; what is markup is ours already."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "-"
    if not isinstance(value, str):
        return value
    text = printable(value[:_MOST_CHARACTERS])
    more = len(value) - _MOST_CHARACTERS
    return f"{text} ... ({more} characters more)" if more > 0 else text


def _own(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    hashes = [
        b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _notes(document: Document) -> list[tuple[str, int]]:
    """Why something is not known, and in how many runs."""
    counts: dict[str, int] = {}
    for run in document.runs:
        for note in run.notes:
            counts[note] = counts.get(note, 0) + 1
    return list(counts.items())[:_MOST_NOTES]


@dataclass(frozen=True)
class _Bar:
    """One bar of a waterfall, in percent of its width."""

    left: float
    width: float
    text: str


def _bars(table: figures.Table) -> dict[str, Any]:
    """A table, with the bars of each group's middle run."""
    compared = table.comparison
    shown = table.groups[:_MOST_TREES]
    middles = [group.middle for group in shown]
    longest = max(
        (run.blackout_ns or 0 for run in middles if run), default=0
    )
    rows = []
    for row in table.rows:
        bars = []
        for run in middles:
            bar = None
            if run is not None and longest:
                bar = _bar(run, row.name, longest)
            bars.append(bar)
        rows.append({"row": row, "bars": bars})
    return {
        "table": table,
        "middles": middles,
        "rows": rows,
        "answer": answer(compared) if compared else [],
        "left_out": len(table.groups) - len(shown),
    }


def _bar(run: Run, name: str, longest: int) -> _Bar | None:
    start, length = 0, run.blackout_ns
    if name != figures.TOTAL:
        part = next((x for x in run.phases if x.name == name), None)
        if part is None:
            return None
        start, length = part.start_ns, part.duration_ns
    if length is None:
        return None
    return _Bar(
        round(100 * start / longest, 3),
        round(100 * length / longest, 3),
        f"{name}: {ms(length)} ms, from {ms(start)} ms on",
    )


@dataclass(frozen=True)
class _Dot:
    """One run in a strip; `x` in percent, `y` in steps from the middle."""

    x: float
    y: int
    run: int
    text: str


def _strips(
    document: Document, tables: Sequence[figures.Table]
) -> list[dict[str, Any]]:
    """The blackouts of each scenario, where a tree has more than one."""
    numbers = {id(run): n for n, run in enumerate(document.runs)}
    found = []
    for table in tables:
        if all(len(group.blackouts) < 2 for group in table.groups):
            continue
        values = [x for group in table.groups for x in group.blackouts]
        low, high = min(values), max(values)
        span = (high - low) or 1

        def place(value: float, low: int = low, span: int = span) -> float:
            return round(4 + 92 * (value - low) / span, 3)

        rows = []
        for group in table.groups:
            quartiles = figures.quartiles(group.blackouts)
            rows.append(
                {
                    "group": group,
                    "dots": _dots(group.runs, numbers, place),
                    "quartiles": [place(x) for x in quartiles],
                    "median_ns": quartiles[1],
                }
            )
        found.append(
            {"scenario": table.scenario, "rows": rows, "low": low,
             "high": high}
        )
    return found


def _dots(
    runs: Sequence[Run], numbers: dict[int, int], place: Any
) -> list[_Dot]:
    """Dots that lie side by side where they would hide one another."""
    taken: dict[int, int] = {}
    dots = []
    for run in runs:
        if run.blackout_ns is None:
            continue
        x = place(run.blackout_ns)
        column = round(x / 0.8)
        count = taken.get(column, 0)
        taken[column] = count + 1
        dots.append(
            _Dot(
                x,
                _PILE[count % len(_PILE)],
                numbers[id(run)],
                f"seed {run.seed}: {ms(run.blackout_ns)} ms",
            )
        )
    return dots


def _setups(document: Document) -> list[dict[str, Any]]:
    """What each tree ran as and in, once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in document.runs:
        inputs = run.inputs
        key = (run.tree, inputs.source.build if inputs else "")
        setup = found.setdefault(
            key, {"tree": run.tree, "inputs": inputs, "devices": {}}
        )
        setup["devices"].setdefault(run.scenario, run.devices)
    return list(found.values())


def _with_lanes(document: Document) -> set[int]:
    """Numbers of the runs whose lanes there is room for."""
    shown: set[int] = set()
    count = 0
    for number, run in enumerate(document.runs):
        count += sum(len(x.states) + len(x.arcs) for x in run.lanes)
        if run.lanes and count <= _MOST_STRETCHES:
            shown.add(number)
    return shown


def _data(document: Document, shown: set[int]) -> Markup:
    """What the script draws, as JSON that cannot end its element."""
    text = json.dumps(
        {
            "states": _STATES,
            "runs": [
                _run(run, lanes=number in shown)
                for number, run in enumerate(document.runs)
            ],
        },
        separators=(",", ":"),
    )
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _run(run: Run, *, lanes: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tree": _text(run.tree),
        "scenario": _text(run.scenario),
        "seed": str(run.seed),
        "verdict": str(run.verdict),
        "blackout": _us(run.blackout_ns),
        "lanes": [],
    }
    if not lanes:
        return found
    zero_ns = run.zero_ns or 0
    found["lanes"] = [_lane(lane) for lane in run.lanes]
    found["marks"] = [
        [mark.side, _us(mark.time_ns), _text(f"{mark.kind}: {mark.text}")]
        for mark in run.marks
    ]
    found["phases"] = [
        [_text(x.name), x.side, _us(x.start_ns), _us(x.end_ns)]
        for x in run.phases
    ]
    found["path"] = [
        [
            _text(" ".join(filter(None, (x.device, x.activity))) or x.phase),
            x.side,
            _us(x.start_ns),
            _us(x.end_ns),
        ]
        for x in run.critical_path
    ]
    found["broken"] = [
        [finding.side, _us(line.time_ns - zero_ns), _text(finding.rule)]
        for finding in run.findings[:_MOST_FINDINGS]
        for line in finding.lines[:_MOST_LINES]
        if line.time_ns is not None
    ]
    return found


def _lane(lane: Lane) -> dict[str, Any]:
    """Flat lists: of start, end and state, and of those with two more."""
    return {
        "side": lane.side,
        "device": _text(lane.device),
        "states": [
            value
            for x in lane.states
            for value in (_us(x.start_ns), _us(x.end_ns), _state(x.state))
        ],
        "arcs": [
            value
            for x in lane.arcs
            for value in (
                _us(x.start_ns),
                _us(x.end_ns),
                _state(x.before),
                _state(x.requested),
                _state(x.reached),
            )
        ],
    }


def _state(name: str) -> int:
    """Place of a state; -1 is none that is known."""
    return _STATES.index(name) if name in _STATES else -1


def _text(text: str) -> str:
    return str(_fit(text))


def _us(time_ns: int | None) -> float | None:
    if time_ns is None:
        return None
    whole, rest = divmod(time_ns, 1000)
    return time_ns / 1000 if rest else whole
