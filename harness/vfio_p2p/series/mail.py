# SPDX-License-Identifier: GPL-2.0-or-later
"""Read mails with patches as ``git am`` does, and a bit more kindly.

The input is what people have: a mail as it arrived, a message of a maildir,
an mbox with several messages, or what ``git format-patch`` wrote.  Mails are
untrusted: what costs the library ``email`` more than linear time is limited
before the mail gets there.

git reads the bytes of a patch as they are, whatever character set the mail
names, and does not undo ``format=flowed``.  For mails whose sender meant that,
a mail has several readings, and that which applies is the right one.
"""

from __future__ import annotations

import email
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message

from vfio_p2p.errors import PatchError
from vfio_p2p.series.encoding import (
    base64_decoded,
    charset_converted,
    flowed_decoded,
    quoted_printable_decoded,
    words_decoded,
)

# A line of a header is at most 998 characters long.
MAX_HEADER_BYTES = 4096
# A mail with a patch has one level of parts, and two or three if it is signed
# or forwarded.  Each level makes the library look at each line once more.
MAX_CONTAINERS = 10
MAX_LEVELS = 4

_DIFF = re.compile(
    rb"^(?:diff --git (?:\"?a/|\"?\S+ )|--- \S[^\n]*\n\+\+\+ \S[^\n]*\n@@ -)"
    rb"[^\n]*",
    re.MULTILINE,
)
_FROM = re.compile(rb"^From [^\n]*\n", re.MULTILINE)
_START = re.compile(rb"\A(?:>?From [^\n]*\n|\r?\n)*")
_FROM_COMMIT = re.compile(rb"^>?From [0-9a-f]{40} [^\n]*\n", re.MULTILINE)
_SUBJECT = re.compile(rb"^Subject: [^\n]{0,80}\[[^\n]{0,80}PATCH", re.M)
_HEADER = re.compile(rb"[\x21-\x39\x3b-\x7e]+:")
_MAIL_HEADER = re.compile(
    rb"^(?:from|subject|date|message-id):", re.MULTILINE | re.IGNORECASE
)
_LIMITED = re.compile(
    rb"^(content-[\w-]+|mime-version|subject):[^\n]*(?:\n[ \t][^\n]*)*",
    re.MULTILINE | re.IGNORECASE,
)
_CONTAINER = re.compile(
    rb"^content-type:\s*(?:multipart|message)/", re.MULTILINE | re.IGNORECASE
)
_IN_BODY = re.compile(rb"(?:from|subject|date):", re.IGNORECASE)
_SCISSORS = re.compile(
    rb"^[ \t]*(?:-+[ \t]*(?:>8|8<|>%|%<)|(?:>8|8<|>%|%<)[ \t]*-)[^\n]*\n",
    re.MULTILINE,
)
_PREFIX = re.compile(
    r"(?:(?:re|aw|sv|fwd?|wg)(?:\[\d+\])?:|\[[^]]*\]|[\s:])*", re.IGNORECASE
)
_REPLY = re.compile(r"\s*(?:re|aw|sv)(?:\[\d+\])?:", re.IGNORECASE)
_POSITION = re.compile(r"(?<!\d)(\d{1,4})/(\d{1,4})(?!\d)")

_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5")
_NAMES_OF_PATCHES = (".patch", ".diff", ".txt", ".eml", ".mbox", ".mbx")


@dataclass(frozen=True)
class Subject:
    """The subject of a mail, decoded and on one line.

    :param text: The whole subject.
    """

    text: str

    @property
    def _start(self) -> str:
        match = _PREFIX.match(self.text)
        return match[0] if match else ""

    @property
    def prefix(self) -> str:
        """What stands in brackets before the title, e.g. ``[PATCH 1/6]``."""
        return " ".join(re.findall(r"\[[^]]*\]", self._start))

    @property
    def title(self) -> str:
        """The title of the patch; may be empty."""
        return self.text.removeprefix(self._start).strip()

    @property
    def reply(self) -> bool:
        """Whether the mail answers another one."""
        return _REPLY.match(self.text) is not None

    @property
    def position(self) -> tuple[int, int] | None:
        """Its number and the number of patches, if the prefix has them.

        The number of a cover letter is 0.
        """
        found = _POSITION.findall(self.prefix)
        return (int(found[-1][0]), int(found[-1][1])) if found else None


@dataclass(frozen=True)
class Mail:
    """One mail, or one patch of several in a mail.

    :param subject: Its subject; that in its body, if there is one, counts.
    :param texts: Its decoded text, in all readings, the likeliest first.
                  There is at least one.  If any has a diff, all have one.
    :param unread: What else is in the mail and was not read: the names or
                   types of its attachments.
    :param whole: Whether it has a header of its own.
    """

    subject: Subject
    texts: tuple[bytes, ...] = field(repr=False)
    unread: tuple[str, ...] = ()
    whole: bool = True

    @property
    def has_diff(self) -> bool:
        """Whether there is a patch in its text."""
        return has_diff(self.texts[0])


def has_diff(text: bytes) -> bool:
    """Whether a text has a diff that is not quoted."""
    return _DIFF.search(text) is not None


def read_mails(name: str, data: bytes) -> tuple[Mail, ...]:
    """Read all mails of a file.

    A file that is no mail, such as the output of ``diff -u``, is one mail
    without a subject.

    :param name: The name of the file, for errors.
    :param data: Its content.
    :return: At least one mail.
    :raise PatchError: When it is compressed, or a mail that is built to be
                       hard to read.
    """
    return tuple(_read_file(name, data, MAX_LEVELS))


def _read_file(name: str, data: bytes, levels: int) -> Iterator[Mail]:
    if levels == 0:
        raise _refused(name, "it has mails in mails in mails")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = charset_converted(data, "utf-16") or data
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.startswith(_COMPRESSED):
        raise PatchError(
            name, None, None, "it is compressed", "Unpack it first."
        )
    for message in _messages(data):
        yield from _read_message(name, message, levels)


def _messages(data: bytes) -> Iterator[bytes]:
    """Split an mbox; a file that begins otherwise is one message.

    What git takes for the start of a message is one only if a header
    follows.  Otherwise the line is part of the text.
    """
    if not data.lstrip().startswith(b"From "):
        yield data
        return
    starts = [
        match.start()
        for match in _FROM.finditer(data)
        if _is_dated(match[0]) and _HEADER.match(data, match.end())
    ]
    if not starts or data[: starts[0]].strip():
        starts.insert(0, 0)
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        yield data[start:end]


def _is_dated(line: bytes) -> bool:
    """Whether a line has a time and, after it, a year, as git asks for."""
    time = re.search(rb"\d:\d\d", line)
    return (
        time is not None
        and re.search(rb"(?:19|20)\d\d", line[time.end() :]) is not None
    )


def _read_message(name: str, data: bytes, levels: int) -> Iterator[Mail]:
    data = _START.sub(b"", data, count=1)
    if not _is_mail(data):
        yield from _text_mails(
            Subject(""), _readings([(data, "", "")]), (), False
        )
        return
    if len(_CONTAINER.findall(data)) > MAX_CONTAINERS:
        raise _refused(name, f"it has more than {MAX_CONTAINERS} parts")
    for field_ in _LIMITED.finditer(data):
        if len(field_[0]) > MAX_HEADER_BYTES:
            what = field_[1].decode()
            raise _refused(
                name, f"{what} is longer than {MAX_HEADER_BYTES} bytes"
            )
    # In Latin-1, every byte is one character, and the library changes none.
    message = email.message_from_string(data.decode("latin-1"))
    yield from _parsed_mails(name, message, levels)


def _refused(name: str, why: str) -> PatchError:
    return PatchError(
        name, None, None, why,
        "Give the patch as 'git format-patch' writes it.",
    )


def _is_mail(data: bytes) -> bool:
    """Whether a text begins with the header of a mail."""
    header = re.split(rb"\n\r?\n", data, maxsplit=1)[0]
    return (
        _HEADER.match(header) is not None
        and _MAIL_HEADER.search(header) is not None
    )


def _parsed_mails(
    name: str, message: Message, levels: int
) -> Iterator[Mail]:
    """Yield a message, if it has a text of its own, and all mails in it."""
    texts: list[tuple[bytes, str, str]] = []
    unread: list[str] = []
    inner: list[Mail] = []
    for part in _leaves(message):
        payload = part.get_payload()
        if isinstance(payload, list):
            if levels == 1:
                raise _refused(name, "it has mails in mails in mails")
            for forwarded in payload:
                if isinstance(forwarded, Message):
                    inner += _parsed_mails(name, forwarded, levels - 1)
            continue
        data = _decoded(part)
        if not _is_text(part, data):
            unread.append(_label(part))
        elif part is not message and _is_mail(_START.sub(b"", data, count=1)):
            inner += _read_file(name, data, levels - 1)
        elif data.strip():
            flowed = _parameter(part, "format")
            more = f"{flowed} {_parameter(part, 'delsp')}".lower()
            texts.append((data, _parameter(part, "charset"), more))
    if texts or inner:
        # The same text once more.
        unread = [x for x in unread if x != "text/html"]
    line = str(message.get("Subject", "")).encode("latin-1")
    yield from _text_mails(
        Subject(words_decoded(_text(line))),
        _readings(texts),
        tuple(x for x in unread if x),
        True,
    )
    yield from inner


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that have no parts; a forwarded mail is one of them."""
    if message.get_content_maintype() == "multipart":
        payload = message.get_payload()
        if isinstance(payload, list):
            for part in payload:
                if isinstance(part, Message):
                    yield from _leaves(part)
            return
    yield message


def _decoded(part: Message) -> bytes:
    """Return what a part has after its transfer encoding is undone."""
    payload = part.get_payload()
    if not isinstance(payload, str):
        return b""
    data = payload.encode("latin-1")
    encoding = str(part.get("Content-Transfer-Encoding", "")).lower()
    match encoding.partition(";")[0].strip():
        case "base64":
            return base64_decoded(data)
        case "quoted-printable":
            return quoted_printable_decoded(data)
    # Like git, take what is unknown as it stands.
    return data


def _is_text(part: Message, data: bytes) -> bool:
    kind = part.get_content_type()
    if kind == "text/html":
        return False
    name = _parameter(part, "name", "Content-Type") or _parameter(
        part, "filename", "Content-Disposition"
    )
    return (
        part.get_content_maintype() in ("text", "multipart", "message")
        or kind in ("application/x-patch", "application/mbox")
        or name.lower().endswith(_NAMES_OF_PATCHES)
        or (kind == "application/octet-stream" and has_diff(data))
    )


def _label(part: Message) -> str:
    """Return the name of a part that is no text; empty if it may be ignored.

    A signature or a picture cannot be a patch.
    """
    kind = part.get_content_type()
    if kind.endswith("-signature") or kind.startswith("image/"):
        return ""
    name = _parameter(part, "filename", "Content-Disposition")
    return name or _parameter(part, "name", "Content-Type") or kind


def _parameter(
    part: Message, name: str, header: str = "Content-Type"
) -> str:
    """Return a parameter of a header; empty if there is none."""
    value = part.get_param(name, "", header)
    # RFC 2231 has a character set, a language and the text.
    return str(value[2] if isinstance(value, tuple) else value or "")


def _readings(
    parts: list[tuple[bytes, str, str]],
) -> tuple[bytes, ...]:
    """Return all that the texts of a mail can stand for, one after another.

    :param parts: Each text with its character set and its parameters of
                  ``format=flowed``.
    """
    columns = [_readings_of(*part) for part in parts]
    most = max(map(len, columns), default=0)
    rows = [
        b"\n".join(x[min(n, len(x) - 1)] for x in columns)
        for n in range(most)
    ]
    good = [x for x in rows if has_diff(x)] or rows or [b""]
    return tuple(dict.fromkeys(good))


def _readings_of(data: bytes, charset: str, more: str) -> list[bytes]:
    texts = [data]
    converted = charset_converted(data, charset)
    if converted is not None and converted != data:
        texts.append(converted)
    if more.startswith("flowed"):
        texts = [
            reading
            for text in texts
            for reading in (
                *flowed_decoded(text, delete=more.endswith("yes")),
                text,
            )
        ]
    return [_without_cr(text) for text in texts]


def _without_cr(text: bytes) -> bytes:
    """Undo CR LF, unless only the files that are patched have it."""
    first = _DIFF.search(text)
    if first is None or first[0].partition(b"\n")[0].endswith(b"\r"):
        return text.replace(b"\r\n", b"\n")
    return text


def _text_mails(
    subject: Subject,
    texts: tuple[bytes, ...],
    unread: tuple[str, ...],
    whole: bool,
) -> Iterator[Mail]:
    """Yield the mail with a text, and those that are pasted into the text."""
    rows = [list(_segments(text)) for text in texts]
    rows = [x for x in rows if len(x) == len(rows[0])]
    for number, column in enumerate(zip(*rows, strict=True)):
        if number == 0:
            own = _subject_in_body(column[0]) or subject
            yield Mail(own, tuple(column), unread, whole)
            continue
        line = _header_block(_without_marker(column[0])).get(b"subject", b"")
        yield Mail(Subject(words_decoded(_text(line))), tuple(column))


def _segments(text: bytes) -> Iterator[bytes]:
    """Split a text before each patch that is pasted into it.

    Such a patch begins as ``git format-patch`` writes it, or, after another
    patch, with a subject.  No line of a hunk begins like that.
    """
    diffs = [x.start() for x in _DIFF.finditer(text)]
    bounds = [0]
    for match in sorted(
        (*_FROM_COMMIT.finditer(text), *_SUBJECT.finditer(text)),
        key=re.Match.start,
    ):
        here = match.start()
        if match.re is _FROM_COMMIT or (
            bisect_left(diffs, bounds[-1]) < bisect_left(diffs, here)
        ):
            bounds.append(here)
    for start, end in zip(bounds, [*bounds[1:], len(text)], strict=True):
        yield text[start:end]


def _without_marker(text: bytes) -> bytes:
    match = _FROM_COMMIT.match(text)
    return text[match.end() :] if match else text


def _subject_in_body(text: bytes) -> Subject | None:
    """Return the subject with which the text of a mail begins, if any.

    git takes it for that of the patch: a mail is not always sent by those
    who wrote the patch.  What comes before scissors is a letter.
    """
    first = _DIFF.search(text)
    end = first.start() if first else len(text)
    start = 0
    for match in _SCISSORS.finditer(text, 0, end):
        start = match.end()
    text = text[start:].lstrip()
    if not _IN_BODY.match(text):
        return None
    line = _header_block(text).get(b"subject")
    return None if line is None else Subject(words_decoded(_text(line)))


def _header_block(text: bytes) -> dict[bytes, bytes]:
    """Return the first fields of a text by name, each on one line."""
    fields: dict[bytes, bytes] = {}
    name = b""
    for line in text[:MAX_HEADER_BYTES].split(b"\n"):
        if line[:1] in (b" ", b"\t") and line.strip() and name:
            fields[name] += b" " + line.strip()
        elif match := _HEADER.match(line):
            name = match[0][:-1].lower()
            fields[name] = line[match.end() :].strip()
        else:
            break
    return fields


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
