# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTML is complete, loads nothing, and has no foreign script."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from histories import MS, entries
from msgspec.structs import replace
from reports import (
    DEVICE,
    LONG,
    SCRIPT,
    evil_bundle,
    evil_document,
    pair,
    run_document,
    seeds,
)
from vfio_p2p.history.database import Metric
from vfio_p2p.history.trend import trends
from vfio_p2p.report import html
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document


class Page(HTMLParser):
    """A page as a browser parses it: elements, attributes, texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if self._inside:
            self._list.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._list[-1] += data
        else:
            self.text += data

    @property
    def _list(self) -> list[str]:
        return self.scripts if self._inside == "script" else self.styles

    @property
    def data(self) -> dict[str, Any]:
        """The data that the script draws."""
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found

    def count(self, tag: str) -> int:
        """Return the number of elements of a name."""
        return sum(name == tag for name, _ in self.elements)


def test_it_asks_for_nothing(tmp_path: Path) -> None:
    page = Page(html.render(run_document(tmp_path)))
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "object", "base", "form-action")
        for name in ("src", "href", "action", "xlink:href", "srcset"):
            value = attributes.get(name) or ""
            assert value in ("", "data:,") or value.startswith("#")
    assert not re.search(r"@import|url\((?!#)", page.styles[0])
    assert "http" not in page.scripts[1].replace(
        "http://www.w3.org/2000/svg", ""
    )


def test_only_our_script_may_run(tmp_path: Path) -> None:
    page = Page(html.render(run_document(tmp_path)))
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv")
    )
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for text in (page.scripts[1], page.styles[0]):
        digest = hashlib.sha256(text.encode()).digest()
        assert f"'sha256-{b64encode(digest).decode()}'" in policy


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    usual = Page(html.render(run_document(tmp_path / "1")))
    evil = Page(html.render(evil_document(tmp_path / "2")))
    assert evil.scripts[1:] == usual.scripts[1:]
    assert evil.count("script") == 2
    assert evil.count("b") == 0
    assert SCRIPT in evil.text
    assert "{{ 7 * 7 }}{% raw %}" in evil.text
    for _, attributes in evil.elements:
        assert not [name for name in attributes if name.startswith("on")]


def test_no_text_acts(tmp_path: Path) -> None:
    text = html.render(evil_document(tmp_path))
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "\\x1b]0;owned\\x07" in text
    assert "\\u202e" in text


def test_history_is_drawn_with_its_changes(tmp_path: Path) -> None:
    values = [300 * MS] * 7 + [303 * MS] * 8
    (trend,) = trends(entries(values), "blackout")
    (shift,) = trend.shifts
    text = html.render(run_document(tmp_path), [trend])
    page = Page(text)
    svg = re.findall(r'<svg class="trend".*?</svg>', text, re.DOTALL)
    (drawn,) = svg
    dots = [
        (float(x), float(y))
        for x, y in re.findall(r'<circle [^>]*cx="(.*?)%" cy="(.*?)"', drawn)
    ]
    assert len(dots) == 15
    (x,) = map(float, re.findall(r'class="change" x1="(.*?)%"', drawn))
    # Between the last of the old level and the first of the new one, which
    # is higher, and so has the smaller y.
    assert dots[6][0] < x < dots[7][0]
    assert dots[6][1] > dots[7][1]
    levels = re.findall(r'class="level" x1="(.*?)%" x2="(.*?)%"', drawn)
    assert [float(one) for one in levels[0]][1] == x
    heights = re.findall(r'class="level"[^>]*y1="(.*?)"', drawn)
    assert [float(y) for y in heights] == [dots[0][1], dots[14][1]]
    assert shift.point.entry.qemu_revision == "0007"
    for told in (
        "0007", "300.000 ms", "303.000 ms", "+3.000 ms (+1.00 %)",
        "QEMU: 0006 to 0007", f"{shift.change.p_value:.3f}",
    ):
        assert told in page.text
    assert "No change point" not in page.text
    assert "History" not in Page(html.render(run_document(tmp_path))).text


def test_history_without_changes_or_results(tmp_path: Path) -> None:
    document = run_document(tmp_path)
    (trend,) = trends(entries([300 * MS] * 2), "blackout")
    assert trend.shifts == ()
    page = Page(html.render(document, [trend]))
    assert "No change point." in page.text
    page = Page(html.render(document, []))
    assert "no result with this metric" in page.text


def test_of_a_long_history_the_end_is_shown(tmp_path: Path) -> None:
    many = 1000
    (trend,) = trends(entries([300 * MS] * 12 + [303 * MS] * 12), "blackout")
    last = trend.points[-1]
    longer = dataclasses.replace(
        trend, points=(*trend.points, *[last] * many)
    )
    text = html.render(run_document(tmp_path), [longer])
    assert 100 < text.count('<circle class="point') < many
    assert f"({24 + many - text.count('<circle class=')} before it)" in text
    # The change is among the points that are left out.
    assert 'class="change"' not in text


def test_no_text_of_a_history_becomes_markup(tmp_path: Path) -> None:
    evil = [
        dataclasses.replace(
            one,
            qemu_revision=f"{SCRIPT[:8]}{number:04}",
            qemu_version=f"version {SCRIPT}",
            build=f"{SCRIPT}{number}",
            project_revision=SCRIPT if number < 7 else f"x{SCRIPT}",
            variant=f"{SCRIPT}\x1b[31m\u202e",
            scenario=SCRIPT,
            host=SCRIPT,
            metrics=(Metric(SCRIPT, one.metrics[0].value, SCRIPT),),
        )
        for number, one in enumerate(entries([3 * MS] * 7 + [4 * MS] * 7))
    ]
    found = trends(evil, SCRIPT)
    assert found[0].shifts
    text = html.render(run_document(tmp_path), found)
    page = Page(text)
    assert page.count("script") == 2
    assert SCRIPT in page.text
    assert "<scrip" not in text.replace("<script>", "", 1).replace(
        '<script type="application/json" id="data">', "", 1
    )
    assert all(c == "\n" or c.isprintable() for c in text)


def test_the_data_cannot_end_its_element(tmp_path: Path) -> None:
    page = Page(html.render(evil_document(tmp_path)))
    assert not set(page.scripts[0]) & set("<>&")
    (run,) = page.data["runs"]
    assert run["tree"].startswith(SCRIPT)
    assert run["lanes"][0]["device"].startswith(SCRIPT)


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    text = html.render(evil_document(tmp_path))
    assert LONG not in text
    assert "characters more)" in text
    assert len(text) < 200_000


def test_hostile_device_in_a_log(tmp_path: Path) -> None:
    document = collect([evil_bundle(tmp_path / "b")])
    page = Page(html.render(document))
    device = DEVICE.replace("\u202e", "\\u202e")
    assert page.data["runs"][0]["lanes"][0]["device"] == device
    assert page.count("script") == 2


def test_data_of_a_run(tmp_path: Path) -> None:
    document = run_document(tmp_path)
    (run,) = document.runs
    data = Page(html.render(document)).data
    (shown,) = data["runs"]
    assert run.blackout_ns == shown["blackout"] * 1000
    lane = shown["lanes"][0]
    first = run.lanes[0].states[0]
    assert lane["states"][:2] == [first.start_ns / 1000, first.end_ns / 1000]
    assert data["states"][lane["states"][2]] == "RUNNING"
    assert len(lane["states"]) == 3 * len(run.lanes[0].states)
    assert len(lane["arcs"]) == 5 * len(run.lanes[0].arcs)
    assert [x[0] for x in shown["phases"]] == [x.name for x in run.phases]
    (stop,) = (
        mark for mark in run.marks if mark.text == "stop (finish-migrate)"
    )
    assert [
        "source", stop.time_ns / 1000, "run state: stop (finish-migrate)"
    ] in shown["marks"]


def test_phases_of_a_against_b(tmp_path: Path) -> None:
    page = Page(html.render(collect(list(pair(tmp_path)))))
    assert "difference, ms" in page.text
    bars = [
        attributes
        for tag, attributes in page.elements
        if tag == "rect" and str(attributes.get("class")).startswith("bar b")
    ]
    assert {x["class"] for x in bars} == {"bar b0", "bar b1"}
    for bar in bars:
        if "%" in str(bar.get("x")):
            left = float(str(bar["x"])[:-1])
            assert left + float(str(bar["width"])[:-1]) <= 100.01


def test_a_dot_for_each_seed(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    many = seeds(run, {seed: 1000 * seed for seed in range(20)})
    page = Page(html.render(Document.of(many)))
    dots = [
        attributes for tag, attributes in page.elements if tag == "circle"
    ]
    marked = [x["data-run"] for x in dots if "data-run" in x]
    assert marked == [str(number) for number in range(20)]
    alone = Page(html.render(Document.of(many[:1])))
    assert alone.count("circle") == page.count("circle") - 20


def test_equal_blackouts_do_not_hide_one_another(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    same = seeds(run, dict.fromkeys(range(5), 0))
    page = Page(html.render(Document.of(same)))
    places = [
        (attributes["cx"], attributes["cy"])
        for tag, attributes in page.elements
        if tag == "circle" and "data-run" in attributes
    ]
    assert len(set(places)) == 5


def test_the_same_finding_is_told_once(tmp_path: Path) -> None:
    document = evil_document(tmp_path)
    many = Document.of(
        tuple(replace(document.runs[0], seed=n) for n in range(40))
    )
    page = Page(html.render(many))
    # The same finding is shown once as broken, and once as known.
    assert page.count("article") == 2
    assert "and 28 more runs" in " ".join(page.text.split())


def test_there_is_an_end_to_the_lanes(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    lane = run.lanes[0]
    wide = replace(run, lanes=(replace(lane, states=lane.states * 9000),))
    page = Page(html.render(Document.of((run, wide, wide, wide))))
    assert [bool(x["lanes"]) for x in page.data["runs"]] == [
        True, True, False, False,
    ]
    assert "no room for the lanes of 2 runs" in " ".join(page.text.split())


def test_report_of_refused_runs(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    bare = replace(
        run, blackout_ns=None, qmp_downtime_ms=None, zero_ns=None, lanes=(),
        marks=(), phases=(), critical_path=(), inputs=None, qemu="",
    )
    page = Page(html.render(Document.of((bare,))))
    assert "Phases of the blackout" not in page.text
    assert "not known, since the bundle is missing" in page.text
