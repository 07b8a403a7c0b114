# SPDX-License-Identifier: GPL-2.0-or-later
"""Read scenario files, and say by key and line what is wrong in them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from harness.errors import ScenarioError, UsageError
from harness.scenario.model import Scenario

_LIBRARY = Path(__file__).parent / "library"
_MAX_BYTES = 1 << 20

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*[.=]""")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


def names() -> list[str]:
    """Names of the scenarios that come with the tool."""
    return sorted(path.stem for path in _LIBRARY.glob("*.toml"))


def load(what: str | Path) -> Scenario:
    """Read a scenario.

    :param what: Name of one that comes with the tool, or a file's path.
    :raise UsageError: When there is neither.
    :raise ScenarioError: When the file is not a scenario.
    """
    path = _LIBRARY / f"{what}.toml"
    if str(what) not in names():
        path = Path(what)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            f"no scenario {str(what)!r}",
            f"give a file, or one of: {', '.join(names())}",
        ) from None
    if len(data) > _MAX_BYTES:
        raise ScenarioError(path, None, "larger than 1 MiB")
    return parse(data, path)


def parse(data: bytes, path: Path | str) -> Scenario:
    """Decode the text of a scenario.

    :param path: Where it is from, for messages.
    :raise ScenarioError: When it is not a scenario.
    """
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
    try:
        return msgspec.convert(tree, Scenario)
    except msgspec.ValidationError as err:
        why, _, where = str(err).partition(" - at `")
        keys: list[str | int] = [
            int(step[2]) if step[2] else step[1]
            for step in _STEP.finditer(where.rstrip("`").lstrip("$"))
            if step[1] or step[2]
        ]
        unknown = _UNKNOWN.search(why)
        if unknown:
            keys.append(unknown[1])
        name = ".".join(str(key) for key in keys)
        raise ScenarioError(
            path, _line_of(text, keys), f"{name}: {why}" if name else why
        ) from None


def _line_of(text: str, keys: list[str | int]) -> int | None:
    """Line that sets `keys`, or that of its nearest table, 1 is the first.

    The parser reports no positions, so this walks the headers and keys of
    the file; what is inside inline tables counts for the line they are on.
    """
    wanted = tuple(str(key) for key in keys)
    best, best_depth = None, 0
    table: tuple[str, ...] = ()
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            name = header[2]
            table = tuple(part.strip(" \"'") for part in name.split("."))
            if header[1] == "[[":
                seen[name] = seen.get(name, -1) + 1
                table += (str(seen[name]),)
            here = table
        else:
            key = _KEY.match(line)
            if not key:
                continue
            here = (*table, key[1].strip("\"'"))
        depth = len(here)
        if wanted[:depth] == here and depth > best_depth:
            best, best_depth = number, depth
    return best
