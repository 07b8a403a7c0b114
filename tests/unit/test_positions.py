# SPDX-License-Identifier: GPL-2.0-or-later
"""Every key of a TOML text is found, on its line, in linear time."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vfio_p2p import resources
from vfio_p2p.errors import ScenarioError
from vfio_p2p.scenario.load import parse
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.positions import Key, line_of, positions
from vfio_p2p.scenario.strict import TomlDocument

LIBRARY = sorted(resources.resource("scenario", "library").rglob("*.toml"))

TEXT = '''\
# [not.a.table]
top = 1979-05-27 07:32:00Z  # = 2
a . "b.c" . 'd' = [1, [2,
    {x = "]", y.z = """}
]"""}], # , 9
    3]

[one]
two.three = {four = \'\'\'a''\'\'\', five = "\\"" }
[[one.list]]
x = 1
[[one.list]]
[one.list.deep]
"\\u0061" = """a""\\""""""
[[one.list.deep.list]]
last = -inf
'''

# Pieces of many texts that are TOML, or nearly TOML.
PIECES = [
    "a", "b", '"c"', "'d.e'", '"\\u0061"', ".", " = ", "1", "true", "[", "]",
    "[[", "]]", "{", "}", ", ", "\n", "\n[a]\n", "\n[[b]]\n", "# [x]\n", '"""',
    "'''", '""', "1979-05-27 07:32:00", "a = 1\n", "b = {a = 1}\n", "\\",
    "\r\n",
]


def paths(value: object, path: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
    """Yield all paths of a tree."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths(each, (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from paths(each, (*path, number))


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("top",), 2),
        (("a", "b.c", "d", 0), 3),
        (("a", "b.c", "d", 1, 1, "y", "z"), 4),
        (("a", "b.c", "d", 2), 6),
        (("one", "two", "three", "five"), 9),
        (("one", "list", 0, "x"), 11),
        (("one", "list", 1), 12),
        (("one", "list", 1, "deep", "a"), 14),
        (("one", "list", 1, "deep", "list", 0, "last"), 16),
        (("one", "list", 1, "nothing"), 12),
        (("nothing",), None),
        ((), None),
    ],
)
def test_the_line_of_a_value_or_its_table(
    keys: tuple[Key, ...], line: int | None
) -> None:
    assert line_of(TEXT, keys) == line


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_all_keys_of_the_library(path: Path) -> None:
    text = path.read_text()
    found = dict(positions(text))
    assert set(found) == set(paths(tomllib.loads(text), ()))
    lines = text.split("\n")
    for keys, line in found.items():
        if isinstance(keys[-1], str):
            assert keys[-1] in lines[line - 1]


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_no_key_that_the_parser_knows_is_missed(text: str) -> None:
    found = {keys for keys, _ in positions(text)}
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert found == set(paths(tree, ()))


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 400_000 + " = 1",
        "[a" + ".a" * 400_000 + "]",
        "a = " + "[" * 900_000,
        "a = " + "{a = " * 150_000,
    ],
)
def test_deep_nesting_is_refused_at_once(text: str) -> None:
    with pytest.raises(ScenarioError, match="x:2: nested more than 64") as e:
        TomlDocument.of(f"\n{text}\n".encode(), "x")
    assert e.value.line == 2


@pytest.mark.parametrize(
    "text",
    ['a = "' + "\\" * 900_000, 'a = """' + '"' * 900_000, "'" * 900_000],
)
def test_a_string_without_an_end_is_not_toml(text: str) -> None:
    with pytest.raises(ScenarioError, match="not TOML"):
        TomlDocument.of(text.encode(), "x")


def test_the_wrong_one_of_many_own_keys() -> None:
    arcs = "\n".join(f'"x{n}" = 1' for n in range(50_000))
    text = f'name = "x"\n[[devices]]\n[devices.latency_us]\n{arcs}\n"y" = []\n'
    with pytest.raises(ScenarioError) as caught:
        parse(text.encode(), "x.toml")
    assert caught.value.what.startswith(
        "x.toml:50004: devices.0.latency_us.y: Expected `int`"
    )


def test_the_first_of_two_tables_with_one_error() -> None:
    text = """\
name = "x"
[[devices]]
[expect.followups.one]
guest = {source = "running"}
[expect.followups.two]
guest = {source = "running", destination = 3}
[expect.followups.three]
guest = {source = 4}
"""
    with pytest.raises(ScenarioError) as caught:
        TomlDocument.of(text.encode(), "x").convert(Scenario)
    assert caught.value.what.startswith(
        "x:6: expect.followups.two.guest.destination: Expected `str`"
    )


def test_a_wrong_key_is_named() -> None:
    text = """\
name = "x"
[[devices]]
[expect.base.guest]
source = "running"
someone = "running"
"""
    with pytest.raises(ScenarioError) as caught:
        TomlDocument.of(text.encode(), "x").convert(Scenario)
    assert caught.value.what.startswith("x:5: expect.base.guest.someone: ")
