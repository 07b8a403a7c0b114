# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of what a migration did to devices and their transactions.

It is one SVG file without a script, which loads nothing and can be read on
light and on dark pages.  Each run has a lane for each device: on the left
the device stops on the source, on the right it starts on the destination.
The time axis is cut where only data moves.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from vfio_p2p.downtime import PhaseName
from vfio_p2p.errors import InputError
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Lane, Loss, Move, PairTraffic, Run, Stay
from vfio_p2p.report.scale import Scale
from vfio_p2p.side import Side
from vfio_p2p.trace import printable
from vfio_p2p.uapi import DeviceState

_WIDTH = 960
_LEFT = 72
_RIGHT = 16
_CUT = 44           # between the two halves, where time is left out
_TITLE = 30
_LANE = 34
_GAP = 20
_AXIS = 42
_LEGEND = 40
_CHARACTER = 6.3    # the approximate width of a letter in a bar
_MARGIN_NS = 1_200_000
_TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TICK = 40          # the least room between two ticks
_MOST_LANES = 16
_MOST_LOST = 2000

# The height of a bar says what the device may do, as in the HTML report.
_SENDS, _ANSWERS, _DEAF = 26, 15, 7
_TALL = {
    "RUNNING": _SENDS,
    "PRE_COPY": _SENDS,
    "RUNNING_P2P": _ANSWERS,
    "PRE_COPY_P2P": _ANSWERS,
}

# The colours of templates/report.css, on light pages and on dark ones.
COLOURS = {
    "back": ("#fff", "#161616"),
    "front": ("#1b1b1b", "#ececec"),
    "dim": ("#595959", "#ababab"),
    "line": ("#c9c9c9", "#4a4a4a"),
    "edge": ("#3b3b3b", "#d0d0d0"),
    "ink": ("#222", "#f4f4f4"),
    "fail": ("#a8200d", "#ff8d78"),
    "run": ("#8fd3bd", "#12664f"),
    "pre": ("#9cc7ea", "#1d4f7c"),
    "copy": ("#f4b183", "#8d4413"),
    "stop": ("#c6c6c6", "#505050"),
    "load": ("#dfb0d0", "#733b62"),
    "bad": ("#f2e27a", "#7a6a00"),
}
_STATES = {
    "RUNNING": "run",
    "RUNNING_P2P": "run",
    "PRE_COPY": "pre",
    "PRE_COPY_P2P": "pre",
    "STOP_COPY": "copy",
    "STOP": "stop",
    "RESUMING": "load",
}
_STYLE = """
text {{ font: 12px system-ui, sans-serif; fill: {front}; }}
.title {{ font-size: 15px; font-weight: bold; }}
.dim {{ fill: {dim}; }}
.bar {{ font-size: 10.5px; fill: {ink}; stroke: {back}; stroke-width: 2px;
  stroke-opacity: .6; stroke-linejoin: round; paint-order: stroke; }}
.back {{ fill: {back}; stroke: {line}; }}
.line {{ stroke: {line}; fill: none; }}
.state {{ stroke: {edge}; stroke-width: .6; }}
.arc {{ fill-opacity: .45; stroke-dasharray: 3 2; }}
.lost {{ stroke: {fail}; stroke-width: 1.6; fill: none; }}
.way {{ stroke: {fail}; stroke-width: .8; stroke-opacity: .55; }}
.fail {{ fill: {fail}; }}
.run {{ fill: {run}; }} .pre {{ fill: {pre}; }} .copy {{ fill: {copy}; }}
.stop {{ fill: {stop}; }} .load {{ fill: {load}; }} .bad {{ fill: {bad}; }}
"""


@dataclass(frozen=True)
class _Half:
    """One side of a migration; times count from the blackout's start."""

    lanes: tuple[Lane, ...]
    losses: tuple[tuple[PairTraffic, Loss], ...]
    start_ns: int
    end_ns: int


def drawable(run: Run) -> bool:
    """Whether a run migrated, so that there is a picture of it.

    :param run: The run.
    """
    return run.blackout_ns is not None and bool(run.lanes)


def draw(document: Document) -> str:
    """Draw the whole picture, as an SVG file.

    :param document: The runs to show, from top to bottom.  Each is titled
        with the name of its tree.
    :raise InputError: When a run has no blackout.
    """
    for run in document.runs:
        if not drawable(run):
            raise InputError(
                f"{printable(run.bundle)}: no blackout that could be drawn",
                "Give the bundle of a run that migrated.",
            )
    if not document.runs:
        raise InputError(
            "there is no run to draw", "Give at least one run."
        )
    halves = [_halves(run) for run in document.runs]
    scales = _scales(halves)
    height = _TITLE + _AXIS + _LEGEND + sum(
        _TITLE + _GAP + _LANE * len(source.lanes) for source, _ in halves
    )
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "role": "img",
        },
    )
    what = "; ".join(printable(run.tree) for run in document.runs)
    ET.SubElement(svg, "title").text = what
    ET.SubElement(svg, "style").text = _style()
    _rect(svg, "back", .5, .5, _WIDTH - 1, height - 1, rx="6")
    y = 22.0
    for scale, text in zip(
        scales,
        ("the source stops its devices", "the destination starts its own"),
        strict=True,
    ):
        middle = (scale.start + scale.end) / 2
        _text(svg, "dim", middle, y, text, "middle")
    y = float(_TITLE)
    for run, sides in zip(document.runs, halves, strict=True):
        lost = sum(pair.lost for pair in run.pairs)
        _panel(svg, y, run.tree, sides, scales, lost)
        y += _TITLE + _GAP + _LANE * len(sides[0].lanes)
    _axis(svg, y, scales)
    _legend(svg, y + _AXIS)
    ET.indent(svg)
    return f"{ET.tostring(svg, encoding='unicode')}\n"


def _style() -> str:
    light, dark = (
        _STYLE.format(**{name: pair[n] for name, pair in COLOURS.items()})
        for n in range(2)
    )
    return f"{light}@media (prefers-color-scheme: dark) {{{dark}}}\n"


def _halves(run: Run) -> tuple[_Half, _Half]:
    stopped_ns = next(
        (x.end_ns for x in run.phases if x.name == PhaseName.STOP_ARCS), 0
    )
    return (
        _half(run, Side.SOURCE, 0, stopped_ns),
        _half(
            run, Side.DESTINATION, _first_start_ns(run), run.blackout_ns or 0
        ),
    )


def _half(run: Run, side: Side, start_ns: int, end_ns: int) -> _Half:
    shown = [lane for lane in run.lanes if lane.side is side][:_MOST_LANES]
    losses = [
        (pair, loss)
        for pair in run.pairs
        if max(pair.sender, pair.receiver) < len(shown)
        for loss in pair.losses
        if loss.side is side
    ]
    return _Half(
        tuple(shown), tuple(losses[:_MOST_LOST]), start_ns, end_ns
    )


def _first_start_ns(run: Run) -> int:
    """When the first device left RESUMING so that the VM can start."""
    return min(
        (
            stay.end_ns
            for lane in run.lanes
            if lane.side is Side.DESTINATION
            for stay in lane.states
            if stay.state == DeviceState.RESUMING.name
        ),
        default=0,
    )


def _scales(halves: Sequence[tuple[_Half, _Half]]) -> list[Scale]:
    """The stretch of time that is shown of each side, both to one scale."""
    spans = [
        (
            min(half.start_ns for half in side) - _MARGIN_NS,
            max(half.end_ns for half in side) + _MARGIN_NS,
        )
        for side in zip(*halves, strict=True)
    ]
    room = _WIDTH - _LEFT - _RIGHT - _CUT
    per_ns = room / sum(end - start for start, end in spans)
    found: list[Scale] = []
    left = float(_LEFT)
    for start, end in spans:
        right = left + (end - start) * per_ns
        found.append(Scale(start, end, left, right))
        left = right + _CUT
    return found


def _panel(
    svg: ET.Element,
    top: float,
    title: str,
    halves: Sequence[_Half],
    scales: Sequence[Scale],
    lost: int,
) -> None:
    shown = sum(
        scale.low <= loss.time_ns <= scale.high
        for half, scale in zip(halves, scales, strict=True)
        for _, loss in half.losses
    )
    _text(svg, "title", 14, top + 20, title)
    words = f"{lost} lost" if lost else "none lost"
    if shown < lost:
        words += f", {lost - shown} of them not shown"
    _text(
        svg, "fail" if lost else "dim", _WIDTH - _RIGHT, top + 20, words,
        "end",
    )
    top += _TITLE
    for number in range(len(halves[0].lanes)):
        middle = top + _LANE * (number + .5)
        _text(svg, "", 14, middle + 4, f"device {number}")
    for half, scale in zip(halves, scales, strict=True):
        for number, lane in enumerate(half.lanes):
            _lane(svg, top + _LANE * (number + .5), lane, scale)
        for pair, loss in half.losses:
            if scale.low <= loss.time_ns <= scale.high:
                _loss(svg, top, pair, scale.at(loss.time_ns))
        for number, lane in enumerate(half.lanes):
            _labels(svg, top + _LANE * (number + .5), lane, scale)


def _lane(
    svg: ET.Element, middle: float, lane: Lane, scale: Scale
) -> None:
    for part in _parts(lane, scale):
        moving = isinstance(part, Move)
        state = part.before if isinstance(part, Move) else part.state
        tall = _TALL.get(state, _DEAF)
        left, right = scale.at(part.start_ns), scale.at(part.end_ns)
        name = _STATES.get(state, "bad")
        box = _rect(
            svg,
            f"state {name} arc" if moving else f"state {name}",
            left, middle - tall / 2, right - left, tall,
        )
        words = f"{lane.device}: {state}"
        if isinstance(part, Move):
            words += f" to {part.reached or part.requested}"
        words += f", {(part.end_ns - part.start_ns) / 1e6:.3f} ms"
        ET.SubElement(box, "title").text = printable(words)


def _labels(
    svg: ET.Element, middle: float, lane: Lane, scale: Scale
) -> None:
    for part in _parts(lane, scale):
        left, right = scale.at(part.start_ns), scale.at(part.end_ns)
        if isinstance(part, Move):
            continue
        if len(part.state) * _CHARACTER < right - left:
            # Below a bar that is not tall enough for letters.
            y = middle + (4 if part.state in _TALL else 15)
            _text(
                svg, "bar", (left + right) / 2, y, part.state, "middle"
            )


def _parts(lane: Lane, scale: Scale) -> Iterator[Stay | Move]:
    parts: list[Stay | Move] = [*lane.states, *lane.arcs]
    for part in parts:
        if part.end_ns > scale.low and part.start_ns < scale.high:
            yield part


def _loss(
    svg: ET.Element, top: float, pair: PairTraffic, x: float
) -> None:
    start, end = (
        top + _LANE * (n + .5) for n in (pair.sender, pair.receiver)
    )
    _path(svg, "way", f"M{x:.1f} {start:.1f}V{end:.1f}")
    _cross(svg, x, end)


def _cross(svg: ET.Element, x: float, y: float) -> None:
    _path(
        svg, "lost",
        f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
    )


def _axis(svg: ET.Element, y: float, scales: Sequence[Scale]) -> None:
    for scale in scales:
        _path(svg, "line", f"M{scale.start:.1f} {y:.1f}H{scale.end:.1f}")
        step_ns = next(
            (x for x in _TICKS_MS if x * 1e6 * scale.per_unit >= _TICK),
            ceil(_TICK / 1e6 / scale.per_unit),
        ) * 1_000_000
        tick_ns = -(-scale.low // step_ns) * step_ns
        while tick_ns <= scale.high:
            x = scale.at(tick_ns)
            _path(svg, "line", f"M{x:.1f} {y:.1f}v5")
            _text(
                svg, "dim", x, y + 18, str(tick_ns // 1_000_000), "middle"
            )
            tick_ns += step_ns
    middle = scales[0].end + _CUT / 2
    for x in (middle - 4, middle + 4):
        _path(svg, "line", f"M{x - 3:.1f} {y + 6:.1f}l6 -12")
    _text(
        svg, "dim", _LEFT, y + 34,
        "milliseconds since the source's first request to stop a device",
    )


def _legend(svg: ET.Element, y: float) -> None:
    middle = y + _LEGEND / 2 - 4
    x = float(_LEFT)
    for names, tall, words in (
        (("run", "pre"), _SENDS, "sends and answers"),
        (("run", "pre"), _ANSWERS, "P2P: only answers"),
        (("copy", "stop", "load"), _DEAF, "does not answer"),
        (("pre arc",), _SENDS, "on its way to another state"),
    ):
        for name in names:
            _rect(svg, f"state {name}", x, middle - tall / 2, 18, tall)
            x += 18
        _text(svg, "", x + 6, middle + 4, words)
        x += 16 + len(words) * _CHARACTER + 8
    _cross(svg, x + 5, middle)
    _text(svg, "", x + 14, middle + 4, "lost transaction")


def _rect(
    svg: ET.Element,
    style: str,
    x: float,
    y: float,
    width: float,
    height: float,
    **more: str,
) -> ET.Element:
    return ET.SubElement(
        svg,
        "rect",
        {
            "class": style,
            "x": f"{x:.1f}",
            "y": f"{y:.1f}",
            "width": f"{width:.1f}",
            "height": f"{height:.1f}",
            **more,
        },
    )


def _path(svg: ET.Element, style: str, way: str) -> None:
    ET.SubElement(svg, "path", {"class": style, "d": way})


def _text(
    svg: ET.Element,
    style: str,
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
) -> None:
    made = ET.SubElement(
        svg,
        "text",
        {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor},
    )
    if style:
        made.set("class", style)
    made.text = printable(text)
