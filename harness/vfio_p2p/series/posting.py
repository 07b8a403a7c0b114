# SPDX-License-Identifier: GPL-2.0-or-later
"""Who posts the series and to whom, as its mails say it."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.headerregistry import AddressHeader
from email.utils import formataddr

from vfio_p2p.errors import PatchError, UsageError
from vfio_p2p.series.patch import Patch

# This top-level domain is reserved for addresses that nobody has (RFC 2606).
_NOBODY = re.compile(r"(?:@|\.)invalid$", re.IGNORECASE)
_ADDRESS = r"[^\s<>@,;:\"()\[\]\\]+@[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_PERSON = re.compile(rf"(?:(?P<name>[^<>]*?)\s*<)?(?P<address>{_ADDRESS})>?")
_FROM = re.compile(
    rb"^From: [^\n]*(?:\n[ \t][^\n]*)*", re.MULTILINE | re.IGNORECASE
)
_TRAILER = re.compile(r"[A-Z][\w-]*: \S")


@dataclass(frozen=True)
class Person:
    """The author, the poster or a recipient of a mail.

    :param name: The name; empty for a list that has only an address.
    :param address: The mail address.
    """

    name: str
    address: str

    @classmethod
    def parse(cls, text: str, *, named: bool) -> Person:
        """Read ``Name <address>``, or an address alone.

        :param text: The text.
        :param named: Whether the name must be there.
        :raise UsageError: When it is something else.
        """
        match = _PERSON.fullmatch(text.strip())
        name = (match["name"] or "").strip('" ') if match else ""
        if (
            not match
            or not text.isprintable()
            or ("<" in text) != text.strip().endswith(">")
            or (named and not name)
        ):
            form = "Name <mail@example.org>"
            more = "" if named else ", or the address alone"
            raise UsageError(
                f"{text!r} is not a mail address"
                + (" with a name" if named else ""),
                f"Write it as '{form}'{more}.",
            )
        return cls(name, match["address"])

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>" if self.name else self.address

    @property
    def header(self) -> str:
        """How it stands in a header: quoted or encoded if need be."""
        return formataddr((self.name, self.address))

    @property
    def nobody(self) -> bool:
        """Whether the address can be nobody's."""
        return bool(_NOBODY.search(self.address))


@dataclass(frozen=True)
class Posting:
    """How the series is posted.

    :param poster: Who posts it.  The poster signs each patch off, and is
                   the author of those whose author has an address under
                   ``.invalid``.  None leaves the patches as they are.
    :param to: The recipients.
    :param cover: Whether there is a cover letter in any case: one to be
                  filled in if the base has none.
    """

    poster: Person | None = None
    to: tuple[Person, ...] = ()
    cover: bool = False


def author_of(name: str, data: bytes) -> Person:
    """Return the author of a mail.

    :param name: What errors call the mail.
    :param data: The mail.
    :raise PatchError: When it has none.
    """
    head = data.partition(b"\n\n")[0].split(b"\n", data.startswith(b"From "))
    found = email.message_from_bytes(
        head[-1] + b"\n\n", policy=email.policy.default
    )["From"]
    if not isinstance(found, AddressHeader) or not found.addresses:
        raise PatchError(
            name, None, None, "the patch is not a mail: it has no author"
        )
    first = found.addresses[0]
    return Person(first.display_name, first.addr_spec)


def posted_patch(patch: Patch, poster: Person) -> bytes:
    """Return a patch as its poster sends it.

    :param patch: The patch, as a mail.
    :param poster: Who posts it.
    :raise PatchError: When it is not a mail, or its text is encoded.
    """
    author = author_of(patch.name, patch.data)
    header, blank, body = patch.data.partition(b"\n\n")
    encoding = re.search(
        rb"^Content-Transfer-Encoding: *(\S+)", header, re.MULTILINE | re.I
    )
    if encoding and encoding[1].lower() not in (b"7bit", b"8bit"):
        raise PatchError(
            patch.name, None, None, "its text is encoded",
            "Write it with 'git format-patch', which does not encode it.",
        )
    if author.nobody:
        header = from_header(header, poster)
    message, rule, diff = body.partition(b"\n---\n")
    lines = message.decode(errors="surrogateescape").rstrip().split("\n")
    dropped = {_signature(poster)}
    if author.nobody:
        dropped.add(_signature(author))
    lines = [x for x in lines if x not in dropped]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not _TRAILER.match(lines[-1]):
        lines.append("")
    lines.append(_signature(poster))
    text = "\n".join(lines).encode(errors="surrogateescape")
    return header + blank + text + rule + diff


def from_header(mail: bytes, poster: Person) -> bytes:
    """Return a mail that comes from its poster.

    :param mail: The mail, or its header.
    :param poster: The poster.
    """
    header, blank, body = mail.partition(b"\n\n")
    line = f"From: {poster.header}".encode()
    return _FROM.sub(lambda _: line, header, count=1) + blank + body


def shortlog(patches: Iterable[tuple[str, Patch]]) -> str:
    """Return the titles by author, as ``git shortlog`` has them.

    :param patches: The patches, each with the name of its author.
    """
    titles: dict[str, list[str]] = {}
    for author, patch in patches:
        titles.setdefault(author, []).append(patch.subject)
    return "\n\n".join(
        "\n".join(
            [
                f"{author} ({len(found)}):",
                *(f"  {x}" for x in found),
            ]
        )
        for author, found in sorted(titles.items())
    )


def _signature(person: Person) -> str:
    return f"Signed-off-by: {person}"
