# SPDX-License-Identifier: GPL-2.0-or-later
"""The series is posted under a name, to somebody, with a cover letter."""

from __future__ import annotations

import email.policy
import re
from email.headerregistry import Address, AddressHeader
from email.message import Message
from pathlib import Path

import pytest
from small_series import STATES, git, make_repository, make_series
from vfio_p2p.errors import PatchError, UsageError
from vfio_p2p.series import Base, load_bases
from vfio_p2p.series.diff import read_diff
from vfio_p2p.series.posting import Person, Posting
from vfio_p2p.series.thread import SHORTLOG, export, thread

POSTER = Person("Doe, Jörg", "joerg@example.net")
SIGNED = "Signed-off-by: Doe, Jörg <joerg@example.net>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_series(tmp_path)


def change(folder: Path, old: str, new: str) -> Path:
    """Change the text of the first patch, and return its file."""
    path = folder / "v10.0/0001-one.patch"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return path


def posted(folder: Path, posting: Posting) -> list[Message]:
    return [
        email.message_from_bytes(x, policy=email.policy.default)
        for x in thread(load_bases(folder)[0], posting).values()
    ]


def people(mail: Message, header: str) -> tuple[Address, ...]:
    value = mail[header]
    assert isinstance(value, AddressHeader)
    return value.addresses


def message(mail: Message) -> str:
    """Return what a mail says about its patch."""
    raw = mail.get_payload(decode=True)
    assert isinstance(raw, bytes)
    return raw.decode().partition("\n---\n")[0]


def test_nobody_is_replaced(folder: Path) -> None:
    change(folder, "author@example.org", "author@example.invalid")
    change(
        folder,
        "Why.\n",
        "Why.\n\nSuggested-by: B <b@example.org>\n"
        "Signed-off-by: A. U. Thor <author@example.invalid>\n",
    )
    mail, _ = posted(folder, Posting(POSTER))
    assert str(mail["From"]) == '"Doe, Jörg" <joerg@example.net>'
    assert message(mail) == (
        f"Why.\n\nSuggested-by: B <b@example.org>\n{SIGNED}"
    )
    assert mail["Message-Id"].endswith(".0001@example.net>")


def test_an_author_who_exists_is_kept(folder: Path) -> None:
    theirs = "Signed-off-by: A. U. Thor <author@example.org>"
    change(folder, "Why.\n", f"Why.\n\n{theirs}\n")
    mail, other = posted(folder, Posting(POSTER))
    assert people(mail, "From")[0].addr_spec == "author@example.org"
    assert message(mail) == f"Why.\n\n{theirs}\n{SIGNED}"
    # Trailers are a paragraph of their own.
    assert message(other) == f"Why.\n\n{SIGNED}"


def test_the_poster_signs_once_and_last(folder: Path) -> None:
    change(folder, "Why.\n", f"Why.\n\n{SIGNED}\nTested-by: B <b@c.example>\n")
    mail, _ = posted(folder, Posting(POSTER))
    assert message(mail) == f"Why.\n\nTested-by: B <b@c.example>\n{SIGNED}"


def test_without_a_poster_nothing_is_signed(folder: Path) -> None:
    for mail in posted(folder, Posting(cover=True)):
        assert "Signed-off-by" not in message(mail)
        assert people(mail, "From")[0].addr_spec == "author@example.org"
        assert mail["To"] is None


def test_the_diff_does_not_change(folder: Path, tmp_path: Path) -> None:
    change(folder, "author@example.org", "author@example.invalid")
    base = load_bases(folder)[0]
    export(base, tmp_path / "out", Posting(POSTER, cover=True))
    root = tmp_path / "tree"
    (root / "hw").mkdir(parents=True)
    (root / "hw/a.c").write_text(STATES[1])
    make_repository(root)
    patches = sorted((tmp_path / "out").glob("000[12]-*"))
    git(root, "am", "-q", *map(str, patches))
    assert (root / "hw/a.c").read_text() == STATES[3]
    authors = git(root, "log", "-2", "--format=%an <%ae>").splitlines()
    assert authors == [
        "A. U. Thor <author@example.org>",
        "Doe, Jörg <joerg@example.net>",
    ]
    assert git(root, "log", "-1", "--format=%B").strip().endswith(SIGNED)


def test_recipients(folder: Path) -> None:
    lists = [Person("", f"list-{n}@lists.example.org") for n in range(9)]
    to = (*lists, Person("Zoë", "zoe@example.org"))
    for mail in posted(folder, Posting(to=to, cover=True)):
        found = [x.addr_spec for x in people(mail, "To")]
        assert found == [x.address for x in to]
        assert people(mail, "To")[-1].display_name == "Zoë"
    head, _, _ = next(
        iter(thread(load_bases(folder)[0], Posting(to=to)).values())
    ).partition(b"\n\n")
    assert max(map(len, head.splitlines())) <= 78


def test_another_posting_is_another_thread(folder: Path) -> None:
    some = [
        posted(folder, x)[0]["Message-Id"]
        for x in (
            Posting(),
            Posting(POSTER),
            Posting(to=(POSTER,)),
            Posting(cover=True),
        )
    ]
    assert len(set(some)) == 4
    assert posted(folder, Posting(POSTER))[0]["Message-Id"] == some[1]


def test_a_cover_letter_to_be_filled_in(folder: Path) -> None:
    change(folder, "author@example.org", "author@example.invalid")
    cover, first, _ = posted(folder, Posting(POSTER, cover=True))
    # `git send-email` refuses a letter with these words.
    assert cover["Subject"] == "[PATCH 0/2] *** SUBJECT HERE ***"
    assert people(cover, "From")[0].addr_spec == POSTER.address
    assert message(cover) == (
        "*** BLURB HERE ***\n\n"
        "A. U. Thor (1):\n  hw: Two\n\nDoe, Jörg (1):\n  hw: One\n"
    )
    assert first["In-Reply-To"] == cover["Message-Id"]


def test_the_base_s_own_cover_letter(folder: Path) -> None:
    (folder / "v10.0/0000-cover-letter.txt").write_text(
        "From: A <a@b.example>\nSubject: [PATCH 0/2] x\n\n"
        f"Hello.\n\n{SHORTLOG}\n\n1 file changed\n"
    )
    (cover, *_) = posted(folder, Posting(POSTER, cover=True))
    assert people(cover, "From")[0].addr_spec == POSTER.address
    assert message(cover) == (
        "Hello.\n\nA. U. Thor (2):\n  hw: One\n  hw: Two\n\n1 file changed\n"
    )
    (cover, *_) = posted(folder, Posting())
    assert people(cover, "From")[0].addr_spec == "a@b.example"


def test_an_encoded_text_cannot_be_signed(folder: Path) -> None:
    change(folder, "Date:", "Content-Transfer-Encoding: base64\nDate:")
    posted(folder, Posting())
    with pytest.raises(PatchError, match="its text is encoded"):
        posted(folder, Posting(POSTER))


def test_a_patch_without_an_author(folder: Path) -> None:
    change(folder, "From: A. U. Thor <author@example.org>\n", "")
    with pytest.raises(PatchError, match="it has no author"):
        posted(folder, Posting(POSTER))


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("a@b.example", "", "a@b.example"),
        ("<a+c@b.example>", "", "a+c@b.example"),
        (" Ä. B <a@b> ", "Ä. B", "a@b"),
        ('"Doe, J." <j@b.example>', "Doe, J.", "j@b.example"),
    ],
)
def test_an_address(text: str, name: str, address: str) -> None:
    assert Person.parse(text, named=False) == Person(name, address)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "a@", "@b", "a@b, c@d", "A <a@b", "A a@b>", "A <a b@c>",
        "A <a@b\nBcc: c@d>", "A\nB <a@b>", "A <a@b> x", "A <a@b><c@d>",
    ],
)  # fmt: skip
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not a mail address") as caught:
        Person.parse(text, named=False)
    assert "Name <mail@example.org>" in caught.value.hint


def test_a_poster_has_a_name() -> None:
    with pytest.raises(UsageError, match="address with a name"):
        Person.parse("a@b.example", named=True)


@pytest.mark.parametrize(
    ("address", "nobody"),
    [
        ("a@b.invalid", True),
        ("a@invalid", True),
        ("a@b.INVALID", True),
        ("a@invalid.example", False),
        ("a@notinvalid", False),
    ],
)
def test_nobody(address: str, nobody: bool) -> None:
    assert Person("", address).nobody is nobody


def own() -> Base:
    return load_bases()[0]


def test_the_own_series_can_be_posted() -> None:
    """Nothing of the names that stand in for the poster is left."""
    mails = thread(own(), Posting(POSTER))
    assert len(mails) == 7
    for name, data in mails.items():
        assert b".invalid" not in data, name
        assert b"*** " not in data, name
        assert data.count(SIGNED.encode()) == (not name.startswith("0000"))


def test_the_diffstat_of_the_own_cover_letter() -> None:
    """It counts no line twice, so only the differences can be checked."""
    letter = thread(own())["0000-cover-letter.patch"].decode()
    found: dict[str, int] = {}
    for patch in own().patches:
        for file in read_diff(patch.name, patch.data.decode()):
            lengths = [re.findall(r",(\d+)", x.header) for x in file.hunks]
            more = sum(int(new) - int(old) for old, new in lengths)
            found[file.path] = found.get(file.path, 0) + more
    stat = re.findall(r"^ (\S+) +\| +\d+ [+-]+$", letter, re.MULTILINE)
    assert stat == sorted(found)
    total = re.search(
        rf"^ {len(found)} files changed, (\d+) insertions\(\+\), "
        r"(\d+) deletions\(-\)$",
        letter,
        re.MULTILINE,
    )
    assert total
    assert int(total[1]) - int(total[2]) == sum(found.values())
