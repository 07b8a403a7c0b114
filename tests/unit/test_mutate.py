# SPDX-License-Identifier: GPL-2.0-or-later
"""The mutants that tools/mutate.py makes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_tool

TEXT = b"""\
static int other(void)
{
    return 0;
}

static int f(int a)
{
    int b = a;

    lock();
    if (a) {
        b++;
        return b;
    }
    QTAILQ_FOREACH_SAFE(e, &head, entries, next) {
        e->cb(a,
              b);
    }
    switch (a) {
    case 1:
        b = g();
        break;
    default:
        b = 2;
    }
    return b;
}
"""


@pytest.fixture(scope="module")
def mutate() -> ModuleType:
    """tools/mutate.py."""
    return load_tool("mutate")


def changes(mutate: ModuleType, how: str) -> list[tuple[int, list[str]]]:
    """The mutations of one kind: the lines that differ from TEXT."""
    old = TEXT.decode().splitlines()
    found = []
    for each in mutate.mutations(TEXT, "f"):
        new = each.text.decode().splitlines()
        # No line moves, except where two statements change places.
        assert len(new) == len(old)
        if each.how == how:
            pairs = zip(old, new, strict=True)
            lines = [y.strip() for x, y in pairs if x != y]
            found.append((each.line, lines))
    return sorted(found)


def test_functions_that_differ(mutate: ModuleType) -> None:
    before = TEXT.replace(b"b++", b"b--")
    assert mutate.touched(before, TEXT) == ["f"]
    assert mutate.touched(TEXT, TEXT) == []
    assert mutate.touched(b"", TEXT) == ["other", "f"]


def test_dropped(mutate: ModuleType) -> None:
    """Everything but declarations and the last return."""
    assert [x for x, _ in changes(mutate, "drop")] == [
        10, 11, 12, 13, 15, 16, 19, 21, 22, 24,
    ]  # fmt: skip
    assert changes(mutate, "drop")[0] == (10, [";"])
    # A loop by macro is one statement, and the call within is another.
    assert changes(mutate, "drop")[4:6] == [
        (15, [";", "", "", ""]), (16, [";", ""]),
    ]  # fmt: skip


def test_doubled(mutate: ModuleType) -> None:
    """Calls; the second one does not take a line of its own."""
    assert changes(mutate, "double") == [
        (10, ["lock(); lock();"]),
        (16, ["b); e->cb(a, b);"]),
        (21, ["b = g(); b = g();"]),
    ]


def test_swapped(mutate: ModuleType) -> None:
    """Neighbours, but nothing with what leaves the block."""
    assert [x for x, _ in changes(mutate, "swap")] == [10, 11, 15]
    assert changes(mutate, "swap")[0] == (
        10, ["if (a) {", "b++;", "return b;", "}", "lock();"],
    )  # fmt: skip


def test_patches_apply(mutate: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.c"
    for each in mutate.mutations(TEXT, "f"):
        path.write_bytes(TEXT)
        patch = mutate.patch("a.c", TEXT, each.text, each.how)
        subprocess.run(
            ["git", "apply", "-"], cwd=tmp_path, input=patch.encode(),
            check=True,
        )  # fmt: skip
        assert path.read_bytes() == each.text


def test_a_list_is_kept(mutate: ModuleType, tmp_path: Path) -> None:
    fates = [
        mutate.Fate("f-drop-1", "a.c", 10, 'say("a, b");'),
        mutate.Fate("f-drop-2", "a.c", 11, "x", "killed", "one", "order"),
    ]
    mutate.write_fates(tmp_path, fates)
    assert mutate.read_fates(tmp_path) == fates
