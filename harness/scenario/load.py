# SPDX-License-Identifier: GPL-2.0-or-later
"""Read scenario files, and say by key and line what is wrong in them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.errors import ScenarioError, UsageError
from harness.paths import project_root
from harness.scenario.model import Scenario, check_format
from harness.scenario.profile import Profile

_LIBRARY = Path(__file__).parent / "library"
_MAX_BYTES = 1 << 20

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*[.=]""")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r".*unknown field `([^`]*)`", re.DOTALL)
_OWN_KEY = re.compile(r"([a-z_]+): ")       # what our own checks begin with
_QUOTES = re.compile(r"""\"{3}|'{3}""")

_T = TypeVar("_T", Scenario, Profile)


def names() -> list[str]:
    """Names of the scenarios that come with the tool."""
    return sorted(path.stem for path in _LIBRARY.glob("*.toml"))


def load(what: str | Path) -> Scenario:
    """Read a scenario.

    :param what: Name of one that comes with the tool, or a file's path.
    :raise UsageError: When there is neither.
    :raise ScenarioError: When the file is not a scenario.
    """
    path, data = _read("scenario", what, _LIBRARY)
    return parse(data, path)


def profiles() -> list[str]:
    """Names of the latency profiles that come with the tool."""
    return sorted(path.stem for path in _profiles().glob("*.toml"))


def load_profile(what: str | Path) -> Profile:
    """Read a latency profile.

    :param what: Name of one that comes with the tool, or a file's path.
    :raise UsageError: When there is neither.
    :raise ScenarioError: When the file is not a profile.
    """
    path, data = _read("profile", what, _profiles())
    return _decode(data, path, Profile)[1]


def _profiles() -> Path:
    return project_root() / "images" / "p2psim" / "profiles"


def _read(kind: str, what: str | Path, folder: Path) -> tuple[Path, bytes]:
    """One of a folder's files by its name, or any by its path."""
    known = sorted(path.stem for path in folder.glob("*.toml"))
    path = Path(what)
    if str(what) in known:
        path = folder / f"{what}.toml"
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            f"no {kind} {str(what)!r}",
            f"give a file, or one of: {', '.join(known)}",
        ) from None
    if len(data) > _MAX_BYTES:
        raise ScenarioError(path, None, "larger than 1 MiB")
    return path, data


def parse(data: bytes, path: Path | str) -> Scenario:
    """Decode the text of a scenario, with what its profiles say.

    :param path: Where it is from, for messages.
    :raise ScenarioError: When it is not a scenario.
    """
    text, scenario = _decode(data, path, Scenario)
    devices = list(scenario.devices)
    for number, device in enumerate(devices):
        if not device.profile:
            continue
        try:
            devices[number] = load_profile(device.profile).of(device)
        except (UsageError, ValueError) as err:
            hint = f"; {err.hint}" if isinstance(err, UsageError) else ""
            keys: list[str | int] = ["devices", number, "profile"]
            name = ".".join(map(str, keys))
            raise ScenarioError(
                path, _line_of(text, keys), f"{name}: {err}{hint}"
            ) from None
    return msgspec.structs.replace(scenario, devices=tuple(devices))


def _decode(
    data: bytes, path: Path | str, kind: type[_T]
) -> tuple[str, _T]:
    """Text and value of a file; errors name the key and its line."""
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
    try:
        check_format(tree.get("format", 1))
    except ValueError as err:
        where = _line_of(text, ["format"])
        raise ScenarioError(path, where, str(err)) from None
    try:
        return text, msgspec.convert(tree, kind)
    except msgspec.ValidationError as err:
        keys, why = _locate(tree, err, kind)
        name = ".".join(str(key) for key in keys)
        raise ScenarioError(
            path, _line_of(text, keys), f"{name}: {why}" if name else why
        ) from None


def _locate(
    tree: dict[str, Any], err: msgspec.ValidationError, kind: type
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
        elif name := _culprit(tree, node, str(err), kind):
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
    tree: dict[str, Any], table: dict[str, Any], message: str, kind: type
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
