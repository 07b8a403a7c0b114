# SPDX-License-Identifier: GPL-2.0-or-later
"""Undo what mail does to a text: encodings, character sets, wrapped lines.

Every function takes linear time, and none of them drops what it does not
understand: a text that is damaged must not look like a shorter one.
"""

from __future__ import annotations

import binascii
import codecs
import re
from email.errors import HeaderParseError
from email.header import decode_header

# Python also has codecs that take quadratic time, or are no character sets.
_CHARSETS = (
    "big5", "cp", "euc", "gb", "hz", "iso2022", "iso8859", "johab", "koi8",
    "mac", "ptcp", "shift", "tis", "utf",
)  # fmt: skip
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]*\s*")
_UTF8 = ("utf-8", "ascii")
_MAX_SUBJECT = 4096


def base64_decoded(data: bytes) -> bytes:
    """Decode base64, also if several pieces of it follow each other.

    Mailing lists append plain text to it; what is not base64 is kept.
    """
    lines = data.split(b"\n")
    end = 0
    while end < len(lines) and _BASE64.fullmatch(lines[end]):
        end += 1
    encoded = b"".join(map(bytes.strip, lines[:end]))
    rest = [b"", *lines[end:]] if end < len(lines) else []
    return b"".join(map(_of_base64, re.split(rb"=+", encoded))) + b"\n".join(
        rest
    )


def _of_base64(text: bytes) -> bytes:
    # One character too many means that the end is lost.
    text = text[: len(text) - (len(text) % 4 == 1)]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def quoted_printable_decoded(data: bytes) -> bytes:
    """Decode quoted-printable; what is malformed stays as it stands."""
    return re.sub(
        rb"=(?:([0-9A-Fa-f]{2})|[ \t]*\r?(?:\n|\Z))",
        lambda match: bytes.fromhex((match[1] or b"").decode()),
        data,
    )


def charset_converted(data: bytes, charset: str) -> bytes | None:
    """Convert a text to UTF-8.

    :return: None if it is UTF-8 already, or if the character set is unknown
             or wrong.
    """
    try:
        name = codecs.lookup(charset).name
        if name in _UTF8 or not name.startswith(_CHARSETS):
            return None
        return data.decode(name).encode()
    except (LookupError, ValueError):
        return None


def flowed_decoded(data: bytes, *, delete: bool) -> tuple[bytes, bytes]:
    """Undo ``format=flowed`` (RFC 3676).

    A mailer puts a blank before lines that begin with one, and a blank after
    lines that it wrapped.

    :param delete: Whether the blank after a line is not part of the text.
    :return: The text, and the text with its lines left wrapped, for mailers
             that did not wrap the lines of a patch.
    """
    lines = [
        line[1:] if line.startswith(b" ") else line
        for line in data.replace(b"\r\n", b"\n").split(b"\n")
    ]
    joined: list[bytes] = []
    for line in lines:
        # An empty line of context is a blank, and "-- " is the signature.
        soft = line.endswith(b" ") and line not in (b" ", b"-- ")
        joined.append(line[:-1] if soft and delete else line)
        if not soft:
            joined.append(b"\n")
    text = b"".join(joined)
    if joined and joined[-1] == b"\n":
        text = text[:-1]
    return text, b"\n".join(lines)


def words_decoded(text: str) -> str:
    """Decode the encoded words (RFC 2047) of a header; unfold it.

    What is malformed stays as it stands.
    """
    text = " ".join(text[:_MAX_SUBJECT].split())
    try:
        parts = decode_header(text)
    except (HeaderParseError, ValueError):
        return text
    decoded = "".join(
        part if isinstance(part, str) else _word(part, charset)
        for part, charset in parts
    )
    return " ".join(decoded.split())


def _word(data: bytes, charset: str | None) -> str:
    converted = charset_converted(data, charset or "utf-8")
    return (data if converted is None else converted).decode(errors="replace")
