# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress is shown as lines in logs, and as bars on terminals."""

from __future__ import annotations

import pytest
from vfio_p2p.cli.progress import display


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_line_for_each_step_that_matters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with display() as shown:
        line = shown.task("base")
        line(0, 0, "configuring")
        line(0, 0, "configuring")
        for done in range(1, 41):
            line(done, 40, "compiling")
        line.end("built")
    said = lines(capsys)
    assert said[:4] == [
        "base: configuring",
        "base: compiling [1/40]",
        "base: compiling [4/40]",
        "base: compiling [8/40]",
    ]
    assert said[-2:] == ["base: compiling [40/40]", "base: built"]
    assert len(said) == 13


def test_more_work_turns_up_on_the_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with display() as shown:
        line = shown.task("base")
        line(5, 10, "compiling")
        line(6, 100, "compiling")
        line(60, 100, "compiling")
    assert lines(capsys) == [
        "base: compiling [5/10]", "base: compiling [60/100]"
    ]


def test_text_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 200
    with display() as shown:
        shown.task("[red]a")(0, 0, f"[bold]{long}")
    assert lines(capsys) == [f"[red]a: [bold]{long}"]


def test_bars_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with display() as shown:
        line = shown.task("[red]base")
        line(0, 0, "configuring")
        line(3, 7, "compiling")
        shown.task("[red]patched").end("built")
    said = capsys.readouterr().err
    assert "3/7" in said
    assert "compiling" in said
    assert "[red]base" in said
    assert "[red]patched: built" in said
    assert "/100" not in said
