# SPDX-License-Identifier: GPL-2.0-or-later
"""Mails as people have them, with the second patch of the series or without.

`GOOD` has that patch, in all the ways in which mailers and lists wrap it.
`NOTHING` has mails without a patch that could be judged, and `BAD` has inputs
that are refused.
"""

from __future__ import annotations

import base64
import gzip
import re

from mails import (
    COMMIT,
    PATCHWORK,
    TITLE,
    body,
    diff,
    flowed,
    mail,
    ours,
    part,
    parts,
)
from vfio_p2p.series.titles import TITLES

PLAIN = mail(body())
LETTER = b"Hi,\n\nthis is the patch.\n\n"
OTHER = mail(b"Reviewed-by: C D <c@d.e>\n", f"Re: [PATCH v3 2/6] {TITLE}")
COVER = mail(b"Hi all,\n\n 2 files changed\n", "[PATCH v3 0/6] vfio: P2P")
FORMATTED = COMMIT + ours(2).data.partition(b"\n")[2]
Q_TITLE = TITLE.replace(" ", "_")
PATCH_KIND = "application/octet-stream; name=x.patch"

GOOD: dict[str, bytes] = {
    "as git writes it": ours(2).data,
    "a message of a maildir": b"Return-Path: <a@b.c>\nReceived: from x\n"
    b"\tby y with SMTP\n" + PLAIN,
    "an mbox": PATCHWORK + PLAIN,
    "an mbox with empty lines before": b"\n\n" + PATCHWORK + PLAIN,
    "a From line that is escaped": b">From a@b.c Wed Aug  2 2023\n" + PLAIN,
    "From in the text": PATCHWORK
    + mail(b"From now on, and\n>From here, it works.\n" + body()),
    "a line of an mbox in the text": PATCHWORK
    + mail(
        b"From a@b.c Wed Aug  2 08:14:48 2023\nis how it begins.\n" + body()
    ),
    "a line like one in the text": PATCHWORK
    + mail(b"From where it was\nNote: it moves.\n" + body()),
    "CR LF": PLAIN.replace(b"\n", b"\r\n"),
    "CR LF in an mbox": (PATCHWORK + PLAIN).replace(b"\n", b"\r\n"),
    "CR LF in base64": mail(
        body().replace(b"\n", b"\r\n"), Content_Transfer_Encoding="base64"
    ),
    "base64": mail(body(), Content_Transfer_Encoding="BASE64"),
    "base64 with a footer": mail(body(), Content_Transfer_Encoding="base64")
    + b"\n_______________\nA list: http://lists.example.org\n",
    "base64 in two pieces": mail(b"", Content_Transfer_Encoding="base64")
    + b"".join(map(base64.encodebytes, (body()[:1000], body()[1000:]))),
    "base64 in pieces on one line": mail(
        b"", Content_Transfer_Encoding="base64"
    )
    + b"".join(map(base64.b64encode, (body()[:1000], body()[1000:]))),
    "quoted-printable": mail(
        body(),
        Content_Type="text/plain; charset=utf-8",
        Content_Transfer_Encoding="quoted-printable",
    ),
    "8bit": mail(
        "Grüße von Zoë.\n".encode() + body(),
        Content_Type='text/plain; charset="utf-8"',
        Content_Transfer_Encoding="8bit",
    ),
    "an encoding that is unknown": mail(
        body(), Content_Transfer_Encoding="8-bits"
    ),
    "Latin-1": mail(
        b"Gr\xfc\xdfe\n" + body(), Content_Type="text/plain; charset=latin1"
    ),
    "a character set that is none": mail(
        b"Gr\xfc\xdfe\n" + body(), Content_Type="text/plain; charset=x-none"
    ),
    "UTF-16": mail(
        body().decode().encode("utf-16"),
        Content_Type="text/plain; charset=utf-16",
        Content_Transfer_Encoding="base64",
    ),
    "a file in UTF-16": ours(2).data.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + ours(2).data,
    "a folded subject": mail(body(), f"[PATCH v3\n 2/6] {TITLE[:24]}\n\t"
                             f"{TITLE[24:].strip()}"),
    "a subject folded in a word": mail(
        body(), f"[PATCH v3 2/6] {TITLE[:30]}\n {TITLE[30:]}"
    ),
    "an encoded subject": mail(
        body(), f"=?UTF-8?q?[PATCH_v3_2/6]_{Q_TITLE}?="
    ),
    "a subject in two words": mail(
        body(),
        f"=?utf-8?Q?=5BPATCH_v3_2/6=5D_{Q_TITLE[:20]}?=\n"
        f" =?utf-8?Q?{Q_TITLE[20:]}?=",
    ),
    "a subject in base64": mail(
        body(),
        "[PATCH v3 2/6] =?iso-8859-1?B?"
        "c3lzZW11OiBBZGQgcHJlcGFyZSBjYWxsYmFjayB0byBzdHJ1Y3Qg?=\n"
        " =?iso-8859-1?B?Vk1DaGFuZ2VTdGF0ZUVudHJ5?=",
    ),
    "a subject with a charset that is none": mail(
        body(), f"=?no-such?q?[PATCH_v3_2/6]_{Q_TITLE}?="
    ),
    "wrapped lines": mail(
        flowed(body()),
        Content_Type="text/plain; charset=UTF-8; format=flowed",
    ),
    "wrapped lines, blanks deleted": mail(
        flowed(body()).replace(b" \n", b"  \n"),
        Content_Type="text/plain; format=flowed; delsp=yes",
    ),
    "lines that are not wrapped": mail(
        body(), Content_Type="text/plain; format=flowed"
    ),
    "scissors": mail(
        LETTER + b"-- >8 --\n"
        b"From: C D <c@d.e>\nSubject: [PATCH v3 2/6] " + TITLE.encode()
        + b"\n\n" + body(),
        "Re: [PATCH 0/6] what about this?",
    ),
    "other scissors": mail(
        LETTER + b"8<------------ cut here\nSubject: " + TITLE.encode()
        + b"\n\n" + body(),
        "my patch",
    ),
    "headers in the text": mail(
        b"From: C D <c@d.e>\nSubject: [PATCH v3\n 2/6] " + TITLE.encode()
        + b"\nDate: Wed, 2 Aug 2023 11:14:48 +0300\n\n" + body(),
        "[PATCH] please apply",
    ),
    "another subject in the text": mail(
        b"It answers this mail:\n\nSubject: [PATCH] x: y\n\n" + body()
    ),
    "a patch in a letter": mail(LETTER + FORMATTED, "a patch"),
    "git format-patch --attach": parts(
        part(body()[: body().index(b"diff --git")]),
        part(
            diff(),
            "text/x-patch; name=0002-x.patch",
            Content_Disposition='attachment; filename="0002-x.patch"',
        ),
    ),
    "an attached file": parts(
        part(LETTER),
        part(FORMATTED, PATCH_KIND, Content_Transfer_Encoding="base64"),
    ),
    "an attached file without a name": parts(
        part(LETTER), part(FORMATTED, "application/octet-stream")
    ),
    "an attached file of another type": parts(
        part(LETTER), part(FORMATTED, "application/x-what; name=A.PATCH")
    ),
    "an attached mail": parts(
        part(LETTER),
        part(
            mail(body(), Content_Transfer_Encoding="base64"),
            "application/octet-stream; name=message.eml",
        ),
        subject="the patch",
    ),
    "a signed mail": parts(
        part(body(), Content_Transfer_Encoding="quoted-printable"),
        part(b"-----BEGIN PGP SIGNATURE-----", "application/pgp-signature"),
        kind="signed",
    ),
    "a mail that is HTML, too": parts(
        part(body()),
        part(b"<pre>diff --git a/x b/x</pre>", "text/html"),
        kind="alternative",
    ),
    "a forwarded mail": parts(
        part(b"See below.\n"), part(PLAIN, "message/rfc822"),
        subject="Fwd: what I got",
    ),
    "a picture": parts(part(body()), part(b"GIF89a", "image/gif")),
    "a part of a list": parts(part(body()), part(b"___\nA list\n")),
    "a boundary that never comes": mail(
        body(), Content_Type="multipart/mixed; boundary=abc"
    ),
    "a thread": PATCHWORK + COVER + PATCHWORK + PLAIN + PATCHWORK + OTHER,
    "a footer": PLAIN + b"_______________\nqemu-devel mailing list\n",
    "a footer without a signature": mail(diff() + b"---\nScanned by us\n"),
    "another footer": mail(diff() + b"--\nTo leave the list, ask.\n"),
    "blanks stripped": mail(re.sub(rb"(?m)^ $", b"", body())),
    "mutt's list of files": mail(b"Index: x\n" + body()),
}  # fmt: skip

# Each with the status of the answer, and what it says.
NOTHING: dict[str, tuple[bytes, str, str]] = {
    "a cover letter": (COVER, "warn", "the cover letter"),
    "one in base64": (
        mail(
            b"Hi all,\n",
            "=?utf-8?q?=5BPATCH_v3_00/13=5D_vfio?=",
            Content_Transfer_Encoding="base64",
        ),
        "warn",
        "the cover letter",
    ),
    "one with a diff": (
        mail(body(), f"[PATCH v3 0/6] {TITLE}"),
        "warn",
        "Its diff was not judged",
    ),
    "a reply to one": (
        mail(b"> Hi all,\nLooks good.\n", "Re: [PATCH v3 0/6] vfio: P2P"),
        "warn",
        "a reply to a cover letter",
    ),
    "a reply": (OTHER, "warn", "a reply without a patch"),
    "a reply that quotes": (
        mail(re.sub(rb"(?m)^", b"> ", body()), f"Re: [PATCH v3 2/6] {TITLE}"),
        "warn",
        "a reply without a patch",
    ),
    "HTML only": (
        mail(b"<pre>" + body(), Content_Type="text/html"),
        "fail",
        "no patch in this mail",
    ),
    "an encrypted mail": (
        parts(part(b"Version: 1", "application/pgp-encrypted")),
        "fail",
        "application/pgp-encrypted",
    ),
    "a mail that was cut": (
        mail(body()[: body().index(b"diff --git")]),
        "fail",
        "no patch in this mail",
    ),
    "another patch": (
        mail(diff(), "[PATCH] virtio: Mend it"), "warn", "not a patch of"
    ),
    "another mail": (mail(b"Hello\n", "Hello"), "warn", "not a patch of"),
    "no subject": (
        mail(b"Hello\n").replace(b"Subject", b"X-Subject"),
        "warn",
        "not a patch of",
    ),
}  # fmt: skip

# Each with what the error says.
FIRST = mail(body(1), f"[PATCH 1/6] {TITLES[0][0]}")
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "blanks": (b" \r\n\n\t", "is empty"),
    "two mails": (PATCHWORK + FIRST + PATCHWORK + PLAIN, "two patches"),
    "two files": (ours(1).data + ours(2).data, "two patches"),
    "a series": (
        b"".join(PATCHWORK + x for x in [COVER, FIRST, PLAIN, OTHER, PLAIN]),
        "three patches",
    ),
    "two attached files": (
        parts(
            part(LETTER), part(FORMATTED, PATCH_KIND),
            part(ours(1).data, PATCH_KIND),
        ),
        "two patches",
    ),
    "two in one mail": (mail(body(1) + FORMATTED), "two patches"),
    "two in one mail, by subject": (
        mail(body(1) + b"\n\nSubject: [PATCH 2/6] x: y\n\n" + body()),
        "two patches",
    ),
    "two in base64": (
        mail(body(1) + FORMATTED, Content_Transfer_Encoding="base64"),
        "two patches",
    ),
    "the output of diff": (diff(), "without a subject"),
    "a text": (b"Hello, world.\n", "neither a mail nor a patch"),
    "bytes": (bytes(range(256)), "neither a mail nor a patch"),
    "compressed": (gzip.compress(PLAIN), "Unpack it"),
    "nested parts": (
        mail(b"")[:-1] + b"".join(
            b"Content-Type: multipart/mixed; boundary=a%d\n\n--a%d\n" % (n, n)
            for n in range(11)
        ),
        "more than 10 parts",
    ),
    "nested mails": (
        mail(b"")[:-1] + b"Content-Type: message/rfc822\n\n" * 6 + PLAIN,
        "mails in mails",
    ),
    "a long field": (
        mail(body(), Content_Type="text/plain" + ";a=b" * 2000),
        "Content-Type is longer",
    ),
    "a long subject": (mail(body(), "x" * 5000), "Subject is longer"),
}  # fmt: skip
