# SPDX-License-Identifier: GPL-2.0-or-later
"""The findings in QEMU: their files, the page, the mails and the command."""

from __future__ import annotations

import email
import json
import re
import shlex
from pathlib import Path

import msgspec
import pytest
from doc_commands import blocks, commands, parses
from vfio_p2p.cli import main
from vfio_p2p.defects.model import (
    Defect,
    Evidence,
    find_defect,
    load_defects,
)
from vfio_p2p.defects.texts import mail, page, section
from vfio_p2p.oracle import RULES
from vfio_p2p.scenario.load import load, names, parse
from vfio_p2p.series import load_followups

DEFECTS = load_defects()
FOLLOWUPS = {x.name: x for x in load_followups()}
PROPERTIES = {
    "x-migration-max-queued-buffers-size",
    "x-migration-multifd-transfer",
}
PAGE = Path(__file__).parents[2] / "docs" / "findings.md"
ids = [str(x.number) for x in DEFECTS]
each = pytest.mark.parametrize("defect", DEFECTS, ids=ids)


def test_the_numbers_have_no_gap() -> None:
    assert [x.number for x in DEFECTS] == list(range(1, len(DEFECTS) + 1))


@each
def test_what_a_finding_names_exists(defect: Defect) -> None:
    assert set(defect.scenarios) <= set(names())
    rules = {x.name for x in RULES}
    for name in re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", str(defect)):
        assert name in {*names(), *rules, *FOLLOWUPS, *PROPERTIES}, name
    assert defect.having(Evidence.SHOWN)


@each
def test_its_command_runs_one_of_its_scenarios(defect: Defect) -> None:
    program, *words = shlex.split(defect.command)
    assert program == "vfio-p2p"
    parses(words)
    assert words[0] == "run"
    assert words[1] in defect.scenarios


@each
def test_the_scenarios_of_a_release_expect_it(defect: Defect) -> None:
    """What is said to be absent must not be expected, and the reverse.

    Only rules are looked at, since a defect may also show by the end.
    """
    for name in defect.scenarios:
        for release in defect.having(Evidence.ABSENT):
            if release != "8.1.0":
                number = tuple(map(int, release.split(".")[:2]))
                found = load(name).expect.upstream((number[0], number[1]))
                others = {
                    rule
                    for other in DEFECTS
                    if other is not defect and name in other.scenarios
                    for rule in found.breaks
                }
                assert set(found.breaks) <= others


@each
def test_its_patch_mends_its_scenarios(defect: Defect) -> None:
    if defect.followup:
        fixes = FOLLOWUPS[defect.followup].fixes
        # Finding 9 is of a release whose source was not at hand.
        assert defect.number == 9 or set(fixes) & set(defect.scenarios)
        assert defect.repair


def test_every_follow_up_belongs_to_a_finding() -> None:
    assert {x.followup for x in DEFECTS} - {""} == set(FOLLOWUPS)


@each
def test_a_mail_can_be_sent(defect: Defect) -> None:
    patch = b""
    if defect.followup:
        patch = FOLLOWUPS[defect.followup].path.read_bytes()
    text = mail(defect, patch)
    message = email.message_from_string(text)
    assert message["Subject"] == f"[BUG] {defect.subject}"
    assert "@" in message["From"]
    body = str(message.get_payload())
    assert text.isascii()
    assert f"    {defect.command}\n" in body
    for name in ("QEMU versions", "How to reproduce", "Analysis", "Expected"):
        assert f"\n{name}\n{'-' * len(name)}\n" in body
    for release in defect.affected:
        assert f"\n  {release} " in body
    # A paragraph is not torn apart by what looks like an item of a list.
    assert not re.search(r"[a-z]\n[a-z]\)", body)
    # The list does not know our numbers, nor Markdown.
    assert not re.search(r"[Ff]indings? \d", body)
    before, _, diff = body.partition("\n> ")
    prose = [x for x in before.splitlines() if not x.startswith("    ")]
    assert not re.search(r"`|\*\*", "\n".join(prose))
    # A tool must not take the quoted patch for one that is sent.
    assert bool(diff) == bool(patch)
    assert not re.search(r"^diff --git", body, re.M)
    for line in before.splitlines():
        assert len(line) <= 79 or line.startswith("    vfio-p2p "), line


def test_a_paragraph_may_name_an_item_of_a_list() -> None:
    said = "One has to post the semaphore of\na), and to wait.\n"
    text = mail(msgspec.structs.replace(find_defect(11), repair=said))
    assert "\nOne has to post the semaphore of a), and to wait.\n" in text


def test_the_diff_of_a_mail_is_that_of_the_patch() -> None:
    defect = find_defect(4)
    patch = FOLLOWUPS[defect.followup].path.read_bytes()
    quoted = [
        line[2:]
        for line in mail(defect, patch).splitlines()
        if line.startswith(">")
    ]
    diff = patch.decode().split("\ndiff --git", 1)[1].split("\n-- ")[0]
    wanted = f"diff --git{diff}".splitlines()
    assert [x.rstrip() for x in quoted] == [x.rstrip() for x in wanted]


def test_drivers_of_real_devices_are_told_apart() -> None:
    """mlx5 checks loaded data in write(), so finding 2a is not its own."""
    text = re.sub(r"(?<=\S)\n(?=[a-z])", " ", mail(find_defect(2)))
    assert "mlx5 loads and checks the data in write()" in text
    assert text.index("mlx5") > text.index("\nDrivers\n")


def test_the_page_has_all_of_them() -> None:
    assert "<!-- generated: findings -->" in PAGE.read_text()
    text = page(DEFECTS)
    for defect in DEFECTS:
        assert section(defect) in text
        anchor = re.search(rf"\[{defect.number}\]\(#([\w-]+)\)", text)
        assert anchor
        assert anchor[1].startswith(f"{defect.number}-")
    assert len(re.findall(r"^## \d+\. ", text, re.M)) == len(DEFECTS)
    for line in text.splitlines():
        assert len(line) <= 79 or line.startswith("|"), line


def test_scenarios_and_commands_in_the_texts_are_valid() -> None:
    found = [
        parse(block.encode(), "findings")
        for block in blocks(page(DEFECTS))
        if block.startswith("format = ")
    ]
    assert [x.name for (x,) in found] == ["paused-twice"]
    shown = [*commands(page(DEFECTS))]
    assert shown
    for words in shown:
        parses(words)


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["findings", *words]) == 0
    return capsys.readouterr().out


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    listed = output(capsys, "list")
    for defect in DEFECTS:
        assert defect.short in listed
    assert output(capsys, "show", "4") == section(find_defect(4)) + "\n"
    assert output(capsys, "mail", "4").startswith("From: YOUR NAME")
    assert "\n> diff --git" in output(capsys, "mail", "9")
    assert "\n>" not in output(capsys, "mail", "3")
    found = json.loads(output(capsys, "list", "--json"))
    assert [x["number"] for x in found] == [x.number for x in DEFECTS]
    shown = json.loads(output(capsys, "show", "9", "--json"))
    assert shown == found[8]
    assert shown["affected"]["11.1.3"] == "shown"


@pytest.mark.parametrize("action", ["show", "mail"])
def test_a_number_that_is_none(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["findings", action, "99"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "vfio-p2p: there is no finding 99"
    assert f"1 to {len(DEFECTS)}" in said[1]
    with pytest.raises(SystemExit) as caught:
        main(["findings", action, "x"])
    assert caught.value.code == 2
