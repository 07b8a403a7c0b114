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

# Patches are untrusted, so their size is limited; the whole series has 40 KiB.
MAX_PATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Patch:
    """A patch as ``git format-patch`` or ``diff -u`` writes it.

    :param name: The name that messages use.
    :param data: The content of the file.
    """

    name: str
    data: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Patch:
        """Read a patch file.

        :raise PatchError: When the file cannot be read, or is larger than
                           `MAX_PATCH_BYTES`.
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
                f"the file is larger than {MAX_PATCH_BYTES >> 20} MiB",
            )
        return cls(path.name, data)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def _subject(self) -> str:
        mail = email.parser.BytesHeaderParser().parsebytes(self.data)
        return " ".join(str(mail["Subject"] or "").split())

    @property
    def prefix(self) -> str:
        """The prefix of its subject, e.g. ``[PATCH 1/6]``; may be empty."""
        match = re.match(r"(\[[^]]*\]\s*)*", self._subject)
        return match[0].strip() if match else ""

    @property
    def subject(self) -> str:
        """The subject of its mail, without the prefix; may be empty."""
        return self._subject.removeprefix(self.prefix).strip()

    @property
    def position(self) -> tuple[int, int] | None:
        """Its number and the number of patches, if the prefix has them."""
        match = re.search(r"(\d+)/(\d+)\]$", self.prefix)
        return (int(match[1]), int(match[2])) if match else None
