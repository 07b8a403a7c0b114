# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the series as a thread of mails that are ready to send.

``git format-patch --thread`` cannot do this.  It formats commits, so it needs
the source that the series applies to, and it computes every diff anew.  The
ids of its mails contain the time of the call, which no option or variable
changes, so two exports of one series would be two threads.  Here the patch
files stay as they are, and the ids are computed from their contents.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from email.header import Header
from pathlib import Path

from vfio_p2p.errors import PatchError, UsageError
from vfio_p2p.machine.files import publishing
from vfio_p2p.series.base import Base
from vfio_p2p.series.git import MAIL_START
from vfio_p2p.series.patch import Patch
from vfio_p2p.series.posting import (
    Person,
    Posting,
    author_of,
    from_header,
    posted_patch,
    shortlog,
)

COVER = "0000-cover-letter.patch"
COVER_TEXT = "0000-cover-letter.txt"
MBOX = "series.mbox"

# A line of a cover letter that stands for the titles by author.
SHORTLOG = "*** SHORTLOG HERE ***"
# `git send-email` refuses a letter in which these two are left.
_EMPTY = f"*** SUBJECT HERE ***\n\n*** BLURB HERE ***\n\n{SHORTLOG}\n"
# Longer lines are folded in a header.
_HEADER_WIDTH = 78


def thread(base: Base, posting: Posting | None = None) -> dict[str, bytes]:
    """Return the mails of a series by file name, the cover letter first.

    Every mail but the first is a reply to the first.  The ids are computed
    from the contents of all mails: the same series is the same thread.

    The cover letter is the file ``0000-cover-letter.txt`` of the base, if
    it exists.  That is a mail, or a text whose first line is the subject.
    Its line `SHORTLOG` is replaced by the titles of the patches.

    :param base: The base that has the series.
    :param posting: How it is posted; by default the mails are as the files.
    :raise PatchError: When a patch is not a mail, or the cover letter is
                       not UTF-8.
    :raise UsageError: When the base has no series.
    """
    if not base.folder:
        raise UsageError(
            f"base {base.name} has no series of this project",
            "'vfio-p2p series list' prints the bases and their patches.",
        )
    posting = posting or Posting()
    for patch in base.patches:
        _split(patch.name, patch.data)
    mails = [(x.name, _patch(x, posting.poster)) for x in base.patches]
    cover = base.folder / COVER_TEXT
    if posting.cover or cover.is_file():
        text = cover.read_bytes() if cover.is_file() else _EMPTY.encode()
        letter = _cover(text, base.patches)
        if posting.poster:
            letter = from_header(letter, posting.poster)
        mails.insert(0, (COVER, _with_shortlog(letter, mails)))
    if posting.to:
        to = {"To": _folded("To", posting.to)}
        mails = [(x, _add_headers(x, data, to)) for x, data in mails]
    digest = hashlib.sha256(b"\0".join(data for _, data in mails))
    root = ""
    result = {}
    for name, data in mails:
        domain = re.search(rb"@([\w.-]+)>?$", _header(data, "From"))
        identity = (
            f"<{digest.hexdigest()[:24]}.{name[:4]}"
            f"@{domain[1].decode() if domain else 'vfio-p2p.invalid'}>"
        )
        headers = {"Message-Id": identity}
        if root:
            headers |= {"In-Reply-To": root, "References": root}
        root = root or identity
        if not data.isascii() and not _header(data, "Content-Type"):
            headers |= {
                "MIME-Version": "1.0",
                "Content-Type": "text/plain; charset=UTF-8",
                "Content-Transfer-Encoding": "8bit",
            }
        result[name] = _add_headers(name, data, headers)
    return result


def export(
    base: Base, folder: Path, posting: Posting | None = None
) -> list[Path]:
    """Write the mails of a series, one file each, and all in one mbox.

    :param base: The base that has the series.  The patches that are applied
                 before the series are not written.
    :param folder: A folder that is empty or does not exist yet.
    :param posting: How it is posted; by default the mails are as the files.
    :return: The files.
    :raise PatchError: When a patch is not a mail, or cannot be signed off.
    :raise UsageError: When the base has no series, or the folder is not
                       empty.
    """
    mails = thread(base, posting)
    why = ""
    if folder.is_dir() and folder.samefile(Path.cwd()):
        # It is going to be replaced, and we would be left in a lost one.
        why = "is the current folder"
    elif folder.exists() and not (
        folder.is_dir() and next(folder.iterdir(), None) is None
    ):
        why = "exists and is not an empty folder"
    if why:
        raise UsageError(f"{folder} {why}", "Give the name of a new folder.")
    # A blank line separates the mails of an mbox.
    mails |= {MBOX: b"\n".join(mails.values())}
    with publishing(folder.absolute()) as partial:
        for name, data in mails.items():
            (partial / name).write_bytes(data)
    return [folder / name for name in mails]


def _patch(patch: Patch, poster: Person | None) -> bytes:
    return posted_patch(patch, poster) if poster else patch.data


def _with_shortlog(letter: bytes, mails: list[tuple[str, bytes]]) -> bytes:
    """Return a cover letter with the titles of the mails."""
    line = f"\n{SHORTLOG}\n".encode()
    if line not in letter:
        return letter
    titles = shortlog(
        (author_of(name, data).name, Patch(name, data)) for name, data in mails
    )
    return letter.replace(line, f"\n{titles}\n".encode())


def _folded(name: str, people: Sequence[Person]) -> str:
    """Return a header's value, with as many people on a line as fit."""
    lines = [""]
    width = _HEADER_WIDTH - len(f"{name}: ")
    for number, person in enumerate(people, 1):
        text = f"{person.header}{',' if number < len(people) else ''}"
        if lines[-1] and len(f"{lines[-1]} {text}") > width:
            lines.append("")
            width = _HEADER_WIDTH
        lines[-1] = f"{lines[-1]} {text}".lstrip()
    return "\n ".join(lines)


def _cover(text: bytes, patches: tuple[Patch, ...]) -> bytes:
    """Return the cover letter as a mail like those of the patches."""
    if re.match(rb"(From |[\w-]+: )", text) and _header(text, "Subject"):
        start = b"" if text.startswith(b"From ") else MAIL_START
        return start + text
    try:
        subject, _, body = text.decode().partition("\n")
    except UnicodeDecodeError as error:
        raise PatchError(
            COVER_TEXT, None, None, f"it is not UTF-8: {error.reason}",
            "Convert the cover letter to UTF-8.",
        ) from error
    first = patches[0]
    if not re.match(r"\[[^]]*PATCH", subject):
        # The letter of "[PATCH v2 1/6]" begins with "[PATCH v2 0/6]".
        words = first.prefix.strip("[]").partition(" 1/")[0] or "PATCH"
        subject = f"[{words} 0/{len(patches)}] {subject}"
    header = Header(subject, header_name="Subject").encode()
    return b"".join(
        (
            MAIL_START,
            b"From: " + _header(first.data, "From") + b"\n",
            b"Date: " + _header(first.data, "Date") + b"\n",
            f"Subject: {header}\n\n".encode(),
            f"{body.strip()}\n".encode(),
        )
    )


def _split(name: str, data: bytes) -> tuple[bytes, bytes]:
    """Return a mail's header, and the rest from the blank line on."""
    header, blank, body = data.partition(b"\n\n")
    if not blank or not re.search(rb"^Subject: ", header, re.MULTILINE):
        raise PatchError(
            name, None, None, "the patch is not a mail: it has no subject"
        )
    return header + b"\n", b"\n" + body


def _header(data: bytes, name: str) -> bytes:
    """Return a header's value as it stands; empty if it is missing."""
    match = re.search(
        rb"^" + name.encode() + rb": (.*(?:\n[ \t].*)*)",
        data.partition(b"\n\n")[0],
        re.MULTILINE | re.IGNORECASE,
    )
    return match[1] if match else b""


def _add_headers(
    name: str, data: bytes, headers: Mapping[str, str]
) -> bytes:
    """Append headers to those of a mail."""
    header, rest = _split(name, data)
    added = "".join(f"{x}: {y}\n" for x, y in headers.items())
    return header + added.encode() + rest
