# SPDX-License-Identifier: GPL-2.0-or-later
"""One patch file."""

from __future__ import annotations

import email.parser
import email.policy
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from harness.errors import PatchError

# The whole series is 40 KiB. Patches are untrusted, so they are capped.
MAX_PATCH_BYTES = 4 << 20

_PREFIX = re.compile(r"\[[^]]*PATCH[^]]*\]")


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

    @cached_property
    def _subject(self) -> str:
        mail = email.message_from_bytes(
            self.data, policy=email.policy.default
        )
        return str(mail["Subject"] or "")

    @property
    def prefix(self) -> str:
        """What stands before the subject, ``[PATCH 1/6]``; or nothing."""
        match = _PREFIX.match(self._subject)
        return match[0] if match else ""

    @property
    def subject(self) -> str:
        """Its subject as git keeps it; the file's name if it has none."""
        text = self._subject.removeprefix(self.prefix).strip()
        return text or self.name

    @property
    def position(self) -> tuple[int, int] | None:
        """The patch's number and how many there are, if it says so."""
        match = re.search(r"(\d+)/(\d+)\]$", self.prefix)
        return (int(match[1]), int(match[2])) if match else None
