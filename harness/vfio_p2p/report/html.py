# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as one HTML file, which opens anywhere and loads nothing.

Every text that a template prints passes `_fit` and is then escaped.  The
script gets JSON, from which it makes text and never markup.  The page's
policy admits only our own script and style, by their hashes.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from vfio_p2p.history.trend import Trend
from vfio_p2p.report import figures, plots
from vfio_p2p.report.commands import commands, exact_command, latencies
from vfio_p2p.report.comparison import answer, comparison_lines, risk
from vfio_p2p.report.document import Document
from vfio_p2p.report.figures import breaches, ms
from vfio_p2p.report.groups import by_scenario
from vfio_p2p.report.run import Lane, Run
from vfio_p2p.report.section_tables import section_tables
from vfio_p2p.report.setup import build_of, setup_of
from vfio_p2p.resources import resource
from vfio_p2p.trace import printable
from vfio_p2p.uapi import DeviceState

_TEMPLATES = resource("report", "templates")

# How much a page shows of texts and lists that are not ours.
_MOST_CHARACTERS = 2000
_MOST_FINDINGS = 100
_MOST_LINES = 20
_MOST_NOTES = 100
# The stretches of time in all lanes of all runs; 500 usual runs have 80,000.
_MOST_STRETCHES = 120_000

# The style and the script know the states by these places.
_STATES = tuple(state.name for state in DeviceState)


def render(document: Document, history: Sequence[Trend] | None = None) -> str:
    """Render the whole page.

    :param document: The document.
    :param history: Earlier results, if they are to be shown, too.
    """
    style = _own("report.css")
    script = _own("report.js")
    found = breaches(document)
    tables = figures.tables(document)
    shown = _with_lanes(document)
    return _template().render(
        document=document,
        style=style,
        script=script,
        policy=_policy(style, script),
        sections=[*section_tables(document)],
        comparison=document.comparison
        and comparison_lines(document.comparison),
        groups=by_scenario(document),
        waterfalls=[_waterfall(table) for table in tables],
        strips=plots.strips(document, tables),
        breaches=found[:_MOST_FINDINGS],
        breaches_left_out=len(found) - len(found[:_MOST_FINDINGS]),
        most_lines=_MOST_LINES,
        most_trees=plots.MOST_TREES,
        notes=_notes(document),
        latencies=latencies(document),
        commands=commands(document),
        exact_command=exact_command(document),
        charts=None
        if history is None
        else [*map(plots.trend_chart, history)],
        height=plots.TREND_HEIGHT,
        setups=_setups(document),
        states=_STATES,
        lanes_left_out=sum(bool(run.lanes) for run in document.runs)
        - len(shown),
        data=_data(document, shown),
    ) + "\n"


@cache
def _template() -> Template:
    """Return the page's template, which takes 0.1 s to compile."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_fit,
    )
    environment.filters["ms"] = ms
    return environment.get_template("report.html")


def _waterfall(table: figures.PhaseTable) -> dict[str, Any]:
    compared = table.comparison
    return {
        "plot": plots.waterfall(table),
        "bounds": _bounds(table),
        "answer": answer(compared) if compared else [],
        "confidence": risk(compared) if compared else "",
    }


def _bounds(table: figures.PhaseTable) -> list[str]:
    """How far the figures of two hosts may be off."""
    runs = [run for group in table.groups for run in group.runs]
    return [
        f"A {what} may be off by{bound}, since it began on one host and ended "
        "on another."
        for what, bound in (
            (figures.TOTAL, figures.bound_text(runs)),
            (figures.GUEST, figures.gap_bound_text(runs)),
        )
        if bound
    ]


def _fit(value: object) -> object:
    """Make any text fit to show."""
    # Markup is our own.
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
    """The reasons why something is not known, and in how many runs."""
    counts: dict[str, int] = {}
    for run in document.runs:
        for note in run.notes:
            counts[note] = counts.get(note, 0) + 1
    return list(counts.items())[:_MOST_NOTES]


def _setups(document: Document) -> list[dict[str, Any]]:
    """List the inputs and the place of each tree, once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in document.runs:
        # Each folder of logs is a set-up of its own.
        key = (run.tree, build_of(run) if run.exact else run.bundle)
        setup = found.setdefault(
            key, {"tree": run.tree, "rows": setup_of(run), "devices": {}}
        )
        setup["devices"].setdefault(run.scenario, run.devices)
    return list(found.values())


def _with_lanes(document: Document) -> set[int]:
    """The numbers of the runs for whose lanes there is room."""
    shown: set[int] = set()
    count = 0
    for number, run in enumerate(document.runs):
        count += sum(len(x.states) + len(x.arcs) for x in run.lanes)
        if run.lanes and count <= _MOST_STRETCHES:
            shown.add(number)
    return shown


def _data(document: Document, shown: set[int]) -> Markup:
    """The data that the script draws, as JSON that cannot end its element."""
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
        "name": _text(run.name),
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
    """A lane as flat lists.

    A state is its start, its end and its place in `_STATES`; an arc has the
    places of three states.
    """
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
    """The place of a state; -1 for one that is not known."""
    return _STATES.index(name) if name in _STATES else -1


def _text(text: str) -> str:
    return str(_fit(text))


def _us(time_ns: int | None) -> float | None:
    if time_ns is None:
        return None
    whole, rest = divmod(time_ns, 1000)
    return time_ns / 1000 if rest else whole
