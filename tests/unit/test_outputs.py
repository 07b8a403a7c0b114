# SPDX-License-Identifier: GPL-2.0-or-later
"""The outputs in pages that tools/outputs.py renews."""

from __future__ import annotations

from types import ModuleType

import pytest
from scripts import load_tool

PAGE = """\
# Title

It took 51.477 ms, the other 42.548 ms, and 8.929 ms less.

    vfio-p2p run one \\
        --seed 7

     variant   blackout
     ──────────────────
     base     51.477 ms

    digest: 72a837cb653b75fffe99b386527bfb34

Only a part of this is shown:

    vfio-p2p show

    first 42.548 ms
    ...

    vfio-p2p one
    vfio-p2p two

The same elsewhere:

    QEMU emulator version 10.0.13
     base     51.477 ms
"""


@pytest.fixture(scope="module")
def outputs() -> ModuleType:
    """tools/outputs.py."""
    return load_tool("outputs")


def test_what_is_shown(outputs: ModuleType) -> None:
    found = list(outputs.shown(PAGE.split("\n")))
    assert [(x.command, len(x.lines)) for x in found] == [
        ("vfio-p2p run one --seed 7", 5),
        ("vfio-p2p show", 2),
        ("vfio-p2p validate", 2),
    ]
    assert found[0].lines[0] == "     variant   blackout"


def test_renewed(outputs: ModuleType) -> None:
    page = outputs.Renewal(PAGE.split("\n"))
    run, show, elsewhere = outputs.shown(page.lines)
    table = " variant     blackout\n ────────────\n base    101.000 ms\n"
    outputs.renew(page, run, f"{table}\ndigest: {'0123456789ab' * 2}\n")
    outputs.renew(page, show, "more\n  first 42.000 ms\nlast\n")
    outputs.renew(
        page, elsewhere, "QEMU emulator version 10.0.14\n base 101.000 ms\n"
    )
    assert page.odd == [("vfio-p2p show", "...")]
    assert outputs.renew_prose(page) == ["8.929: in no output"]
    text = "\n".join(page.lines)
    assert text == (
        PAGE.replace("51.477 ms,", "101.000 ms,")
        .replace("42.548", "42.000")
        .replace("     variant   blackout", "     variant     blackout")
        .replace("     ──────────────────", "     ────────────")
        .replace("     base     51.477 ms\n\n", "     base    101.000 ms\n\n")
        .replace("72a837cb653b75fffe99b386527bfb34", "0123456789ab" * 2)
        .replace("10.0.13\n     base     51.477", "10.0.14\n     base 101.000")
    )


def test_a_figure_with_two_values(outputs: ModuleType) -> None:
    page = outputs.Renewal(["At 51.477 ms."])
    page.figures["51.477"] |= {"1.000", "2.000"}
    assert outputs.renew_prose(page) == ["51.477: 1.000, 2.000"]
    assert page.lines == ["At 51.477 ms."]


def test_figures_that_are_old_and_new(outputs: ModuleType) -> None:
    """None is replaced twice, and no part of another one is replaced."""
    page = outputs.Renewal(["1.000, then 2.000, and 11.000"])
    page.figures["1.000"].add("2.000")
    page.figures["2.000"].add("3.000")
    page.figures["11.000"].add("11.000")
    assert outputs.renew_prose(page) == []
    assert page.lines == ["2.000, then 3.000, and 11.000"]
