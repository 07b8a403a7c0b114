# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger: what was changed on this host, noted before each change.

It is one file with a JSON document on each line. A line is on the disk before
the change that it describes is made, so that a host can be restored however
the one who changed it ended. Besides the changes, there are lines that say
that a preparation has begun or is complete, and that a change is undone.

The ledger belongs to one boot of the host: a restart undoes everything that
it could name.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfio_p2p.agent.failure import HOST, INPUT, AgentError
from vfio_p2p.agent.roots import Roots

FORMAT = 1

BEGIN = "begin"
COMPLETE = "complete"
UNDONE = "undone"


def nothing(point: str) -> None:
    """Do nothing at a point between the steps of a change."""


@dataclass(frozen=True)
class Note:
    """A line of the ledger.

    :param number: Its number; later lines have higher ones.
    :param pf: The address of the physical function that it is about.
    :param op: What is changed, or one of the words above.
    :param fields: What else the line says.
    """

    number: int
    pf: str
    op: str
    fields: Mapping[str, Any]


class Ledger:
    """The ledger of this host.

    :param roots: Where the kernel's folders are.
    :param at: Called with a name at each point between the steps of an
        append, so that a test can end the process there.
    """

    def __init__(
        self, roots: Roots, at: Callable[[str], None] = nothing
    ) -> None:
        self.folder = roots.run / "vfio-p2p"
        self.path = self.folder / "ledger.jsonl"
        self._boot_id_file = roots.proc / "sys/kernel/random/boot_id"
        self._at = at

    @property
    def boot_id(self) -> str:
        """What the kernel calls this boot."""
        return self._boot_id_file.read_text().strip()

    def append(self, pf: str, op: str, **fields: Any) -> int:
        """Write a line, and return its number when it is on the disk.

        :param pf: The address of the physical function.
        :param op: What will be changed.
        :param fields: What is needed to undo the change.
        :raise AgentError: When the line cannot be written. The ledger is as
            it was then.
        """
        self._at("noting")
        with self._locked() as folder:
            notes, whole_bytes = self._read()
            number = 1 + max((x.number for x in notes), default=0)
            document = {
                "format": FORMAT, "boot_id": self.boot_id,
                "n": number, "pf": pf, "op": op, **fields,
            }
            line = json.dumps(document).encode() + b"\n"
            try:
                self._write(line, whole_bytes)
                os.fsync(folder)
            except OSError as err:
                raise AgentError(
                    f"{self.path}: {err.strerror}",
                    "Nothing was changed without a note. Free some room in "
                    f"{self.folder.parent}.",
                ) from err
        self._at("noted")
        return number

    def _write(self, line: bytes, at_byte: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        try:
            # A torn line is cut off: the next one would not be a line.
            os.ftruncate(fd, at_byte)
            try:
                _write_all(fd, line, at_byte)
                self._at("written")
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, at_byte)
                raise
            self._at("synced")
        finally:
            os.close(fd)

    def pending(self, pf: str | None = None) -> list[Note]:
        """Return the lines that are not undone, the oldest first.

        :param pf: Only those of this physical function.
        :raise AgentError: When the ledger is damaged or too new.
        """
        notes, _ = self._read()
        undone = {x.fields["of"] for x in notes if x.op == UNDONE}
        return [
            x
            for x in notes
            if x.op != UNDONE
            and x.number not in undone
            and pf in (None, x.pf)
        ]

    def drop_foreign(self) -> bool:
        """Remove a ledger of another boot; tell whether there was one.

        :raise AgentError: When the ledger is damaged or too new.
        """
        if not self.path.exists():
            return False
        with self._locked() as folder:
            foreign = any(
                x.get("boot_id") != self.boot_id for x in self._lines()[0]
            )
            if foreign:
                self._remove(folder)
            return foreign

    def close(self) -> None:
        """Remove the ledger if everything in it is undone."""
        if not self.path.exists():
            return
        with self._locked() as folder:
            if not self.pending():
                self._remove(folder)

    def _remove(self, folder: int) -> None:
        self.path.unlink(missing_ok=True)
        os.fsync(folder)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Keep other processes from changing the ledger for a moment."""
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            _sync(self.folder.parent)
        fd = os.open(
            self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def _read(self) -> tuple[list[Note], int]:
        """Return the lines of this boot, and the length of all whole ones."""
        documents, whole_bytes = self._lines()
        boot_id = self.boot_id
        notes = []
        for fields in documents:
            if fields["boot_id"] == boot_id:
                rest = {
                    name: value
                    for name, value in fields.items()
                    if name not in ("format", "boot_id", "n", "pf", "op")
                }
                notes.append(
                    Note(fields["n"], fields["pf"], fields["op"], rest)
                )
        return notes, whole_bytes

    def _lines(self) -> tuple[list[dict[str, Any]], int]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0
        # A line without an end was torn, and what it announces not done.
        whole, _, _ = data.rpartition(b"\n")
        lines = whole.split(b"\n") if whole else []
        documents = []
        for number, line in enumerate(lines, 1):
            documents.append(self._document(line, number))
        return documents, len(whole) + bool(whole)

    def _document(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            document = json.loads(line)
            version = document["format"]
            if isinstance(version, int) and version > FORMAT:
                raise AgentError(
                    f"{self.path} was written by a newer vfio-p2p "
                    f"(format {version}, this one knows {FORMAT})",
                    "Use that version to restore the host. Nothing was "
                    "changed.",
                    INPUT,
                )
            if version != FORMAT or not _is_note(document):
                raise ValueError(version)
        except (ValueError, TypeError, KeyError) as err:
            raise AgentError(
                f"{self.path}:{number}: not a line of a ledger",
                "Nothing was changed. Restore the host by hand or restart "
                "it, then remove the file.",
                HOST,
            ) from err
        result: dict[str, Any] = document
        return result


def _is_note(document: dict[str, Any]) -> bool:
    return isinstance(document["n"], int) and all(
        isinstance(document[name], str) for name in ("boot_id", "pf", "op")
    )


def _write_all(fd: int, data: bytes, at_byte: int) -> None:
    while data:
        count = os.pwrite(fd, data, at_byte)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[count:]
        at_byte += count


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
