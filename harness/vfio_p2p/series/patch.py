# SPDX-License-Identifier: GPL-2.0-or-later
"""One patch file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vfio_p2p.errors import PatchError
from vfio_p2p.foreign import read_file
from vfio_p2p.series.mail import Mail, Subject, has_diff, read_mails

# Patches are untrusted, so their size is limited; the whole series has 40 KiB.
MAX_PATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Patch:
    """A patch as ``git format-patch`` or ``diff -u`` writes it, or a mail.

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
            data = read_file(path, MAX_PATCH_BYTES)
        except OSError as error:
            raise PatchError(
                str(path), None, None, error.strerror or str(error)
            ) from error
        return cls(path.name, data)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def mails(self) -> tuple[Mail, ...]:
        """The mails of the file; see `read_mails`.

        :raise PatchError: When there is a mail that cannot be read.
        """
        return read_mails(self.name, self.data)

    @cached_property
    def readings(self) -> tuple[bytes, ...]:
        """The texts that it can stand for, the likeliest first.

        There is more than one if a mail says that its text has another
        character set than UTF-8, or wraps its lines; see `Mail.texts`.  If
        the file has several mails with a patch, a text has all of them.

        :raise PatchError: When there is a mail that cannot be read.
        """
        mails = [x.texts for x in self.mails if has_diff(x.texts[0])]
        most = max(map(len, mails), default=0)
        return tuple(
            b"\n".join(x[min(n, len(x) - 1)] for x in mails)
            for n in range(most)
        )

    @cached_property
    def _subject(self) -> Subject:
        """The subject of the mail that has the patch, or of the first."""
        for mail in self.mails:
            if has_diff(mail.texts[0]):
                return mail.subject
        return self.mails[0].subject

    @property
    def prefix(self) -> str:
        """The prefix of its subject, e.g. ``[PATCH 1/6]``; may be empty."""
        return self._subject.prefix

    @property
    def subject(self) -> str:
        """The subject of its mail, without the prefix; may be empty."""
        return self._subject.title

    @property
    def position(self) -> tuple[int, int] | None:
        """Its number and the number of patches, if the prefix has them."""
        return self._subject.position
