# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the line of every key and value of a TOML text.

No parser in Python's library reports positions.  This is the lexer's half of
one: it follows the structure of a text that need not be valid, takes time
proportional to the text's length, and leaves the values to `tomllib`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence

Key = str | int

_BLANK = re.compile(r"(?:[ \t\r]|#[^\n]*)+")
_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
# No possessive quantifiers: those of a group with several branches are broken
# in Python 3.11.2, which is Debian 12's.
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
# A date may have a blank in it.
_SCALAR = re.compile(r"[^\s,\[\]{}#\"'=][^,\[\]{}#\n]*")


class _EndError(Exception):
    """The text ends here, or goes on with what is not TOML."""


def positions(text: str) -> Iterator[tuple[tuple[Key, ...], int]]:
    """Yield where each key and value is, in the order of the text.

    :param text: The text.  If it is not TOML, the iteration ends where the
        first error is, or later.
    :return: The path of keys and indices that leads to a value, and the
        line of the value's key, 1 being the first.  Each path comes after
        those that it begins with.  A table may come more than once.
    """
    return _Lexer(text).document()


def line_of(text: str, keys: Sequence[Key]) -> int | None:
    """Return the line that sets a value, or else its nearest table.

    :param text: The text.
    :param keys: The path that leads to the value.
    :return: The line, 1 being the first; None if not even the first key is
        in the text.
    """
    wanted = tuple(keys)
    best, line = 0, None
    for path, number in positions(text):
        if len(path) > best and wanted[: len(path)] == path:
            best, line = len(path), number
    return line


class _Lexer:
    """A walk through one text.

    :param text: The text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        # The number of tables that each array of tables has so far.
        self._counts: dict[tuple[Key, ...], int] = {}

    def document(self) -> Iterator[tuple[tuple[Key, ...], int]]:
        """See `positions`."""
        table: tuple[Key, ...] = ()
        try:
            while True:
                self._skip(_LINES)
                if self._at == len(self._text):
                    return
                if self._take("["):
                    line = self._line
                    for table in self._header():
                        yield table, line
                else:
                    yield from self._assignment(table)
        except _EndError:
            return

    def _header(self) -> Iterator[tuple[Key, ...]]:
        """Read a table's header, and yield the tables that it opens."""
        is_array = self._take("[")
        parts = list(self._key())
        self._expect("]]" if is_array else "]")
        path: tuple[Key, ...] = ()
        for part in parts[:-1]:
            path = (*path, part)
            yield path
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
                yield path
        path = (*path, parts[-1])
        yield path
        if is_array:
            count = self._counts.get(path, 0)
            self._counts[path] = count + 1
            yield (*path, count)

    def _assignment(
        self, table: tuple[Key, ...]
    ) -> Iterator[tuple[tuple[Key, ...], int]]:
        """Read a key of a table and its value, whatever is nested in it."""
        # The arrays and inline tables that are open, innermost last, each
        # with its path and the index of its next element, if an array.
        opened: list[tuple[tuple[Key, ...], int | None]] = []
        line = self._line
        path = table
        for part in self._key():
            path = (*path, part)
            yield path, line
        self._expect("=")
        while True:
            self._skip(_BLANK)
            if self._take("["):
                opened.append((path, 0))
            elif self._take("{"):
                opened.append((path, None))
            elif not self._skip(_STRING) and not self._skip(_SCALAR):
                raise _EndError
            while opened:
                above, index = opened[-1]
                self._skip(_LINES)
                self._take(",")
                self._skip(_LINES)
                if not self._take("}" if index is None else "]"):
                    break
                opened.pop()
            else:
                return
            line = self._line
            if index is not None:
                path = (*above, index)
                opened[-1] = above, index + 1
                yield path, line
                continue
            path = above
            for part in self._key():
                path = (*path, part)
                yield path, line
            self._expect("=")

    def _key(self) -> Iterator[str]:
        """Read a key, and yield its parts between the dots."""
        while True:
            self._skip(_BLANK)
            start = self._at
            if self._skip(_BARE):
                yield self._text[start : self._at]
            elif self._skip(_STRING):
                yield _unquoted(self._text[start : self._at])
            else:
                raise _EndError
            self._skip(_BLANK)
            if not self._take("."):
                return

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Skip what a pattern matches, and return whether it does."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return False
        self._line += self._text.count("\n", self._at, found.end())
        self._at = found.end()
        return True

    def _take(self, text: str) -> bool:
        """Skip a text, and return whether it is there."""
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise _EndError


def _unquoted(text: str) -> str:
    """Return the value of a quoted key."""
    if text.startswith("'") or "\\" not in text:
        return text[1:-1]
    try:
        return str(tomllib.loads(f"x = {text}")["x"])
    except tomllib.TOMLDecodeError:
        raise _EndError from None
