# SPDX-License-Identifier: GPL-2.0-or-later
"""Read scenario files, and say by key and line what is wrong in them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.errors import ScenarioError, UsageError
from harness.scenario.case import Cases
from harness.scenario.model import Scenario, check_format

_Kind = TypeVar("_Kind")

_LIBRARY = Path(__file__).parent / "library"
_MAX_BYTES = 1 << 20

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*[.=]""")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r".*unknown field `([^`]*)`", re.DOTALL)
_OWN_KEY = re.compile(r"([a-z_]+): ")       # what our own checks begin with
_QUOTES = re.compile(r"""\"{3}|'{3}""")


@cache
def _library() -> dict[str, tuple[Path, str]]:
    """By name: the file of a scenario, and its case in it, if it is one."""
    found = {path.stem: (path, "") for path in _LIBRARY.glob("*.toml")}
    for path in _LIBRARY.glob("cases/*.toml"):
        for scenario, case in _parse(_read(path), path):
            found[scenario.name] = path, case
    return found


def names() -> list[str]:
    """Names of the scenarios that come with the tool."""
    return sorted(_library())


def load(what: str | Path) -> Scenario:
    """Read a scenario.

    :param what: Name of one that comes with the tool, or a file's path; of
        a file with cases ``PATH:CASE``.
    :raise UsageError: When there is neither.
    :raise ScenarioError: When the file is not a scenario.
    """
    path, case = _library().get(str(what), (Path(what), ""))
    if not path.exists():
        text, _, case = str(what).rpartition(":")
        path = Path(text)
    try:
        found = _parse(_read(path), path)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            f"no scenario {str(what)!r}",
            f"give a file, or one of: {', '.join(names())}",
        ) from None
    for scenario, name in found:
        if name == case:
            return scenario
    cases = [name for _, name in found if name]
    raise UsageError(
        f"{path}: no case {case!r}" if case else f"{path} is all cases",
        f"give one of: {', '.join(f'{path}:{x}' for x in cases)}"
        if cases
        else "leave the colon out, and what follows: it has no cases",
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ScenarioError(path, None, "larger than 1 MiB")
    return data


def parse(data: bytes, path: Path | str) -> tuple[Scenario, ...]:
    """Decode the text of a scenario, or of one with cases.

    :param path: Where it is from, for messages.
    :return: One for each case; without any, that one.
    :raise ScenarioError: When it is not a scenario.
    """
    return tuple(scenario for scenario, _ in _parse(data, path))


def _parse(
    data: bytes, path: Path | str
) -> list[tuple[Scenario, str]]:
    """All scenarios in a file, each with the name of its case, if any."""
    try:
        text = data.decode()
        tree = tomllib.loads(text)
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise ScenarioError(path, line, "not UTF-8 text") from None
    except tomllib.TOMLDecodeError as err:
        found = re.search(r"at line (\d+)", str(err))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ScenarioError(path, line, f"not TOML: {err}") from None
    except (RecursionError, ValueError) as err:
        # Brackets in thousands, or a number of as many digits.
        raise ScenarioError(path, None, f"not TOML: {err}") from None

    def wrong(keys: list[str | int], why: str) -> ScenarioError:
        name = ".".join(str(key) for key in keys)
        return ScenarioError(
            path, _line_of(text, keys), f"{name}: {why}" if name else why
        )

    try:
        check_format(tree.get("format", 1))
    except ValueError as err:
        raise wrong(["format"], str(err)) from None
    cases = {"cases": tree.pop("cases")} if "cases" in tree else {}
    scenario = _convert(tree, Scenario, wrong)
    if not cases:
        return [(scenario, "")]
    made = []
    for number, case in enumerate(_convert(cases, Cases, wrong).cases):
        try:
            made.append((case.of(scenario), case.name))
        except ValueError as err:
            own = _OWN_KEY.match(str(err))
            keys: list[str | int] = ["cases", number]
            raise wrong(
                [*keys, own[1]] if own else keys,
                str(err)[own.end() :] if own else str(err),
            ) from None
    for number, (_, name) in enumerate(made):
        if name in [x for _, x in made[:number]]:
            raise wrong(["cases", number, "name"], "another case has it")
    return made


def _convert(
    tree: dict[str, Any],
    kind: type[_Kind],
    wrong: Callable[[list[str | int], str], ScenarioError],
) -> _Kind:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as err:
        raise wrong(*_locate(tree, kind, err)) from None


def _locate(
    tree: dict[str, Any], kind: type, err: msgspec.ValidationError
) -> tuple[list[str | int], str]:
    """Keys that lead to what is wrong, as far as they are known, and why.

    `tree` is of no use afterwards.
    """
    why, _, where = f"{err}".rpartition(" - at `")
    if not why:
        why, where = where, ""
    keys: list[str | int] = []
    node: Any = tree
    for step in _STEP.finditer(where.rstrip("`").removeprefix("$")):
        if step[0] != "[...]":
            keys.append(int(step[2]) if step[2] else step[1])
        elif name := _culprit(tree, kind, node, str(err)):
            keys.append(name)
        else:
            break
        node = node[keys[-1]]
    if unknown := _UNKNOWN.match(why):
        keys.append(unknown[1])
    elif own := _OWN_KEY.match(why):
        keys.append(own[1])
        why = why[own.end() :]
    return keys, why


def _culprit(
    tree: dict[str, Any], kind: type, table: dict[str, Any], message: str
) -> str | None:
    """The key of `table` that the message is about: it does not say."""
    for name, value in dict(table).items():
        table.clear()
        table[name] = value
        try:
            msgspec.convert(tree, kind)
        except msgspec.ValidationError as err:
            if str(err) == message:
                return name
    return None


def _line_of(text: str, keys: list[str | int]) -> int | None:
    """Line that sets `keys`, or that of its nearest table, 1 is the first.

    The parser reports no positions, so this walks the headers and keys of
    the file; what is inside inline tables counts for the line they are on.
    """
    wanted = tuple(str(key) for key in keys)
    best, best_depth = None, 0
    table: tuple[str, ...] = ()
    last: dict[tuple[str, ...], int] = {}
    inside = False
    for number, line in enumerate(text.split("\n"), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        was_inside = inside
        inside ^= len(_QUOTES.findall(line)) % 2 == 1
        if was_inside:
            continue
        if header:
            *above, name = (x.strip(" \t\"'") for x in header[2].split("."))
            table = ()
            for part in above:
                table += (part,)
                if table in last:
                    table += (str(last[table]),)
            table += (name,)
            if header[1] == "[[":
                last[table] = last.get(table, -1) + 1
                table += (str(last[table]),)
            here = table
        elif key:
            here = (*table, key[1].strip("\"'"))
        else:
            continue
        depth = len(here)
        if wanted[:depth] == here and depth > best_depth:
            best, best_depth = number, depth
    return best
