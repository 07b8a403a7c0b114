# SPDX-License-Identifier: GPL-2.0-or-later
"""One patch file."""

from __future__ import annotations

import email.parser
import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vfio_p2p.errors import PatchError

# The whole series is 40 KiB. Patches are untrusted, so they are capped.
MAX_PATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Patch:
    """A patch as ``git format-patch`` or ``diff -u`` writes it.

    :param name: What messages call it.
    :param data: The file as it is.
    """

    name: str
    data: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Patch:
        """Read a patch file.

        :raise PatchError: When it cannot be read, or is no patch by its
                           size.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_PATCH_BYTES + 1)
        except OSError as error:
            raise PatchError(
                str(path), None, None, error.strerror or str(error)
            ) from error
        if len(data) > MAX_PATCH_BYTES:
            raise PatchError(
                str(path), None, None,
                f"larger than {MAX_PATCH_BYTES >> 20} MiB",
            )
        return cls(path.name, data)

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def _subject(self) -> str:
        mail = email.parser.BytesHeaderParser().parsebytes(self.data)
        return " ".join(str(mail["Subject"] or "").split())

    @property
    def prefix(self) -> str:
        """What stands before its subject: ``[PATCH n/m]``, or nothing."""
        match = re.match(r"(\[[^]]*\]\s*)*", self._subject)
        return match[0].strip() if match else ""

    @property
    def subject(self) -> str:
        """Subject of its mail, without the prefix; may be empty."""
        return self._subject.removeprefix(self.prefix).strip()

    @property
    def position(self) -> tuple[int, int] | None:
        """Its number and how many there are, if the prefix says so."""
        match = re.search(r"(\d+)/(\d+)\]$", self.prefix)
        return (int(match[1]), int(match[2])) if match else None
