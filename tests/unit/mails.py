# SPDX-License-Identifier: GPL-2.0-or-later
"""Make mails of the series' patches, and trees that those apply to."""

from __future__ import annotations

import base64
import quopri
import re
import textwrap
from dataclasses import dataclass, field

from vfio_p2p.series import Patch, find_base

BASE = "v10.0"
TITLE = "sysemu: Add prepare callback to struct VMChangeStateEntry"
COMMIT = b"From " + b"1" * 40 + b" Mon Sep 17 00:00:00 2001\n"
PATCHWORK = b"From patchwork Wed Aug  2 08:14:48 2023\n"


def ours(number: int) -> Patch:
    """Return the project's patch of that number."""
    return find_base(BASE).patches[number - 1]


def body(number: int = 2) -> bytes:
    """Return the text of the mail of our patch."""
    return ours(number).data.partition(b"\n\n")[2]


def diff(number: int = 2) -> bytes:
    """Return the diff of our patch, without the text before it."""
    text = body(number)
    return text[text.index(b"diff --git") :]


def mail(
    text: bytes, subject: str = f"[PATCH v3 2/6] {TITLE}", **headers: str
) -> bytes:
    """Return a mail; an underscore in a header's name is a hyphen.

    :param text: Its body, which is encoded as the headers say.
    """
    fields = {"From": "A B <a@b.c>", "Subject": subject, "Message-ID": "<1@b>"}
    fields |= {name.replace("_", "-"): x for name, x in headers.items()}
    encoding = fields.get("Content-Transfer-Encoding", "").lower()
    if encoding == "base64":
        text = base64.encodebytes(text)
    elif encoding == "quoted-printable":
        text = quopri.encodestring(text)
    header = "".join(f"{name}: {x}\n" for name, x in fields.items())
    return header.encode() + b"\n" + text


def parts(
    *bodies: bytes,
    kind: str = "mixed",
    subject: str = f"[PATCH v3 2/6] {TITLE}",
) -> bytes:
    """Return a mail of several parts, each with a header of its own."""
    inner = b"".join(b"--=-x\n" + x + b"\n" for x in bodies)
    return mail(
        b"A mail of several parts.\n" + inner + b"--=-x--\n",
        subject,
        Content_Type=f'multipart/{kind};\n\tboundary="=-x"',
        MIME_Version="1.0",
    )


def part(text: bytes, kind: str = "text/plain", **headers: str) -> bytes:
    """Return one part for `parts`."""
    whole = mail(text, Content_Type=kind, **headers)
    return re.sub(rb"\A(?:(?!content-)[^\n]*\n)*?(?=Content-)", b"", whole)


def flowed(text: bytes, wrap: int = 60) -> bytes:
    """Return a text as a mailer sends it with ``format=flowed``."""
    lines = []
    for line in text.decode().split("\n"):
        stuffed = f" {line.rstrip(' ')}" if line[:1] == " " else line
        if line in ("-- ", "") or line.startswith(("diff", "@@")):
            stuffed = line
        pieces = textwrap.wrap(
            stuffed, wrap, drop_whitespace=False, break_long_words=False,
            break_on_hyphens=False, expand_tabs=False,
            replace_whitespace=False,
        )  # fmt: skip
        lines += pieces if all(x[-1:] == " " for x in pieces[:-1]) else [line]
        lines += [] if pieces else [""]
    return "\n".join(lines).encode()


@dataclass
class PreImage:
    """A tree with only what a patch needs to find in it.

    :param patch: The patch that applies to it.
    """

    patch: Patch
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path, at = "", 0
        lines: dict[str, dict[int, str]] = {}
        text = self.patch.data.decode()
        for line in text[text.index("diff --git") :].split("\n"):
            if line.startswith("--- a/"):
                path, at = line[6:], 0
            elif match := re.match(r"@@ -(\d+)", line):
                at = int(match[1])
            elif at and line[:1] in (" ", "-") and line != "-- ":
                lines.setdefault(path, {})[at] = line[1:]
                at += 1
        for path, here in lines.items():
            numbers = range(1, max(here) + 9)
            self.files[path] = "".join(
                f"{here.get(n, f'line {n}')}\n" for n in numbers
            ).encode()

    def kind_of(self, path: str) -> str | None:
        """Return the kind of a file."""
        return "f" if path in self.files else None

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return self.files[path]
