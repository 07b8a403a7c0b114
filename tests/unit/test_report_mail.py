# SPDX-License-Identifier: GPL-2.0-or-later
"""The text for a mail is narrow enough, and complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from reports import evil_document, pair, run_document, seeds
from vfio_p2p.bundle.manifest import MadeOf
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.devices import mtty_limits
from vfio_p2p.report import figures, html, mail
from vfio_p2p.report.collect import collect
from vfio_p2p.report.commands import commands
from vfio_p2p.report.document import Document
from vfio_p2p.report.groups import ranges
from vfio_p2p.report.run import Unseen
from vfio_p2p.scenario.load import load


def lines_of(text: str) -> dict[str, list[str]]:
    """Return the lines of a comparison by the name in front."""
    return {
        name: cells
        for name, *cells in (x.split() for x in text.splitlines() if x)
        if len(cells) > 6
    }


def rows(text: str) -> dict[str, list[str]]:
    """Return the lines of the table by the name in front."""
    found = {}
    for line in text.splitlines():
        if line.startswith("  ") and "." in line:
            name, *cells = line.split()
            found[name] = cells
    return found


def test_it_fits(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path / "1").runs
    many = Document.of(
        tuple(
            replace(run, tree=f"patched+{'very-' * 9}long-{number}")
            for number in range(9)
        )
    )
    for document in (
        collect(list(pair(tmp_path))), evil_document(tmp_path / "2"), many,
    ):
        for line in mail.render(document).splitlines():
            if "vfio-p2p run" not in line:
                assert len(line) <= 79
            assert line == line.rstrip()


def test_no_text_acts(tmp_path: Path) -> None:
    text = mail.render(evil_document(tmp_path))
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "\\x1b]0;owned" in text
    assert len(text) < 20_000


def test_what_it_says(tmp_path: Path) -> None:
    text = mail.render(run_document(tmp_path))
    assert text.startswith("Tested with vfio-p2p\n")
    assert "QEMU     10.0.99\n" in text
    assert "2 x p2psim (stop_copy p2p pre_copy)" in text
    assert "Verdict: pass\n" in text
    assert "two-devices, patched, seed 42: pass, migrated" in text
    again = "run two-devices --variant patched --base v10.0 --seed 42"
    assert f"vfio-p2p {again}\n" in text
    assert "very same QEMU" not in text
    assert "difference" not in text


def test_phases_add_up(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    found = rows(mail.render(Document.of((run,))))
    assert run.blackout_ns is not None
    total = float(found.pop("blackout")[0])
    assert total == run.blackout_ns / 1e6
    parts = [float(found[x.name][0]) for x in run.phases]
    assert sum(parts) == pytest.approx(total)


def test_a_against_b(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    first = seeds(replace(run, tree="A"), dict.fromkeys(range(8), 0))
    more = {seed: 2_000_000 + 10_000 * seed for seed in range(8)}
    second = seeds(replace(run, tree="B"), more)
    text = mail.render(Document.of(first + second))
    assert "8 pairs, of seeds 0-7" in text
    assert run.blackout_ns is not None
    a_ms, _, difference_ms, *_ = lines_of(text)["blackout"]
    assert float(a_ms) == pytest.approx(run.blackout_ns / 1e6, abs=0.01)
    assert difference_ms == "+2.035"
    assert "blackout: slower by 2.035 ms" in text
    assert f"  phase {run.phases[0].name}: slower by 2.035 ms" in text


def test_two_sets_of_anything(tmp_path: Path) -> None:
    """Runs with phases that this program does not know are compared, too."""
    (run,) = run_document(tmp_path).runs
    odd = replace(
        run,
        tree="B",
        phases=(replace(run.phases[0], name="odd"), *run.phases[1:]),
    )
    text = mail.render(Document.of((run, odd)))
    assert "blackout: there is none to compare" not in text
    assert rows(text)["odd"][0] == "-"


def test_what_cannot_be_told(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    blind = replace(
        run,
        phases=run.phases[1:],
        not_observable=(
            Unseen(what="p2p-arcs", why="no lines", within="stop-arcs"),
        ),
    )
    text = mail.render(Document.of((blind,)))
    assert (
        "not observable: p2p-arcs: no lines (its time is in stop-arcs)"
        in " ".join(text.split())
    )
    assert "p2p-arcs" not in rows(text)


def test_commands(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    run = replace(run, scenario="a b", inputs=None, qemu="")
    again = "vfio-p2p run 'a b' --variant patched --base v1 --seed"
    for wanted, words in (
        ([3], f"{again} 3"),
        ([1, 3, 2, 3], f"for n in $(seq 1 3); do {again} $n; done"),
        ([7, 1, 42], f"for n in 1 7 42; do {again} $n; done"),
    ):
        runs = tuple(replace(run, seed=seed) for seed in wanted)
        assert commands(Document.of(runs, base="v1")) == (words,)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("QEMU emulator version 10.2.2 (Debian)", "--base v10.2"),
        ("QEMU emulator version 8.1.0", "--base v8.1"),
        ("unheard of", "--base v7"),
    ],
)
def test_command_names_the_qemu(
    tmp_path: Path, version: str, words: str
) -> None:
    (run,) = run_document(tmp_path).runs
    again = replace(run, qemu=version)
    # The base of the report only counts if the run does not tell.
    (command,) = commands(Document.of((again,), base="v7"))
    assert command == (
        f"vfio-p2p run two-devices --variant patched {words} --seed 42"
    )


def test_command_names_the_device(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    assert run.inputs
    assert isinstance(run.inputs.place, SealedProvenance)
    place = replace(run.inputs.place, driver="mtty")
    on_mtty = replace(
        run,
        scenario=mtty_limits.adapt(load("one-device")).name,
        inputs=replace(run.inputs, place=place),
    )
    (command,) = commands(Document.of((on_mtty,)))
    assert command == (
        "vfio-p2p run one-device --device mtty --variant patched "
        "--base v10.0 --seed 42"
    )


def test_exact_command(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    assert run.inputs
    made_of = MadeOf(
        source="5" * 64, version="10.0.99", patches=(), compiler="cc",
        meson="1",
    )
    source = replace(run.inputs.source, made_of=made_of)
    known = replace(
        run,
        bundle="a b",
        inputs=replace(run.inputs, source=source, destination=source),
    )
    for runs, command in (
        ((run, known), "vfio-p2p reproduce 'a b'"),
        ((known, known), "vfio-p2p reproduce BUNDLE"),
    ):
        text = mail.render(Document.of(runs))
        assert f"With the very same QEMU:\n  {command}\n" in text
    assert "vfio-p2p reproduce BUNDLE</code>" in html.render(
        Document.of((known, known))
    )


def test_ranges() -> None:
    assert ranges([3, 1, 2, 7, 9, 8, 42]) == "1-3, 7-9, 42"
    assert ranges([5, 5]) == "5"
    assert ranges([1, 2]) == "1-2"


def test_milliseconds() -> None:
    assert figures.ms(59_867_000) == "59.867"
    assert figures.ms(59_867_123) == "59.867123"
    assert figures.ms(59_867_600.0) == "59.868"
