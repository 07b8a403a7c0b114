# SPDX-License-Identifier: GPL-2.0-or-later
"""Read TOML files, and say by key and line what is wrong in them."""

from __future__ import annotations

import copy
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vfio_p2p.errors import ScenarioError
from vfio_p2p.paths import is_special

_Kind = TypeVar("_Kind")

_MAX_BYTES = 1 << 20

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*[.=]""")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r".*unknown field `([^`]*)`", re.DOTALL)
_OWN_KEY = re.compile(r"([a-z_]+): ")       # what our own checks begin with
_QUOTES = re.compile(r"""\"{3}|'{3}""")


def read(path: Path) -> bytes:
    """Contents of a file.

    :raise ScenarioError: When it is too large to be what it should be, or
        no file at all.
    """
    if is_special(path):
        raise ScenarioError(path, None, "not a regular file")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ScenarioError(path, None, "larger than 1 MiB")
    return data


@dataclass(frozen=True)
class Document:
    """The text of a file.

    :param path: Where it is from, for messages.
    :param text: All of it.
    :param tree: What it says.
    """

    path: Path | str
    text: str
    tree: dict[str, Any]

    @classmethod
    def of(cls, data: bytes, path: Path | str) -> Document:
        """Decode a file.

        :raise ScenarioError: When it is not TOML.
        """
        try:
            text = data.decode()
            return cls(path, text, tomllib.loads(text))
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

    def wrong(self, keys: list[str | int], why: str) -> ScenarioError:
        """What to raise when a value is not what it should be.

        :param keys: They lead to the value.
        :param why: May begin with one more, and a colon.
        """
        if own := _OWN_KEY.match(why):
            keys = [*keys, own[1]]
            why = why[own.end() :]
        name = ".".join(str(key) for key in keys)
        return ScenarioError(
            self.path,
            _line_of(self.text, keys),
            f"{name}: {why}" if name else why,
        )

    def convert(self, kind: type[_Kind], *without: str) -> _Kind:
        """All of it as a value.

        :param without: Keys that are not part of that.
        :raise ScenarioError: When it is not such a value.
        """
        tree = {x: y for x, y in self.tree.items() if x not in without}
        try:
            return msgspec.convert(tree, kind)
        except msgspec.ValidationError as err:
            keys, why = _locate(copy.deepcopy(tree), kind, err)
            raise self.wrong(keys, why) from None


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
