# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a unified diff as ``git apply`` does, in linear time.

git says that a patch is corrupt, but seldom which hunk is to blame.  This
reader finds that out, and tells which files git is going to touch before git
is asked to.  It looks at the first character of a line only, keeps none of
the lines, and reads each of them once, so that a hostile patch costs no more
than any other patch of its size.

The format is that of git's ``Documentation/diff-format.adoc`` and of what
``apply.c`` accepts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vfio_p2p.errors import PatchError

NO_FILE = "/dev/null"

# Nine digits are enough for every file, and cheap to turn into a number.
_HUNK = re.compile(
    r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@"
)
_NAMES = re.compile(r'diff --git ("?a/[^\t]+) ("?b/[^\t]+)')
_MODE = re.compile(r"(?:new|new file|old) mode (\d+)")
_MORE = re.compile(
    r"(?:old mode|new mode|deleted file mode|new file mode|index"
    r"|similarity index|dissimilarity index|rename|copy|---|\+\+\+) "
)
_BINARY = re.compile(r"GIT binary patch|Binary files? ")
# The signature of a mail, its separators and the header of the next file
# start with "--", too.
_SURPLUS = re.compile(r"[ +]|-(?!-( ?$|- |-\s*$))")


@dataclass(frozen=True)
class Hunk:
    """One hunk.

    :param header: Its first line, without the function's name at the end.
    :param source_start: The line of the old file at which it begins.
    """

    header: str
    source_start: int


@dataclass(frozen=True)
class FileDiff:
    """The changes of one file.

    :param source: The old name as it stands, with its prefix ``a/``.
    :param target: The new name as it stands, with its prefix ``b/``.
    :param hunks: The hunks, in order.
    :param modes: The modes that it names, such as ``100644``.
    :param binary: Whether the change is binary.
    """

    source: str
    target: str
    hunks: tuple[Hunk, ...] = ()
    modes: tuple[str, ...] = ()
    binary: bool = False

    @property
    def path(self) -> str:
        """The path in the tree: the new one, if the file keeps existing."""
        if self.target == NO_FILE:
            return self.source.removeprefix("a/")
        return self.target.removeprefix("b/")


def read_diff(name: str, text: str) -> list[FileDiff]:
    """Read all changes of a patch; the text around them is skipped.

    :param name: The name of the patch, for errors.
    :param text: The patch.
    :raise PatchError: When a header is malformed, or when a hunk is shorter
                       or longer than its header says.
    """
    return _Reader(name, text.split("\n")).files()


class _Reader:
    """A patch, and the line that is read next."""

    def __init__(self, name: str, lines: Sequence[str]) -> None:
        self.name = name
        # What follows the last newline is no line.
        self.lines = lines if lines[-1] else lines[:-1]
        self.at = 0

    @property
    def line(self) -> str | None:
        """The next line; None at the end."""
        return self.lines[self.at] if self.at < len(self.lines) else None

    def files(self) -> list[FileDiff]:
        """Read the whole patch."""
        found: list[FileDiff] = []
        while (line := self.line) is not None:
            if names := _NAMES.match(line):
                found.append(self._git_file(names))
            elif self._at_plain_header():
                found.append(self._plain_file())
            elif hunk := _HUNK.match(line):
                path = found[-1].path if found else None
                raise PatchError(
                    self.name, path, hunk[0],
                    "the hunk follows no header of a file",
                )
            else:
                self.at += 1
        return found

    def _at_plain_header(self) -> bool:
        """Whether a header as ``diff -u`` writes it comes next.

        Like git, ask for its third line, too: "---" and "+++" may start a
        line of any text.
        """
        starts = ("--- ", "+++ ", "@@ -")
        lines = self.lines[self.at : self.at + 3]
        return len(lines) == 3 and all(map(str.startswith, lines, starts))

    def _plain_file(self) -> FileDiff:
        source, target = map(_file_name, self.lines[self.at : self.at + 2])
        self.at += 2
        path = FileDiff(source, target).path
        return FileDiff(source, target, self._hunks(path))

    def _git_file(self, names: re.Match[str]) -> FileDiff:
        first = names[0]
        source, target = _git_names(names)
        modes = []
        self.at += 1
        while (line := self.line) is not None and _MORE.match(line):
            self.at += 1
            wanted = None
            if line.startswith("new file mode "):
                source = NO_FILE
            elif line.startswith("deleted file mode "):
                target = NO_FILE
            elif line.startswith(("rename from ", "copy from ")):
                wanted, got = source, "a/" + line.partition("from ")[2]
            elif line.startswith(("rename to ", "copy to ")):
                wanted, got = target, "b/" + line.partition("to ")[2]
            elif line.startswith("--- "):
                wanted, got = source, _file_name(line)
            elif line.startswith("+++ "):
                wanted, got = target, _file_name(line)
            if wanted is not None and got != wanted:
                raise PatchError(
                    self.name, first, None,
                    f"{got} stands where {wanted} is expected",
                )
            if mode := _MODE.match(line):
                modes.append(mode[1])
        binary = line is not None and _BINARY.match(line) is not None
        path = FileDiff(source, target).path
        hunks = () if binary else self._hunks(path)
        return FileDiff(source, target, hunks, tuple(modes), binary)

    def _hunks(self, path: str) -> tuple[Hunk, ...]:
        found = []
        while (line := self.line) is not None and line.startswith("@@ -"):
            match = _HUNK.match(line)
            if match is None:
                raise PatchError(
                    self.name, path, line[:80],
                    "the header of the hunk is malformed",
                )
            self.at += 1
            self._body(path, match)
            found.append(Hunk(match[0], int(match[1])))
        return tuple(found)

    def _body(self, path: str, header: re.Match[str]) -> None:
        """Skip the lines of a hunk."""
        old, new = (
            1 if count is None else int(count)
            for count in (header[2], header[4])
        )
        while old > 0 or new > 0:
            line = self.line
            # Some mailers strip the blank of an empty line of context.
            kind = " " if line in ("", "\r") else (line or "")[:1]
            if kind not in {" ", "-", "+", "\\"}:
                raise self._wrong(path, header, "shorter")
            old -= kind in " -"
            new -= kind in " +"
            self.at += 1
        if old < 0 or new < 0:
            raise self._wrong(path, header, "longer")
        if (self.line or "").startswith("\\"):
            self.at += 1
        # git would take the surplus lines for the end of the mail and
        # ignore them.
        if _SURPLUS.match(self.line or ""):
            raise self._wrong(path, header, "longer")

    def _wrong(
        self, path: str, header: re.Match[str], how: str
    ) -> PatchError:
        return PatchError(
            self.name, path, header[0],
            f"the hunk is {how} than its header says",
        )


def _file_name(line: str) -> str:
    """Return the name in a line with ``---`` or ``+++``, without its time."""
    return line[4:].partition("\t")[0].rstrip("\r")


def _git_names(names: re.Match[str]) -> tuple[str, str]:
    """Return both names of ``diff --git a/NAME b/NAME``.

    A name may have blanks, and even a " b/" in it.  Unless the file is
    renamed, both are the same.
    """
    text = names[0].removeprefix("diff --git ").rstrip("\r")
    half = len(text) // 2
    if text[:half][2:] == text[half + 1 :][2:]:
        return text[:half], text[half + 1 :]
    return names[1], names[2].rstrip("\r")
