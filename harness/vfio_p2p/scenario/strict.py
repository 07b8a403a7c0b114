# SPDX-License-Identifier: GPL-2.0-or-later
"""Read TOML files, and report errors in them by key and line."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vfio_p2p.errors import ScenarioError
from vfio_p2p.foreign import UnfitFileError, read_file
from vfio_p2p.scenario.positions import Key, line_of, positions

_Kind = TypeVar("_Kind")

_MAX_BYTES = 1 << 20
# Far more than any format here has.  tomllib takes quadratic time for a key
# of many parts, and recurses for nested values.
_MAX_DEPTH = 64

_WHERE = re.compile(
    r"(?P<why>.*) - at (?P<key>`key` in )?`\$(?P<where>[^`]*)`", re.DOTALL
)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r".*unknown field `([^`]*)`", re.DOTALL)
# Our own checks begin their messages with the key.
_OWN_KEY = re.compile(r"([a-z_]+): ")


def read(path: Path) -> bytes:
    """Return the contents of a file.

    :param path: The file.
    :raise ScenarioError: When it is not a regular file, or is too large for
        a scenario.
    """
    try:
        return read_file(path, _MAX_BYTES)
    except UnfitFileError as err:
        raise ScenarioError(path, None, str(err.strerror)) from None


@dataclass(frozen=True)
class TomlDocument:
    """A TOML file.

    :param path: The file's path, for messages.
    :param text: Its text.
    :param tree: Its values.
    """

    path: Path | str
    text: str
    tree: dict[str, Any]

    @classmethod
    def of(cls, data: bytes, path: Path | str) -> TomlDocument:
        """Decode a file.

        :param data: Its contents.
        :param path: Its path, for messages.
        :raise ScenarioError: When it is not TOML, or nested too deeply.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError as err:
            line = data.count(b"\n", 0, err.start) + 1
            raise ScenarioError(path, line, "not UTF-8 text") from None
        for keys, line in positions(text):
            if len(keys) > _MAX_DEPTH:
                why = f"nested more than {_MAX_DEPTH} levels deep"
                raise ScenarioError(path, line, why)
        try:
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as err:
            found = re.search(r"at line (\d+)", str(err))
            line = int(found[1]) if found else text.count("\n") + 1
            raise ScenarioError(path, line, f"not TOML: {err}") from None
        except ValueError as err:
            # Python refuses to convert thousands of digits to a number.
            raise ScenarioError(path, None, f"not TOML: {err}") from None

    def has(self, keys: Sequence[Key]) -> bool:
        """Whether there is a value.

        :param keys: The path of keys and indices that leads to it.
        """
        node: Any = self.tree
        for key in keys:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return False
        return True

    def wrong(self, keys: list[Key], why: str) -> ScenarioError:
        """Return the error for a value that is wrong.

        :param keys: The path of keys and indices that leads to the value.
        :param why: What is wrong.  It may begin with one more key and a
            colon.
        """
        if own := _OWN_KEY.match(why):
            keys = [*keys, own[1]]
            why = why[own.end() :]
        name = ".".join(str(key) for key in keys)
        return ScenarioError(
            self.path,
            line_of(self.text, keys),
            f"{name}: {why}" if name else why,
        )

    def convert(self, kind: type[_Kind], *without: str) -> _Kind:
        """Convert the file's values to a type.

        :param kind: The type.
        :param without: Top-level keys that do not belong to it.
        :raise ScenarioError: When a key is unknown, or a value is missing
            or wrong.
        """
        tree = {x: y for x, y in self.tree.items() if x not in without}
        try:
            return msgspec.convert(tree, kind)
        except msgspec.ValidationError as err:
            keys, why = _locate(tree, kind, str(err))
            raise self.wrong(keys, why) from None


def _locate(
    tree: dict[str, Any], kind: type, message: str
) -> tuple[list[Key], str]:
    """Return the path to what msgspec complains about, and the complaint.

    :param tree: The values.
    :param kind: The type to which they could not be converted.
    :param message: What msgspec said.
    """
    found = _WHERE.fullmatch(message)
    why = found["why"] if found else message
    steps = _STEP.findall(found["where"]) if found else []
    if found and found["key"]:
        # A key of the last table is wrong, and not a value in it.
        steps.append(("", ""))
    keys: list[Key] = []
    node: Any = tree
    for name, index in steps:
        if name or index:
            keys.append(name or int(index))
        elif culprit := _culprit(tree, kind, keys, message):
            # Another key of the same table may have the same error.
            tree = _with(tree, keys, {culprit: node[culprit]})
            keys.append(culprit)
        else:
            break
        node = node[keys[-1]]
    if unknown := _UNKNOWN.match(why):
        keys.append(unknown[1])
    return keys, why


def _culprit(
    tree: dict[str, Any], kind: type, keys: list[Key], message: str
) -> str | None:
    """Return the key of a table that a message is about.

    Of a table with keys of the user's own, msgspec does not say which one it
    complains about.  As it converts them in order and stops at the first
    error, the last key that the error needs is the culprit.

    :param tree: The values.
    :param kind: The type to which they cannot be converted.
    :param keys: The path that leads to the table.
    :param message: What msgspec said.
    """
    table: Any = tree
    for key in keys:
        table = table[key]
    if not isinstance(table, dict):
        return None
    names = list(table)

    def fails(count: int) -> bool:
        part = {name: table[name] for name in names[:count]}
        try:
            msgspec.convert(_with(tree, keys, part), kind)
        except msgspec.ValidationError as err:
            return str(err) == message
        return False

    count = bisect_left(range(len(names) + 1), True, key=fails)
    return names[count - 1] if 0 < count <= len(names) else None


def _with(tree: Any, keys: list[Key], value: object) -> Any:
    """Return a tree in which one value is replaced."""
    if not keys:
        return value
    copy = tree.copy()
    copy[keys[0]] = _with(tree[keys[0]], keys[1:], value)
    return copy
