# SPDX-License-Identifier: GPL-2.0-or-later
"""``b4-check`` reads mails of all kinds, and says what each of them is."""

from __future__ import annotations

import email
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from b4_mails import BAD, FIRST, GOOD, NOTHING, PLAIN
from mails import (
    PATCHWORK,
    TITLE,
    PreImage,
    body,
    diff,
    mail,
    ours,
    part,
    parts,
)
from vfio_p2p.cli import main
from vfio_p2p.plans.b4 import PatchRequest, check_patch
from vfio_p2p.plans.setting import Origin
from vfio_p2p.qemu import Source
from vfio_p2p.series import Patch, apply_patches
from vfio_p2p.series.patch import MAX_PATCH_BYTES
from vfio_p2p.series.titles import TITLES
from workshops import FakeWorkshop

CASES = Path(__file__).parent / "cases" / "36-b4-mails"
STDIN = "standard input"


@dataclass
class Trying(FakeWorkshop):
    """Apply the patch on stdin to what our patch of a number finds."""

    number: int = 2
    applied: list[Mapping[str, bytes | None]] = field(default_factory=list)

    def check_patches(
        self, source: Source, patches: Sequence[Patch]
    ) -> None:
        """Apply the last patch, if it is the one on stdin."""
        if patches and patches[-1].name == STDIN:
            tree = PreImage(ours(self.number))
            self.applied.append(apply_patches(tree, patches[-1:]))


@dataclass(frozen=True)
class Answer:
    """What the command said."""

    code: int
    checks: list[dict[str, str]]
    errors: str

    @property
    def said(self) -> str:
        return " ".join(
            [*(f"{x['summary']} {x['details']}" for x in self.checks),
             self.errors]
        )  # fmt: skip


Ask = Callable[..., Answer]


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Ask:
    monkeypatch.chdir(tmp_path)

    def run(data: bytes, workshop: FakeWorkshop | None = None) -> Answer:
        stdin = SimpleNamespace(buffer=io.BytesIO(data))
        monkeypatch.setattr("sys.stdin", stdin)
        code = main(["b4-check"], workshop or Trying())
        out, err = capsys.readouterr()
        checks = json.loads(out) if out else []
        keys = {"tool", "status", "summary", "url", "details"}
        assert all(set(x) == keys for x in checks)
        assert "mistake" not in err
        return Answer(code, checks, err)

    return run


def case(name: str) -> bytes:
    return (CASES / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "number"),
    [("d-v3-2of6-renamed-subject.mbox", 2), ("f-base64.mbox", 5)],
)
def test_good_mails_of_the_cases(ask: Ask, name: str, number: int) -> None:
    workshop = Trying(number=number)
    answer = ask(case(name), workshop)
    assert answer.code == 0
    assert {x["status"] for x in answer.checks} == {"pass"}
    assert {x for x, _ in workshop.pairs} == {f"patch-{number}"}
    # The case may be of an earlier wording of ours.
    said = email.message_from_bytes(case(name)).get_payload(decode=True)
    assert isinstance(said, bytes)
    added = [x[1:] for x in said.splitlines() if re.match(rb"\+(?!\+)", x)]
    (files,) = workshop.applied
    lines = {x for y in files.values() if y for x in y.splitlines()}
    assert added
    assert set(added) <= lines


def test_the_cover_letter_of_the_cases(ask: Ask) -> None:
    answer = ask(case("n-cover.mbox"))
    assert answer.code == 0
    (check,) = answer.checks
    assert check["status"] == "warn"
    assert "cover letter" in check["summary"]
    assert "Give one of the patches" in check["details"]


@pytest.mark.parametrize("name", GOOD)
def test_good_mails(ask: Ask, name: str) -> None:
    workshop = Trying()
    answer = ask(GOOD[name], workshop)
    assert answer.code == 0, answer.said
    assert {x["status"] for x in answer.checks} == {"pass"}
    same = apply_patches(PreImage(ours(2)), [ours(2)])
    assert workshop.applied == [same]


@pytest.mark.parametrize(
    "prefix",
    [
        "[PATCH]", "[PATCH 2/6]", "[PATCH for-8.2 v2 2/6]", "[v3,2/6]",
        "[RFC PATCH v3 2/6]", "[PATCH RESEND v2 2/6]", "[RESEND PATCH 2/6]",
        "[PULL 02/13]", "[PATCH v10 02/12]", "[Qemu-devel] [PATCH v2 2/6]",
        "Re: [PATCH v2 2/6]", "RE: Re: [PATCH v2 2/6]", "Fwd: [PATCH 2/6]",
        "AW: [PATCH 2/6]", "Re[2]: [PATCH 2/6]", "[PATCH v2 2/6 RESEND]:", "",
    ],
)  # fmt: skip
def test_prefixes_of_subjects(ask: Ask, prefix: str) -> None:
    workshop = Trying()
    assert ask(mail(body(), f"{prefix} {TITLE}"), workshop).code == 0
    assert {x for x, _ in workshop.pairs} == {"patch-2"}


@pytest.mark.parametrize(
    ("number", "title"),
    [(n, title) for n, titles in enumerate(TITLES, 1) for title in titles],
)
def test_all_titles_that_were_posted(
    ask: Ask, number: int, title: str
) -> None:
    workshop = Trying(number=number)
    subject = f"[PATCH v9 {number}/6] {title}"
    assert ask(mail(body(number), subject), workshop).code == 0
    assert {x for x, _ in workshop.pairs} == {f"patch-{number}"}


def test_our_titles_are_among_those_that_were_posted() -> None:
    assert len(TITLES) == 6
    assert all(ours(n).subject in TITLES[n - 1] for n in range(1, 7))


@pytest.mark.parametrize("name", NOTHING)
def test_mails_without_a_patch_to_judge(ask: Ask, name: str) -> None:
    data, status, said = NOTHING[name]
    workshop = FakeWorkshop()
    answer = ask(data, workshop)
    assert [x["status"] for x in answer.checks] == [status], answer.said
    assert said in answer.said
    assert answer.code == (status == "fail")
    assert workshop.ran == []


def test_the_titles_are_named_when_none_fits(ask: Ask) -> None:
    said = ask(mail(diff(), "[PATCH] virtio: Mend it")).said
    assert all(title in said for titles in TITLES for title in titles)


@pytest.mark.parametrize("name", BAD)
def test_bad_input(ask: Ask, name: str) -> None:
    data, said = BAD[name]
    workshop = FakeWorkshop()
    answer = ask(data, workshop)
    assert (answer.code, answer.checks) == (2, [])
    assert said in answer.errors
    # What went wrong, and what to do.
    assert len(answer.errors.splitlines()) == 2
    assert workshop.ran == []


def test_two_patches_are_named(ask: Ask) -> None:
    said = ask(PATCHWORK + FIRST + PATCHWORK + PLAIN).errors
    assert TITLE in said
    assert "Give one patch at a time" in said


def test_what_is_too_large_never_passes(ask: Ask) -> None:
    """The end of the patch, which does not apply, is beyond the limit."""
    last = diff().replace(b"\n+", b"\n+x").replace(b"\n ", b"\n y")
    filler = b"x" * MAX_PATCH_BYTES
    answer = ask(PLAIN + filler + b"\n" + last)
    assert (answer.code, answer.checks) == (2, [])
    assert "larger than 4 MiB" in answer.errors
    assert "nothing of it was judged" in answer.errors


def test_what_is_just_small_enough_is_read_to_its_end(ask: Ask) -> None:
    last = b"\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n"
    filler = b"x" * (MAX_PATCH_BYTES - len(PLAIN + last))
    answer = ask(PLAIN + filler + last)
    assert answer.code == 1
    assert "x: No such file" in answer.checks[0]["details"]


def test_what_follows_the_end_of_base64_is_read(ask: Ask) -> None:
    def encoded(data: bytes) -> bytes:
        return mail(data, Content_Transfer_Encoding="base64")

    text = body() + b"\n" * (-len(body()) % 3 + 1)
    more = encoded(b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n")
    answer = ask(encoded(text) + more.partition(b"\n\n")[2])
    assert answer.code == 1
    assert "x: @@ -1 +1 @@: the hunk is shorter" in answer.said


def test_an_attachment_that_is_not_read_is_no_pass(ask: Ask) -> None:
    data = parts(
        part(body()),
        part(b"\x1f\x8b", "application/gzip; name=more.patch.gz"),
    )
    answer = ask(data)
    *others, last = answer.checks
    assert {x["status"] for x in others} == {"pass"}
    assert last["status"] == "warn"
    assert "more.patch.gz" in last["details"]


def test_a_patch_that_does_not_apply(ask: Ask) -> None:
    answer = ask(mail(body().replace(b"\n     ", b"\n      ")))
    assert answer.code == 1
    (check,) = answer.checks
    assert check["summary"] == "does not apply"
    assert "@@: the hunk does not apply" in check["details"]
    assert "before number 2 (base v10.0)" in check["details"]
    assert "--base" in check["details"]


def test_a_qemu_that_has_the_series() -> None:
    workshop = FakeWorkshop(release="11.1")
    request = PatchRequest(PLAIN, Origin(source=Path("qemu")))
    (check,) = check_patch(request, workshop=workshop)
    assert check.status == "warn"
    assert "QEMU 11.1.99 has the series already" in check.summary
    assert workshop.ran == []
