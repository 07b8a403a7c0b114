# SPDX-License-Identifier: GPL-2.0-or-later
"""The series is written as a reproducible thread of mails."""

from __future__ import annotations

import email.policy
import mailbox
import resource
from contextlib import closing
from email.message import EmailMessage, Message
from pathlib import Path

import pytest
from small_series import STATES, git, mail, make_repository, make_series
from vfio_p2p.errors import PatchError, UsageError
from vfio_p2p.series import Base, load_bases
from vfio_p2p.series.thread import export, thread


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_series(tmp_path)


@pytest.fixture
def base(folder: Path) -> Base:
    return load_bases(folder)[0]


def parse(data: bytes) -> Message:
    # Like format-patch's files, each begins with the first line of an mbox.
    assert data.startswith(b"From 0000")
    return email.message_from_bytes(data, policy=email.policy.default)


def parsed(base: Base) -> list[Message]:
    return [parse(data) for data in thread(base).values()]


def test_all_mails_reply_to_the_first(base: Base) -> None:
    first, second = parsed(base)
    assert first["Message-Id"].endswith(".0001@example.org>")
    assert second["Message-Id"].endswith(".0002@example.org>")
    assert first["In-Reply-To"] is None
    assert second["In-Reply-To"] == first["Message-Id"]
    assert second["References"] == first["Message-Id"]


def test_ids_are_computed_from_the_contents(base: Base, folder: Path) -> None:
    assert thread(base) == thread(load_bases(folder)[0])
    path = folder / "v10.0/0002-two.patch"
    path.write_bytes(path.read_bytes().replace(b"Why.", b"Well."))
    changed = load_bases(folder)[0]
    ids = [x["Message-Id"] for x in parsed(base) + parsed(changed)]
    assert len(set(ids)) == 4


def test_the_rest_of_a_mail_does_not_change(base: Base) -> None:
    for patch, data in zip(base.patches, thread(base).values(), strict=True):
        head, _, body = patch.data.partition(b"\n\n")
        assert data.startswith(head + b"\nMessage-Id: ")
        assert data.endswith(b"\n\n" + body)


def test_a_cover_letter_may_be_a_text(folder: Path) -> None:
    (folder / "v10.0/0000-cover-letter.txt").write_text(
        "vfio: Größe\n\nHello,\n\nsee below.\n"
    )
    cover, first, second = parsed(load_bases(folder)[0])
    assert cover["Subject"] == "[PATCH 0/2] vfio: Größe"
    assert "author@example.org" in cover["From"]
    assert cover["Date"] == "Sun, 01 Nov 2026 12:00:00 +0000"
    assert cover.get_payload() == "Hello,\n\nsee below.\n"
    assert cover["Message-Id"].endswith(".0000@example.org>")
    replies = {x["In-Reply-To"] for x in (first, second)}
    assert replies == {cover["Message-Id"]}


def test_a_cover_letter_that_is_not_utf8(folder: Path) -> None:
    text = "Größe\n\nx\n".encode("latin-1")
    (folder / "v10.0/0000-cover-letter.txt").write_bytes(text)
    with pytest.raises(PatchError, match=r"0000-cover-letter\.txt: it is not"):
        thread(load_bases(folder)[0])


def test_a_cover_letter_has_the_version_of_the_patches(folder: Path) -> None:
    for number, name in ((1, "one"), (2, "two")):
        (folder / f"v10.0/000{number}-{name}.patch").write_bytes(
            mail(
                f"[RFC PATCH v2 {number}/2] hw: x",
                STATES[number],
                STATES[number + 1],
            )
        )
    (folder / "v10.0/0000-cover-letter.txt").write_text("vfio: x\n\ny\n")
    cover, *_ = parsed(load_bases(folder)[0])
    assert cover["Subject"] == "[RFC PATCH v2 0/2] vfio: x"


def test_a_cover_letter_may_be_a_mail(folder: Path) -> None:
    (folder / "v10.0/0000-cover-letter.txt").write_text(
        "From: B <b@example.net>\nSubject: [PATCH v3 0/2] x\n\nHello.\n"
    )
    cover, first, _ = parsed(load_bases(folder)[0])
    assert cover["Subject"] == "[PATCH v3 0/2] x"
    assert cover["Message-Id"].endswith("@example.net>")
    assert first["In-Reply-To"] == cover["Message-Id"]


def test_a_mail_with_utf8_declares_it(folder: Path) -> None:
    path = folder / "v10.0/0001-one.patch"
    path.write_bytes(path.read_bytes().replace(b"Why.", "Größe.".encode()))
    first, second = parsed(load_bases(folder)[0])
    assert isinstance(first, EmailMessage)
    assert first.get_content().startswith("Größe.")
    assert second["Content-Type"] is None


def test_a_bare_diff_is_refused(folder: Path) -> None:
    path = folder / "v10.0/0002-two.patch"
    path.write_bytes(path.read_bytes().partition(b"---\n\n")[2])
    with pytest.raises(PatchError, match=r"0002-two\.patch: the patch is not"):
        thread(load_bases(folder)[0])


def test_a_base_without_a_series_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="has no series"):
        thread(load_bases(folder)[1])


def test_export(base: Base, folder: Path, tmp_path: Path) -> None:
    (folder / "v10.0/0000-cover-letter.txt").write_text("vfio: x\n\ny\n")
    out = tmp_path / "a/b"
    names = [path.name for path in export(base, out)]
    assert names == [
        "0000-cover-letter.patch", "0001-one.patch", "0002-two.patch",
        "series.mbox",
    ]
    assert sorted(x.name for x in out.iterdir()) == names
    whole = (out / "series.mbox").read_bytes()
    assert whole.count(b"\n\nFrom 0000") == 2
    with closing(mailbox.mbox(out / "series.mbox")) as box:
        subjects = [x["Subject"] for x in box]
    assert subjects == [
        "[PATCH 0/2] vfio: x", "[PATCH 1/2] hw: One", "[PATCH 2/2] hw: Two",
    ]


def test_git_am_applies_the_mbox(base: Base, tmp_path: Path) -> None:
    export(base, tmp_path / "out")
    root = tmp_path / "tree"
    (root / "hw").mkdir(parents=True)
    (root / "hw/a.c").write_text(STATES[1])
    make_repository(root)
    git(root, "am", "-q", str(tmp_path / "out/series.mbox"))
    assert (root / "hw/a.c").read_text() == STATES[3]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_overwritten(
    base: Base, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        export(base, out)
    assert out.is_file() or [x.name for x in out.iterdir()] == ["mine"]


def test_an_export_is_whole_or_not_there(base: Base, tmp_path: Path) -> None:
    """Part of a series must not be sent."""
    out = tmp_path / "out"
    mbox_bytes = len(b"\n".join(thread(base).values()))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # All files fit but the last one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (mbox_bytes - 1, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            export(base, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not out.exists()
    out.mkdir()
    export(base, out)
    assert len(list(out.iterdir())) == 3


def test_an_export_does_not_replace_the_current_folder(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    with pytest.raises(UsageError, match="is the current folder"):
        export(base, Path())
    assert out.samefile(Path.cwd())
