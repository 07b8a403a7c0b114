# SPDX-License-Identifier: GPL-2.0-or-later
"""The history as lists and plots of 79 columns, and as JSON."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from vfio_p2p.history.alerts import Alert, AlertRevision
from vfio_p2p.history.database import Entry
from vfio_p2p.history.trend import Point, Shift, Trend
from vfio_p2p.report.scale import Scale
from vfio_p2p.trace import printable

FORMAT = 1

# Below this, a p-value is not worth its digits.
_LEAST_CHANCE = 0.001

# Of an alert, that many metrics are told.
_MOST_MOVED = 8

_WIDTH = 79
_ROWS = 10
_LABELS = 12
# The columns of a list, in order, with their widths.
_COLUMNS = {
    "recorded (UTC)": 16,
    "QEMU": 12,
    "variant": 12,
    "scenario": 17,
    "seed": 5,
}


def listing(entries: Iterable[Entry], metric: str) -> Iterator[str]:
    """List results; yields a line of heads, and one for each result.

    :param entries: The results.
    :param metric: The name of the metric that is shown.
    """
    room = _WIDTH - sum(_COLUMNS.values()) - len(_COLUMNS)
    heads = [_cell(name, width) for name, width in _COLUMNS.items()]
    yield " ".join([*heads, f"{_clip(metric, room):>{room}}"])
    for entry in entries:
        found = entry.metric(metric)
        shown = amount(found.value, found.unit) if found else "-"
        cells = (
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.recorded_s)),
            revision(entry),
            entry.variant,
            entry.scenario,
            str(entry.seed),
        )
        line = " ".join(map(_cell, cells, _COLUMNS.values()))
        yield f"{line} {shown:>{room}}"


def plot(trend: Trend) -> str:
    """Plot a metric over revisions, and list its changes.

    :param trend: The trend, of at least one point.
    """
    what = (trend.scenario, trend.variant, trend.host)
    title = f"{trend.metric} of {', '.join(what)}"
    lines = [printable(title), *_canvas(trend)]
    lines += [line for x in trend.shifts for line in _shift(x, trend.unit)]
    if not trend.shifts:
        lines.append("no change point")
    return "\n".join(lines)


def alerts(found: Iterable[Alert]) -> Iterator[str]:
    """Describe alerts; yields their lines.

    :param found: The alerts.
    """
    for alert in found:
        change = alert.change
        series = change.series
        yield printable(
            f"alert {alert.number}, {alert.state}: {series.scenario} of "
            f"{series.variant} at {series.host or 'unknown hosts'}"
        )
        yield printable(
            f"  since {_name_of(change.first)}; before: "
            f"{_name_of(change.last)}"
        )
        if alert.note:
            yield printable(f"  note: {alert.note}")
        for moved in change.moved[:_MOST_MOVED]:
            value = moved.after - moved.before
            percent = 100 * value / moved.before if moved.before else None
            yield printable(
                f"  {moved.name}: {amount(moved.before, moved.unit)} to "
                f"{amount(moved.after, moved.unit)}, "
                + difference(value, percent, moved.unit)
            )
        if (more := len(change.moved) - _MOST_MOVED) > 0:
            yield f"  and {more} more"


def _name_of(revision_of: AlertRevision) -> str:
    if revision_of.commit:
        return revision_of.commit
    return revision_of.version or f"build {revision_of.build}"


def alerts_as_json(found: Iterable[Alert]) -> str:
    """Write alerts as one JSON document.

    :param found: The alerts.
    """
    plain = {"format": FORMAT, "alerts": [*found]}
    return json.dumps(msgspec.to_builtins(plain), indent=2)


def as_json(entries: Iterable[Entry]) -> Iterator[str]:
    """Write results as one JSON document; yields its lines, a few at a time.

    :param entries: The results.
    """
    yield f'{{\n  "format": {FORMAT},\n  "results": ['
    before = ""
    for entry in entries:
        if before:
            yield f"{before},"
        before = "    " + _as_json(entry).replace("\n", "\n    ")
    if before:
        yield before
    yield "  ]\n}"


def _as_json(entry: Entry) -> str:
    # dataclasses.asdict() copies every value.
    plain = entry.__dict__ | {}
    plain["metrics"] = {
        x.name: {"value": x.value, "unit": x.unit} for x in entry.metrics
    }
    data = msgspec.json.format(msgspec.json.encode(plain), indent=2)
    if data.isascii():
        return data.decode()
    # This takes many times as long, and escapes what is not ASCII.
    return json.dumps(plain, indent=2)


def revision(entry: Entry) -> str:
    """The name by which readers know a QEMU: its commit, or its version.

    :param entry: A result of that QEMU.
    """
    if entry.qemu_revision:
        return entry.qemu_revision[:12]
    # There are two if the sides had different releases.
    versions = re.findall(r"version (\S+)", entry.qemu_version)
    return " to ".join(versions) or entry.qemu_version.partition(" ")[0]


def _canvas(trend: Trend) -> list[str]:
    points = trend.points
    columns = _WIDTH - _LABELS - 1
    step = min(4, max(1, columns // len(points)))
    low = min(x.value for x in points)
    high = max(x.value for x in points)
    flat = high <= low
    down = Scale(low, high, _ROWS - 1, 0)
    canvas = [[" "] * columns for _ in range(1 if flat else _ROWS)]

    def column(index: int) -> int:
        # With more points than columns, several share one.
        return min(index * step, index * columns // len(points))

    for index, point in enumerate(points):
        row = 0 if flat else round(down.at(point.value))
        canvas[row][column(index)] = "*"
    axis = ["-"] * columns
    for shift in trend.shifts:
        axis[column(shift.change.index)] = "^"
    # If all values are equal, that of the last row is enough.
    labels = {0: high, len(canvas) - 1: low}
    lines = [
        f"{amount(labels[y], trend.unit) if y in labels else '':>{_LABELS}}"
        f"|{''.join(row)}"
        for y, row in enumerate(canvas)
    ]
    lines.append(f"{'':{_LABELS}}+{''.join(axis)}")
    lines.append(_ends(points, columns))
    return [line.rstrip() for line in lines]


def _ends(points: Sequence[Point], columns: int) -> str:
    first = _clip(revision(points[0].entry), columns // 2)
    last = _clip(revision(points[-1].entry), columns // 2)
    text = f"{first} to {last}" if len(points) > 1 else first
    number = "1 point" if len(points) == 1 else f"{len(points)} points"
    return f"{'':{_LABELS + 1}}{text}, {number}"


def _shift(shift: Shift, unit: str) -> list[str]:
    change = shift.change
    entry = shift.point.entry
    percent = change.percent
    lines = [
        f"^ {printable(revision(entry))}: "
        f"{amount(change.before, unit)} to {amount(change.after, unit)}, "
        + difference(change.difference, percent, unit),
        f"  {_certainty(change.p_value)}; what differs from the point "
        "before:",
    ]
    lines += [
        printable(
            f"    {name}: {before[:12] or 'unknown'} to "
            f"{now[:12] or 'unknown'}"
        )
        for name, before, now in shift.causes
    ]
    return lines


def _certainty(p_value: float) -> str:
    if p_value < _LEAST_CHANCE:
        return f"certainty above 99.9 % (p {chance(p_value)})"
    return f"certainty {100 * (1 - p_value):.1f} % (p = {chance(p_value)})"


def chance(p_value: float) -> str:
    """Format how often chance alone would show as much, e.g. ``< 0.001``.

    :param p_value: The p-value, 0 to 1.
    """
    if p_value < _LEAST_CHANCE:
        return f"< {_LEAST_CHANCE}"
    return f"{p_value:.3f}"


def difference(value: float, percent: float | None, unit: str) -> str:
    """Format a difference, e.g. as ``+3.011 ms (+1.00 %)``.

    :param value: The difference.
    :param percent: The same in percent, if that makes sense.
    :param unit: The unit; ``ns`` is shown in milliseconds.
    """
    sign = "+" if value >= 0 else "-"
    text = f"{sign}{amount(abs(value), unit)}"
    return text if percent is None else f"{text} ({percent:+.2f} %)"


def amount(value: float, unit: str) -> str:
    """Format a value.

    :param value: The value.
    :param unit: The unit; ``ns`` is shown in milliseconds.
    """
    if unit == "ns":
        return f"{value / 1e6:.3f} ms"
    return printable(f"{value:.10g} {unit}")


def _cell(text: str, width: int) -> str:
    return f"{_clip(text, width):{width}}"


def _clip(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else f"{text[: width - 2]}.."
