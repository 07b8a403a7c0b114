# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `vfio-p2p series`, with a small series and a small tree."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_series import (
    STATES,
    git,
    mail,
    make_repository,
    make_series,
    make_small_tree,
    numbers,
    snapshot,
)
from vfio_p2p.cli import main
from vfio_p2p.cli.context import Context, Printer
from vfio_p2p.cli.entry import guarded
from vfio_p2p.cli.series import add_parser

Capture = pytest.CaptureFixture[str]
Command = Callable[..., int]
Damage = Callable[[bytes], bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_series(tmp_path)


@pytest.fixture
def series(folder: Path) -> Command:
    def run(*arguments: object) -> int:
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers(), "the patches", folder)
        args = parser.parse_args(["series", *map(str, arguments)])
        context = Context(Printer(), json=getattr(args, "json", False))
        return guarded(lambda: int(args.run(args.request(args), context)))

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_small_tree(tmp_path / "qemu")


def content(root: Path) -> str:
    return (root / "hw/a.c").read_text()


def test_list(series: Command, capsys: Capture) -> None:
    assert series("list") == 0
    out = capsys.readouterr().out
    for words in (
        "v10.0, for QEMU 10.0.x",
        "pre 1  hw: Pre",
        "2  hw: Two",
        "mutant swap: barrier in two-devices",
        "waits for: a slow device",
        "follow-up mend: mends two-devices",
        "v10.2, for QEMU 10.2.x: has upstream's series",
    ):
        assert words in out


def test_list_as_json(series: Command, capsys: Capture) -> None:
    assert series("list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    first, second = document["bases"]
    assert document["format"] == 1
    assert first["qemu"] == "10.0"
    assert first["patches"][1] == {
        "number": 2, "file": "0002-two.patch", "subject": "hw: Two",
    }
    assert first["mutants"] == [
        {
            "name": "swap",
            "subject": "mutant: Swap",
            "trips": "barrier",
            "scenarios": ["two-devices"],
            "waits_for": "a slow device",
            "equivalent": None,
        }
    ]
    assert first["followups"] == [
        {
            "name": "mend",
            "subject": "hw: Mend",
            "fixes": ["two-devices"],
            "keeps": [],
            "devices": "simulated",
        }
    ]
    assert (second["folder"], second["patches"]) == (None, [])


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ([], 3),
        (["--upto", "0"], 1),
        (["--upto", "1"], 2),
        (["--upto", "2"], 3),
        (["--mutant", "swap"], 4),
        (["--base", "v10.0"], 3),
    ],
)
def test_apply(
    series: Command, root: Path, options: list[str], state: int
) -> None:
    before = snapshot(root)
    assert series("apply", root, *options) == 0
    changed = before | {"hw/a.c": STATES[state].encode()}
    assert snapshot(root) == changed


def test_apply_continues_from_the_patches_in_the_tree(
    series: Command, root: Path, capsys: Capture
) -> None:
    for options, words in (
        (["--upto", "0"], "has none of the series"),
        (["--upto", "1"], "is base v10.0\n"),
        ([], "is base v10.0 with patches 1 to 1\n"),
        ([], "nothing to do"),
        (["--mutant", "swap"], "is base v10.0 with patches 1 to 2\n"),
    ):
        assert series("apply", root, *options) == 0
        assert words in capsys.readouterr().out
    assert content(root) == STATES[4]


def test_apply_reverts_no_patch(
    series: Command, root: Path, capsys: Capture
) -> None:
    (root / "hw/a.c").write_text(STATES[3])
    assert series("apply", root, "--upto", "1") == 2
    assert "more of the series" in capsys.readouterr().err
    assert content(root) == STATES[3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--upto", "3"], "--upto 3: there is no such patch"),
        (["--upto", "-1"], "--upto -1: there is no such patch"),
        (["--mutant", "no"], "unknown mutant or follow-up 'no'"),
    ],
)
def test_unknown_patches_are_refused(
    series: Command,
    root: Path,
    capsys: Capture,
    options: list[str],
    words: str,
) -> None:
    assert series("apply", root, *options) == 2
    assert words in capsys.readouterr().err
    assert content(root) == STATES[0]


def break_hunk(text: bytes) -> bytes:
    return text.replace(b"@@ -9,7", b"@@ -9,8")


def escape(text: bytes) -> bytes:
    return text.replace(b"hw/a.c", b"../a.c")


def absolute(text: bytes) -> bytes:
    return text.replace(b"/hw/a.c", b"//etc/passwd")


def binary(text: bytes) -> bytes:
    head = text.partition(b"diff ")[0]
    return head + (
        b"diff --git a/hw/a.c b/hw/a.c\nindex 1..2 100644\n"
        b"Binary files a/hw/a.c and b/hw/a.c differ\n"
    )


def conflict(text: bytes) -> bytes:
    return text.replace(b"\n 11\n", b"\n eleven\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_hunk, "hw/a.c: @@ -9,8 +9,7 @@"),
        (escape, "a/../a.c: the path leads outside of the tree"),
        (absolute, "a//etc/passwd: the path leads outside of the tree"),
        (binary, "hw/a.c: the patch is binary"),
        (conflict, "hw/a.c: @@ -9,7 +9,7 @@: the hunk does not apply"),
    ],
)
def test_a_damaged_series_is_refused(
    series: Command,
    root: Path,
    folder: Path,
    capsys: Capture,
    damage: Damage,
    words: str,
) -> None:
    path = folder / "v10.0/0002-two.patch"
    path.write_bytes(damage(path.read_bytes()))
    before = snapshot(root)
    assert series("apply", root) == 2
    assert f"0002-two.patch: {words}" in capsys.readouterr().err
    assert snapshot(root) == before


def test_patches_that_are_not_applied_are_checked_too(
    series: Command, root: Path, folder: Path
) -> None:
    path = folder / "v10.0/0002-two.patch"
    path.write_bytes(binary(path.read_bytes()))
    assert series("apply", root, "--upto", "1") == 2
    assert content(root) == STATES[0]


def test_wrong_order(
    series: Command, root: Path, folder: Path, capsys: Capture
) -> None:
    one, two = folder / "v10.0/0001-one.patch", folder / "v10.0/0002-two.patch"
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)
    assert series("apply", root) == 2
    assert "0001-one.patch: its subject begins with [PATCH 2/2]" in (
        capsys.readouterr().err
    )
    # The same without numbers in the subjects.
    for path in (one, two):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"1/2", b"").replace(b"2/2", b""))
    assert series("apply", root) == 2
    assert "0001-one.patch: hw/a.c: @@ -9,7 +9,7 @@" in (
        capsys.readouterr().err
    )
    assert content(root) == STATES[0]


def test_a_link_is_not_followed(
    series: Command, root: Path, capsys: Capture
) -> None:
    outside = root.parent / "outside.c"
    (root / "hw/a.c").rename(outside)
    (root / "hw/a.c").symlink_to(outside)
    assert series("apply", root, "--base", "v10.0") == 2
    assert "hw/a.c: the file is a symbolic link" in capsys.readouterr().err
    assert outside.read_text() == STATES[0]


def test_a_dirty_tree(series: Command, root: Path, capsys: Capture) -> None:
    make_repository(root)
    (root / "VERSION").write_text("10.0.14\n")
    (root / "untracked").touch()
    for options in ([], ["--am"]):
        assert series("apply", root, *options) == 2
        said = capsys.readouterr().err
        assert "local changes: VERSION\n" in said
        assert ("--allow-dirty" in said) is (options == [])
    assert content(root) == STATES[0]
    assert series("apply", root, "--allow-dirty") == 0
    assert "VERSION; they are kept" in capsys.readouterr().out
    assert content(root) == STATES[3]
    assert (root / "VERSION").read_text() == "10.0.14\n"


def test_a_folder_of_a_dirty_tree(series: Command, tmp_path: Path) -> None:
    root = make_small_tree(tmp_path / "all/qemu")
    make_repository(tmp_path / "all")
    (root / "VERSION").write_text("10.0.14\n")
    assert series("apply", root) == 2
    assert content(root) == STATES[0]


def test_files_change_and_the_branch_does_not(
    series: Command, root: Path
) -> None:
    make_repository(root)
    (root / "untracked").touch()
    assert series("apply", root) == 0
    assert git(root, "log", "--format=%s") == "stock\n"
    assert git(root, "status", "--short", "-uno") == " M hw/a.c\n"


def test_am(
    series: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_repository(root)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert series("apply", root, "--am", "--mutant", "swap") == 0
    monkeypatch.delenv("GIT_DIR")
    assert git(root, "log", "--format=%s by %an").splitlines() == [
        "mutant: Swap by A. U. Thor",
        "hw: Two by A. U. Thor",
        "hw: One by A. U. Thor",
        "hw: Pre by A. U. Thor",
        "stock by C. Mitter",
    ]
    assert content(root) == STATES[4]
    assert git(root, "status", "--short") == ""


@pytest.mark.parametrize("how", [[], ["--am"]])
def test_a_mail_on_top(
    series: Command, root: Path, tmp_path: Path, how: list[str]
) -> None:
    make_repository(root)
    header, _, text = mail("x: y", STATES[3], STATES[4]).partition(b"\n\n")
    encoded = (
        header + b"\nContent-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(text)
    )  # fmt: skip
    (tmp_path / "a.mbox").write_bytes(encoded.replace(b"\n", b"\r\n"))
    given = ("--mutant", tmp_path / "a.mbox")
    assert series("apply", root, *how, *given) == 0
    assert content(root) == STATES[4]


def test_am_is_all_or_nothing(
    series: Command, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    make_repository(root)
    # The patch applies, but git am needs an author.
    bare = tmp_path / "bare.patch"
    data = mail("x", STATES[3], STATES[4])
    bare.write_bytes(data.replace(b"From: A. U. Thor", b"X: y"))
    assert series("apply", root, "--am", "--mutant", bare) == 2
    said = capsys.readouterr()
    assert "git am: " in said.err
    assert "applied" not in said.out
    assert git(root, "log", "--format=%s") == "stock\n"
    assert git(root, "status", "--short") == ""
    assert not (root / ".git/rebase-apply").exists()


def test_am_does_not_disturb_another_one(
    series: Command, root: Path, capsys: Capture
) -> None:
    make_repository(root)
    (root / ".git/rebase-apply").mkdir()
    (root / ".git/rebase-apply/patch").touch()
    assert series("apply", root, "--am") == 2
    assert "in progress" in capsys.readouterr().err
    assert (root / ".git/rebase-apply/patch").exists()


def test_am_needs_git(series: Command, root: Path, capsys: Capture) -> None:
    assert series("apply", root, "--am") == 2
    assert "not a git work tree" in capsys.readouterr().err
    assert content(root) == STATES[0]


def test_a_broken_repository(
    series: Command, root: Path, capsys: Capture
) -> None:
    (root / ".git").mkdir()
    assert series("apply", root) == 2
    assert f"{root}: not a git repository" in capsys.readouterr().err
    assert content(root) == STATES[0]


@pytest.mark.parametrize("version", ["9.1.0", "10.2.2"])
def test_stock(
    series: Command, tmp_path: Path, capsys: Capture, version: str
) -> None:
    root = make_small_tree(tmp_path / "qemu", version, stock=True)
    assert series("verify", "--own-checkpatch", root) == 0
    assert f"QEMU {version}, has the series (stock)" in (
        capsys.readouterr().out
    )
    assert series("apply", root) == 2
    said = capsys.readouterr().err
    assert "has the series already (stock)" in said
    assert "--variant stock" in said


def test_verify(series: Command, root: Path, capsys: Capture) -> None:
    assert series("verify", "--own-checkpatch", root) == 0
    out = capsys.readouterr().out
    assert "QEMU 10.0.13, has none of the series" in out
    assert "applies          pre/0001-pre.patch" in out
    assert "applies          0002-two.patch" in out


def test_verify_reports_conflicts_and_style(
    series: Command, root: Path, folder: Path, capsys: Capture
) -> None:
    (root / "hw/a.c").write_text(numbers(x14="other"))
    (folder / "v10.0/pre/0001-pre.patch").write_bytes(
        mail("[PATCH 1/1] x", STATES[0], numbers(x4="bad"))
    )
    assert series("verify", "--own-checkpatch", root) == 1
    out = capsys.readouterr().out
    assert "conflicts        0001-one.patch\n    hw/a.c: @@ -9,7" in out
    assert "checkpatch: 1 errors, 0 warnings\n      -:7: ERROR" in out


def test_verify_recognises_a_changed_stock_tree(
    series: Command, tmp_path: Path, capsys: Capture
) -> None:
    root = make_small_tree(tmp_path / "qemu", stock=True)
    (root / "hw/a.c").write_text(numbers(x4="other"))
    assert series("verify", "--own-checkpatch", root) == 1
    assert "has the series (changed)" in capsys.readouterr().out


def test_verify_as_json(series: Command, root: Path, capsys: Capture) -> None:
    (root / "hw/a.c").write_text(numbers(x14="other"))
    assert series("verify", "--own-checkpatch", root, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["tree"] == str(root)
    assert (document["version"], document["series"]) == ("10.0.13", "base")
    pre, one, _ = document["patches"]
    assert (pre["state"], pre["conflict"]) == ("applies", None)
    assert pre["checkpatch"] == {"errors": 0, "warnings": 0, "lines": []}
    assert one["state"] == "conflicts"
    assert one["conflict"] == {
        "file": "hw/a.c",
        "hunk": "@@ -9,7 +9,7 @@",
        "why": "the hunk does not apply",
    }


def test_export(series: Command, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert series("export", "--base", "v10.0", out) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/0001-one.patch",
        f"{out}/0002-two.patch",
        f"{out}/series.mbox",
    ]
    assert series("export", "--base", "v10.0", out) == 2


def test_export_for_a_poster(
    series: Command, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    poster = "Jane Doe <jane@example.org>"
    assert series(
        "export", "--base", "v10.0", "--signoff", poster, "--cover",
        "--to", "a@example.org", "--to", "B <b@example.org>", out,
    ) == 0  # fmt: skip
    assert capsys.readouterr().err == ""
    letter = (out / "0000-cover-letter.patch").read_text()
    assert "\nTo: a@example.org, B <b@example.org>\n" in letter
    assert f"\nFrom: {poster}\n" in letter
    patch = (out / "0001-one.patch").read_text()
    assert f"\nSigned-off-by: {poster}\n---\n" in patch


@pytest.mark.parametrize("option", ["--signoff", "--to"])
def test_export_to_no_address(
    series: Command, tmp_path: Path, capsys: Capture, option: str
) -> None:
    out = tmp_path / "out"
    assert series("export", "--base", "v10.0", option, "Jane", out) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert "'Jane' is not a mail address" in what
    assert hint.startswith("  Write it as 'Name <mail@example.org>'")
    assert not out.exists()


@pytest.mark.parametrize("action", ["apply", "verify"])
def test_a_folder_that_is_not_qemu(
    series: Command, tmp_path: Path, action: str
) -> None:
    assert series(action, tmp_path) == 2


def test_the_project_s_own_series(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["series", "list"]) == 0
    assert "v10.0, for QEMU 10.0.x" in capsys.readouterr().out
    assert main(["series", "export", "--base", "v8.1", "out"]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 8
    assert "--signoff" in capsys.readouterr().err
    assert main(["series", "export", "--base", "v8.2", "out"]) == 2
    assert "Did you mean 'v8.1'" in capsys.readouterr().err
