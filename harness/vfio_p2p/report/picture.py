# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of what a migration did to devices, and to what they sent.

One SVG file: no script, nothing from elsewhere, readable on light and on
dark pages.  For each tree a lane for each device: on the left its stop on
the source, on the right its start on the destination, on one time axis that
is cut where nothing but data moves.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vfio_p2p.bundle.read import Bundle
from vfio_p2p.errors import InputError
from vfio_p2p.oracle.traffic import flows
from vfio_p2p.report.document import Arc, Lane, State
from vfio_p2p.report.lanes import lanes
from vfio_p2p.timeline import Timeline, blackout
from vfio_p2p.timeline.blackout import final_stop
from vfio_p2p.trace import printable
from vfio_p2p.uapi import DeviceState
from vfio_p2p.verdict.reading import read_run

_WIDTH = 960
_LEFT = 72
_RIGHT = 16
_CUT = 44           # where time is left out, between the two halves
_TITLE = 30
_LANE = 34
_GAP = 20
_AXIS = 42
_LEGEND = 40
_CHARACTER = 6.3    # of a label in a bar, about
_MARGIN_NS = 1_200_000
_TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TICK = 40          # between two, at least
_MOST_LANES = 16
_MOST_LOST = 2000

# How tall a bar is says what the device may do, as in the HTML report.
_SENDS, _ANSWERS, _DEAF = 26, 15, 7
_TALL = {
    "RUNNING": _SENDS,
    "PRE_COPY": _SENDS,
    "RUNNING_P2P": _ANSWERS,
    "PRE_COPY_P2P": _ANSWERS,
}

# On light pages and on dark ones; those of templates/report.css.
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
class Panel:
    """One tree.

    :param title: What it is.
    :param bundle: A run of it that migrated.
    """

    title: str
    bundle: Bundle


@dataclass(frozen=True)
class _Loss:
    """A transaction that was lost; devices by the numbers of their lanes."""

    time_ns: int
    sender: int
    receiver: int


@dataclass(frozen=True)
class _Half:
    """One side of a migration; times count from the blackout's start."""

    lanes: tuple[Lane, ...]
    lost: tuple[_Loss, ...]
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class _Window:
    """A stretch of time, and where it is in the picture."""

    start_ns: int
    end_ns: int
    left: float
    per_ns: float

    def x(self, time_ns: float) -> float:
        """Where a time is; its own end if it is outside."""
        inside = min(max(time_ns, self.start_ns), self.end_ns)
        return self.left + (inside - self.start_ns) * self.per_ns

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.x(self.end_ns)


def draw(panels: Sequence[Panel]) -> bytes:
    """The whole picture, as an SVG file.

    :param panels: What to show, from top to bottom; at least one.
    :raise InputError: When a run has no blackout to be shown.
    """
    halves = [_halves(panel.bundle) for panel in panels]
    windows = _windows(halves)
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
    what = "; ".join(printable(panel.title) for panel in panels)
    ET.SubElement(svg, "title").text = what
    ET.SubElement(svg, "style").text = _style()
    _rect(svg, "back", .5, .5, _WIDTH - 1, height - 1, rx="6")
    y = 22.0
    for window, text in zip(
        windows,
        ("the source stops its devices", "the destination starts its own"),
        strict=True,
    ):
        middle = (window.left + window.right) / 2
        _text(svg, "dim", middle, y, text, "middle")
    y = float(_TITLE)
    for panel, sides in zip(panels, halves, strict=True):
        lost = sum(flow.told.lost for flow in read_run(panel.bundle).flows)
        _panel(svg, y, panel.title, sides, windows, lost)
        y += _TITLE + _GAP + _LANE * len(sides[0].lanes)
    _axis(svg, y, windows)
    _legend(svg, y + _AXIS)
    ET.indent(svg)
    return f"{ET.tostring(svg, encoding='unicode')}\n".encode()


def _style() -> str:
    light, dark = (
        _STYLE.format(**{name: pair[n] for name, pair in COLOURS.items()})
        for n in range(2)
    )
    return f"{light}@media (prefers-color-scheme: dark) {{{dark}}}\n"


def _halves(bundle: Bundle) -> tuple[_Half, _Half]:
    sides = read_run(bundle).timelines
    whole = blackout(*sides)
    stop = final_stop(sides[0])
    if whole.start_ns is None or whole.end_ns is None or stop is None:
        raise InputError(
            f"{bundle.path}: no blackout that could be shown",
            "give the bundle of a run that migrated",
        )
    zero_ns = whole.start_ns
    stopped_ns = stop.steps[-1].record.time_ns or zero_ns
    return (
        _half(sides[0], zero_ns, 0, stopped_ns - zero_ns),
        _half(
            sides[1],
            zero_ns,
            _first_start(sides[1], zero_ns) - zero_ns,
            whole.end_ns - zero_ns,
        ),
    )


def _half(side: Timeline, zero_ns: int, start_ns: int, end_ns: int) -> _Half:
    shown = lanes(side, zero_ns)[:_MOST_LANES]
    place = {lane.device: number for number, lane in enumerate(shown)}
    return _Half(
        shown,
        tuple(
            _Loss(entry.time_ns - zero_ns, place[a], place[b])
            for flow in flows(side)
            for a, b in [(flow.sender, flow.receiver)]
            if a in place and b in place
            for entry in flow.lost
        )[:_MOST_LOST],
        start_ns,
        end_ns,
    )


def _first_start(side: Timeline, zero_ns: int) -> int:
    """When the first device left RESUMING for the VM to start."""
    return min(
        (
            arc.records[0].time_ns
            for arc in side.arcs
            if arc.before is DeviceState.RESUMING
            and arc.records[0].time_ns is not None
        ),
        default=zero_ns,
    )


def _windows(halves: Sequence[tuple[_Half, _Half]]) -> list[_Window]:
    """What is shown of each side, both to one scale."""
    spans = [
        (
            min(half.start_ns for half in side) - _MARGIN_NS,
            max(half.end_ns for half in side) + _MARGIN_NS,
        )
        for side in zip(*halves, strict=True)
    ]
    room = _WIDTH - _LEFT - _RIGHT - _CUT
    per_ns = room / sum(end - start for start, end in spans)
    found: list[_Window] = []
    left = float(_LEFT)
    for start, end in spans:
        found.append(_Window(start, end, left, per_ns))
        left = found[-1].right + _CUT
    return found


def _panel(
    svg: ET.Element,
    top: float,
    title: str,
    halves: Sequence[_Half],
    windows: Sequence[_Window],
    lost: int,
) -> None:
    shown = sum(
        window.start_ns <= loss.time_ns <= window.end_ns
        for half, window in zip(halves, windows, strict=True)
        for loss in half.lost
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
    for half, window in zip(halves, windows, strict=True):
        for number, lane in enumerate(half.lanes):
            _lane(svg, top + _LANE * (number + .5), lane, window)
        for loss in half.lost:
            if window.start_ns <= loss.time_ns <= window.end_ns:
                _loss(svg, top, loss, window)
        for number, lane in enumerate(half.lanes):
            _labels(svg, top + _LANE * (number + .5), lane, window)


def _lane(
    svg: ET.Element, middle: float, lane: Lane, window: _Window
) -> None:
    for part in _parts(lane, window):
        moving = isinstance(part, Arc)
        state = part.before if isinstance(part, Arc) else part.state
        tall = _TALL.get(state, _DEAF)
        left, right = window.x(part.start_ns), window.x(part.end_ns)
        name = _STATES.get(state, "bad")
        box = _rect(
            svg,
            f"state {name} arc" if moving else f"state {name}",
            left, middle - tall / 2, right - left, tall,
        )
        words = f"{printable(lane.device)}: {state}"
        if isinstance(part, Arc):
            words += f" to {part.reached or part.requested}"
        duration_ms = (part.end_ns - part.start_ns) / 1e6
        ET.SubElement(box, "title").text = f"{words}, {duration_ms:.3f} ms"


def _labels(
    svg: ET.Element, middle: float, lane: Lane, window: _Window
) -> None:
    for part in _parts(lane, window):
        left, right = window.x(part.start_ns), window.x(part.end_ns)
        if isinstance(part, Arc):
            continue
        if len(part.state) * _CHARACTER < right - left:
            # Below a bar that is not tall enough for letters.
            y = middle + (4 if part.state in _TALL else 15)
            _text(
                svg, "bar", (left + right) / 2, y, part.state, "middle"
            )


def _parts(lane: Lane, window: _Window) -> Iterator[State | Arc]:
    parts: list[State | Arc] = [*lane.states, *lane.arcs]
    for part in parts:
        if part.end_ns > window.start_ns and part.start_ns < window.end_ns:
            yield part


def _loss(
    svg: ET.Element, top: float, loss: _Loss, window: _Window
) -> None:
    x = window.x(loss.time_ns)
    start, end = (
        top + _LANE * (n + .5) for n in (loss.sender, loss.receiver)
    )
    _path(svg, "way", f"M{x:.1f} {start:.1f}V{end:.1f}")
    _cross(svg, x, end)


def _cross(svg: ET.Element, x: float, y: float) -> None:
    _path(
        svg, "lost",
        f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
    )


def _axis(svg: ET.Element, y: float, windows: Sequence[_Window]) -> None:
    for window in windows:
        _path(svg, "line", f"M{window.left:.1f} {y:.1f}H{window.right:.1f}")
        step_ns = next(
            (x for x in _TICKS_MS if x * 1e6 * window.per_ns >= _TICK),
            _TICKS_MS[-1],
        ) * 1_000_000
        tick_ns = -(-window.start_ns // step_ns) * step_ns
        while tick_ns <= window.end_ns:
            x = window.x(tick_ns)
            _path(svg, "line", f"M{x:.1f} {y:.1f}v5")
            _text(
                svg, "dim", x, y + 18, str(tick_ns // 1_000_000), "middle"
            )
            tick_ns += step_ns
    middle = windows[0].right + _CUT / 2
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
