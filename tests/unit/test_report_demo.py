# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment in words and as a picture."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import traffic
from bundles import make_bundle
from msgspec.structs import replace
from reports import DEVICE, evil_bundle
from traffic import SENT, traffic_bundle
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.errors import InputError
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.judging import demo as judging
from vfio_p2p.report import demo, picture, text
from vfio_p2p.report.document import Document
from vfio_p2p.report.picture import draw
from vfio_p2p.report.run import Run
from vfio_p2p.report.runs import run_of
from vfio_p2p.scenario.load import load

SVG = "{http://www.w3.org/2000/svg}"
TEMPLATES = Path(picture.__file__).parent / "templates"


def arm(path: Path) -> Run:
    return run_of(open_bundle(path))


@pytest.fixture
def arms(tmp_path: Path) -> tuple[Run, Run]:
    """A run that loses nothing, and one that loses three transactions."""
    return (
        arm(traffic_bundle(tmp_path / "a")),
        arm(traffic_bundle(tmp_path / "b", "patched+one-pass", lost=3)),
    )


def test_what_it_shows(arms: tuple[Run, Run]) -> None:
    kept, broken = arms
    assert kept.verdict is Verdict.PASS, kept
    assert judging.verdict(kept, broken) is Verdict.PASS
    # None of these would prove anything.
    assert judging.verdict(kept, kept) is Verdict.FAIL
    assert judging.verdict(broken, broken) is Verdict.FAIL
    silent = replace(kept, traffic=None)
    assert judging.verdict(silent, broken) is Verdict.FAIL
    kept_all = replace(broken, traffic=Traffic(200, 200, 0, 0))
    assert judging.verdict(kept, kept_all) is Verdict.FAIL
    blind = tuple(x for x in broken.findings if x.rule != "conservation")
    missed = replace(broken, findings=blind)
    assert judging.verdict(kept, missed) is Verdict.FAIL


def test_what_is_not_known_is_no_failure(arms: tuple[Run, Run]) -> None:
    def unknown(one: Run) -> Run:
        return replace(one, verdict=Verdict.INCONCLUSIVE, findings=())

    kept, broken = arms
    assert judging.verdict(unknown(kept), broken) is Verdict.INCONCLUSIVE
    assert judging.verdict(kept, unknown(broken)) is Verdict.INCONCLUSIVE
    # Still, known failures remain failures.
    assert judging.verdict(unknown(kept), kept) is Verdict.FAIL
    assert judging.verdict(unknown(broken), broken) is Verdict.FAIL
    assert judging.verdict(broken, unknown(broken)) is Verdict.FAIL


def test_without_a_migration_there_is_nothing_to_draw(
    arms: tuple[Run, Run],
) -> None:
    kept, broken = arms
    error = replace(broken, verdict=Verdict.ERROR)
    refused = replace(broken, blackout_ns=None)
    for other, verdict in (
        (error, Verdict.ERROR), (refused, Verdict.FAIL)
    ):
        found = judging.document(
            kept, other, qemu="QEMU", base="v10.0", picture="demo.svg"
        )
        assert found.verdict is verdict
        assert found.picture == ""
        assert "variant" in text.render(found)
    unclear = replace(kept, verdict=Verdict.INCONCLUSIVE)
    assert judging.verdict(unclear, refused) is Verdict.INCONCLUSIVE


def test_report(arms: tuple[Run, Run]) -> None:
    found = judging.document(
        *arms, qemu="QEMU", base="v10.0", picture="out/demo.svg"
    )
    lines = text.render(found).splitlines()
    assert lines[0] == "two-devices-with-traffic, seed 42:"
    assert lines[-3:] == ["", "verdict: pass", "picture: out/demo.svg"]
    assert found.tree_names == (
        "With the barrier across devices (patched)",
        "Without it (patched+one-pass)",
    )


def test_words(arms: tuple[Run, Run]) -> None:
    lines = [*demo.lines(arms)]
    assert len(lines) <= 12
    (kept,) = (line for line in lines if line.startswith("  patched "))
    assert kept.split()[1:] == [
        "200", "sent", "200", "delivered", "0", "lost", "pass",
    ]  # fmt: skip
    (broken,) = (line for line in lines if line.startswith("  patched+"))
    assert broken.split()[1:] == [
        "203", "sent", "200", "delivered", "3", "lost", "fail",
    ]  # fmt: skip
    assert f"patched+one-pass, device 0 to 1: 3 of {SENT + 3} lost" in lines
    assert (
        "     3  as the source stops (finish-migrate): sender PRE_COPY, "
        "receiver STOP_COPY"
    ) in lines
    assert not any("device 1 to 0" in line for line in lines)
    (rules,) = (line for line in lines if "broken rules" in line)
    assert "barrier" in rules
    assert "conservation" in rules


def test_each_direction_has_its_own_losses(tmp_path: Path) -> None:
    qemus = [traffic.source(lost=3), traffic.destination(lost=3)]
    for qemu, name in zip(qemus, ("src1", "dst1"), strict=True):
        qemu.device(name).peers[0] |= {"sent": SENT + 1, "lost": 1}
    qemus[0].device("src1").say(
        "lost from=1 to=0 seq=101 from_state=STOP to_state=ERROR"
    )
    both = arm(
        make_bundle(
            tmp_path / "b",
            scenario=load("two-devices-with-traffic"),
            source=qemus[0],
            destination=qemus[1],
        )
    )
    lines = [*demo.lines([both, both])]
    at = lines.index(f"patched, device 1 to 0: 1 of {SENT + 1} lost")
    assert lines[at - 1].split()[0] == "3"
    assert lines[at + 1].split()[0] == "1"
    assert lines[at + 1].endswith("sender STOP, receiver ERROR")
    assert "broken rules" in lines[at + 2]


def test_what_no_log_tells_of_is_counted(tmp_path: Path) -> None:
    lost = open_bundle(traffic_bundle(tmp_path / "a", lost=2))
    log = "devices/src0.log"
    data = re.sub(rb"\d+ lost from=.*\n", b"", lost.files[log])
    without = dataclasses.replace(lost, files=lost.files | {log: data})
    assert "     2  at a time that no log tells" in [
        *demo.lines([run_of(without)])
    ]


def marks(svg: ET.Element, style: str) -> list[ET.Element]:
    return [x for x in svg.iter() if x.get("class") == style]


def titles(svg: ET.Element) -> list[str]:
    return [
        x.findtext(f"{SVG}title") or "" for x in svg.iter(f"{SVG}rect")
    ]


def document(*runs: Run) -> Document:
    return Document.of(
        replace(run, tree=f"Tree {run.variant}") for run in runs
    )


def test_picture(arms: tuple[Run, Run]) -> None:
    svg = ET.fromstring(draw(document(*arms)))
    legend = 1
    assert len(marks(svg, "lost")) == 3 + legend
    assert len(marks(svg, "way")) == 3
    words = [x.text or "" for x in svg.iter(f"{SVG}text")]
    for word in (
        "Tree patched", "Tree patched+one-pass", "none lost", "3 lost",
        "device 0", "device 1", "lost transaction",
    ):  # fmt: skip
        assert word in words
    shown = titles(svg)
    for device in ("src0", "src1", "dst0", "dst1"):
        assert any(x.startswith(f"{device}: ") for x in shown)
    assert any(
        "src1: PRE_COPY to PRE_COPY_P2P, 0." in title for title in shown
    )


def test_marks_are_where_and_when_it_happened(
    arms: tuple[Run, Run],
) -> None:
    svg = ET.fromstring(draw(document(*arms)))
    places = []
    for mark in marks(svg, "way"):
        found = re.fullmatch(
            r"M([\d.]+) ([\d.]+)V([\d.]+)", mark.get("d") or ""
        )
        assert found
        places.append(tuple(map(float, found.groups())))
    lanes = [
        x for x in svg.iter(f"{SVG}text") if (x.text or "") == "device 0"
    ]
    assert len(lanes) == 2
    for x, start, end in places:
        # From the first lane of the second tree to the one below.
        assert start > float(lanes[1].get("y", 0)) - 20
        assert end > start
        boxes = [
            box
            for box in svg.iter(f"{SVG}rect")
            if "STOP_COPY" in (box.findtext(f"{SVG}title") or "")
            and float(box.get("x", 0)) <= x
            and float(box.get("y", 0)) < end
            and end < float(box.get("y", 0)) + float(box.get("height", 0))
        ]
        assert boxes


def test_the_same_runs_are_the_same_picture(arms: tuple[Run, Run]) -> None:
    assert draw(document(*arms)) == draw(document(*arms))


def test_picture_asks_for_nothing(arms: tuple[Run, Run]) -> None:
    data = draw(document(*arms))
    svg = ET.fromstring(data)
    assert {x.tag.removeprefix(SVG) for x in svg.iter()} == {
        "svg", "title", "style", "rect", "text", "path",
    }  # fmt: skip
    assert not any(
        name.startswith("on") or "href" in name
        for x in svg.iter()
        for name in x.attrib
    )
    for word in ("url(", "@import", "var("):
        assert word not in data
    assert data.count("http") == 1


def test_picture_escapes_names(tmp_path: Path) -> None:
    run = run_of(
        open_bundle(evil_bundle(tmp_path / "b")),
        tree=f"{DEVICE}\x1b\x00",
    )
    data = draw(Document.of([run]))
    assert data.replace("\n", "").isprintable()
    assert "<script" not in data
    shown = titles(ET.fromstring(data))
    assert any("<script>x</script>]]>&\\u202e: " in x for x in shown)


def test_colours_are_those_of_the_page() -> None:
    style = (TEMPLATES / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for name, colours in picture.COLOURS.items():
        for rules, colour in zip((light, dark), colours, strict=True):
            assert f"--{name}: {colour};" in rules


def test_no_picture_of_no_migration(tmp_path: Path) -> None:
    run = run_of(open_bundle(make_bundle(tmp_path / "b", destination=b"")))
    assert not picture.drawable(run)
    with pytest.raises(InputError, match="no blackout"):
        draw(Document.of([run]))
    with pytest.raises(InputError, match="no run to draw"):
        draw(Document.of([]))


def test_sums() -> None:
    assert Traffic.of(()) is None
    assert Traffic(5, 4, 1, 0) + Traffic(1, 1, 0, 2) == Traffic(6, 5, 1, 2)
