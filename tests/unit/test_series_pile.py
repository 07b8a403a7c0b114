# SPDX-License-Identifier: GPL-2.0-or-later
"""A file with one patch or a whole series, as patches in their order."""

from __future__ import annotations

import pytest
from mails import PATCHWORK, TITLE, body, mail, ours
from vfio_p2p.errors import PatchError
from vfio_p2p.series import Patch, find_base
from vfio_p2p.series.pile import changed_files, patches_of_file

ARRIVED = b"From x Wed Aug  2 08:14:48 2023\n"


def mbox(*mails: bytes) -> Patch:
    return Patch("series.mbox", b"\n".join(ARRIVED + x for x in mails))


def numbered(number: int, of: int = 3, more: str = "") -> bytes:
    """Our patch of that number, as one of a series of another length."""
    subject = f"{more}[PATCH {number}/{of}] Number {number}"
    return mail(body(max(number, 1)), subject)


def subjects(file: Patch) -> list[str]:
    return [x.subject for x in patches_of_file(file)]


def test_one_patch_keeps_the_name_of_its_file() -> None:
    (found,) = patches_of_file(ours(5))
    assert (found.name, found.subject) == (ours(5).name, ours(5).subject)
    assert found.readings == ours(5).readings


def test_a_diff_without_a_mail() -> None:
    text = body(2)
    (found,) = patches_of_file(Patch("x.diff", text[text.index(b"diff") :]))
    assert (found.name, found.subject) == ("x.diff", "")
    assert changed_files([found]) == changed_files([ours(2)])


def test_the_numbers_are_the_order() -> None:
    file = mbox(numbered(3), numbered(1), numbered(2))
    found = patches_of_file(file)
    assert [x.subject for x in found] == ["Number 1", "Number 2", "Number 3"]
    assert [x.name for x in found][:1] == ["series.mbox: Number 1"]
    for number, patch in enumerate(found, 1):
        # Each of them has its own diff and no other one.
        assert changed_files([patch]) == changed_files([ours(number)])


def test_without_numbers_the_file_is_the_order() -> None:
    file = mbox(*(mail(body(x), f"[PATCH] N{x}") for x in (2, 1)))
    assert subjects(file) == ["N2", "N1"]
    mixed = mbox(numbered(2), mail(body(1), "[PATCH] first"))
    assert subjects(mixed) == ["Number 2", "first"]


def test_letters_and_replies_are_no_patches() -> None:
    letter = mail(b"Hello\n", "[PATCH 0/2] A letter")
    sketch = numbered(0, 2)
    review = numbered(1, 2, "Re: ")
    file = mbox(letter, sketch, numbered(1, 2), review, numbered(2, 2))
    assert subjects(file) == ["Number 1", "Number 2"]
    # Somebody sent nothing but a reply, and means it.
    assert subjects(mbox(review)) == ["Number 1"]


def test_what_format_patch_wrote_into_one_file() -> None:
    patches = find_base("v10.0").patches
    file = Patch("all.patch", b"".join(x.data for x in patches))
    assert subjects(file) == [x.subject for x in patches]
    assert changed_files(patches_of_file(file)) == changed_files(patches)


@pytest.mark.parametrize(
    ("mails", "why"),
    [
        ([numbered(1), numbered(3)], "patch 2 of 3 is missing"),
        ([numbered(1, 2), numbered(2)], "patches of several series"),
        ([numbered(1, 2), numbered(2, 2)] * 2, "it has patch 1 twice"),
        ([mail(b"Hello\n", "[PATCH 0/2] A letter")], "contains no diff"),
    ],
)
def test_no_whole_series(mails: list[bytes], why: str) -> None:
    with pytest.raises(PatchError) as caught:
        patches_of_file(mbox(*mails))
    assert why in caught.value.what
    assert caught.value.hint.startswith("Give ")


def test_one_patch_of_a_series_may_be_meant_alone() -> None:
    assert subjects(Patch("x", PATCHWORK + mail(body(2)))) == [TITLE]


def test_changed_files_are_sorted_and_whole() -> None:
    assert changed_files([ours(3), ours(2)]) == (
        "hw/core/vm-change-state-handler.c",
        "include/system/runstate.h",
        "system/runstate.c",
    )
    assert "hw/vfio/migration.c" in changed_files([ours(2), ours(5)])
