# SPDX-License-Identifier: GPL-2.0-or-later
"""Mails with patches, decoded; see test_b4_mails.py for whole mails."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mails import COMMIT, TITLE, PreImage, body, diff, mail, ours
from vfio_p2p import resources
from vfio_p2p.series import Patch, apply_patches
from vfio_p2p.series.encoding import (
    base64_decoded,
    charset_converted,
    flowed_decoded,
    quoted_printable_decoded,
    words_decoded,
)
from vfio_p2p.series.mail import Subject, read_mails
from vfio_p2p.series.titles import number_of

HEAD = "diff --git a/x b/x\n--- a/x\n+++ b/x\n"


class One:
    """A tree with one file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def kind_of(self, path: str) -> str | None:
        return "f" if path == "x" else None

    def read(self, path: str) -> bytes:
        return self.content


@pytest.mark.parametrize(
    "path", sorted(resources.patches().rglob("*.patch")), ids=lambda x: x.stem
)
def test_our_patches_are_read_as_they_are(path: Path) -> None:
    patch = Patch.load(path)
    (text,) = patch.readings
    assert patch.data.endswith(text)
    assert patch.subject.isascii()
    assert (patch.position is None) == ("/" not in patch.prefix)


@pytest.mark.parametrize(
    "content", ["Zoë\n1\n".encode(), "Zoë\n1\n".encode("latin-1")]
)
def test_the_reading_that_applies_counts(content: bytes) -> None:
    """Whether the sender converted the file, or only says so."""
    text = f"{HEAD}@@ -1,2 +1,2 @@\n Zoë\n-1\n+2\n".encode("latin-1")
    data = mail(text, Content_Type="text/plain; charset=iso-8859-1")
    changed = apply_patches(One(content), [Patch("x", data)])
    assert changed == {"x": content.replace(b"1", b"2")}


def test_a_file_with_cr_lf_keeps_it() -> None:
    text = f"{HEAD}@@ -1,2 +1,2 @@\n a\r\n-1\r\n+2\r\n".encode()
    changed = apply_patches(One(b"a\r\n1\r\n"), [Patch("x", mail(text))])
    assert changed == {"x": b"a\r\n2\r\n"}


def test_all_patches_of_an_mbox_are_applied_in_order() -> None:
    first = f"{HEAD}@@ -1 +1 @@\n-1\n+2\n".encode()
    mails = (first, first.replace(b"-1", b"-2").replace(b"+2", b"+3"))
    data = b"".join(
        COMMIT + mail(x, Content_Transfer_Encoding="base64") for x in mails
    )
    assert apply_patches(One(b"1\n"), [Patch("x", data)]) == {"x": b"3\n"}


def test_the_subject_is_that_of_the_mail_with_the_patch() -> None:
    cover = mail(b"Hi all,\n", "[PATCH 0/6] vfio: P2P")
    patch = Patch("x", COMMIT + cover + COMMIT + mail(body()))
    assert (patch.subject, patch.position) == (TITLE, (2, 6))
    assert Patch("x", COMMIT + cover).subject == "vfio: P2P"


def test_a_mail_on_top_of_a_variant() -> None:
    data = mail(body(), Content_Transfer_Encoding="base64")
    tree = PreImage(ours(2))
    want = apply_patches(tree, [ours(2)])
    assert apply_patches(tree, [Patch("x.mbox", data)]) == want
    merged = PreImage(ours(2))
    merged.files |= {x: y for x, y in want.items() if y is not None}
    back = apply_patches(merged, [Patch("x.mbox", data)], reverse=True)
    assert back == tree.files


def test_a_patch_without_a_mail_has_no_subject() -> None:
    patch = Patch("x.diff", diff())
    assert (patch.subject, patch.prefix, patch.position) == ("", "", None)
    assert patch.readings == (diff(),)


@pytest.mark.parametrize(
    ("text", "prefix", "title", "reply", "position"),
    [
        ("[PATCH 1/6] a: b", "[PATCH 1/6]", "a: b", False, (1, 6)),
        ("[a] [PATCH v2 02/13]  a", "[a] [PATCH v2 02/13]", "a", False,
         (2, 13)),
        ("Re: [PATCH] a [b]", "[PATCH]", "a [b]", True, None),
        ("Reset: a", "", "Reset: a", False, None),
        ("[v3,2/6] a 1/2", "[v3,2/6]", "a 1/2", False, (2, 6)),
        ("[PATCH", "", "[PATCH", False, None),
        ("", "", "", False, None),
    ],
)  # fmt: skip
def test_subjects(
    text: str,
    prefix: str,
    title: str,
    reply: bool,
    position: tuple[int, int] | None,
) -> None:
    subject = Subject(text)
    assert (subject.prefix, subject.title) == (prefix, title)
    assert (subject.reply, subject.position) == (reply, position)


def test_titles() -> None:
    assert number_of("Sysemu:  Add pre VM state\n change callback") == 2
    assert number_of("") is None


@given(st.binary())
def test_base64_of_any_bytes(data: bytes) -> None:
    text = mail(data, Content_Transfer_Encoding="base64")
    assert base64_decoded(text.partition(b"\n\n")[2]) == data


@given(st.binary())
def test_quoted_printable_of_any_bytes(data: bytes) -> None:
    data = data.replace(b"\r", b"")
    text = mail(data, Content_Transfer_Encoding="quoted-printable")
    assert quoted_printable_decoded(text.partition(b"\n\n")[2]) == data


@given(st.binary())
def test_what_is_malformed_is_neither_an_error_nor_dropped(
    data: bytes,
) -> None:
    base64_decoded(data)
    assert base64_decoded(b"QQ==\n*" + data) == b"A\n*" + data
    quoted_printable_decoded(data)
    words_decoded(data.decode("latin-1"))
    flowed_decoded(data, delete=True)


def test_malformed_pieces_stay_as_they_stand() -> None:
    assert quoted_printable_decoded(b"a=zz=\rb= \nc=") == b"a=zz=\rbc"
    assert base64_decoded(b"QUJDR") == b"ABC"
    assert words_decoded("=?utf-8?b?Q?= a\n b") != ""


@pytest.mark.parametrize("name", ["utf-8", "ASCII", "", "x-none", "a\0b",
                                  "punycode", "idna", "unicode_escape",
                                  "zlib", "utf-16"])  # fmt: skip
def test_character_sets_that_are_not_converted(name: str) -> None:
    assert charset_converted(b"abc", name) is None


def test_flowed_lines() -> None:
    data = b"a \nb\n c\n \n  \n> d\n-- \ne"
    assert flowed_decoded(data, delete=False) == (
        b"a b\nc\n\n \n> d\n-- \ne",
        b"a \nb\nc\n\n \n> d\n-- \ne",
    )
    assert flowed_decoded(b"a  \nb", delete=True)[0] == b"a b"


def test_every_mail_has_a_text() -> None:
    for data in (b"", b"\n", b"From: a\n\n", b"From a 10:10 2020\n"):
        assert [len(x.texts) for x in read_mails("x", data)] == [1]
