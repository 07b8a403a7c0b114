# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches apply strictly, all or none, and never outside of the tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from vfio_p2p.errors import MissingToolError, PatchError
from vfio_p2p.series import Changes, Patch, apply_patches, check_patch
from vfio_p2p.series.patch import MAX_PATCH_BYTES

NUMBERS = "".join(f"{n}\n" for n in range(1, 41)).encode()


class FakeTree:
    """Files by path; a path with the content None is a link."""

    def __init__(self, **files: bytes | None) -> None:
        self.files = {
            x.replace("__", "/").replace("_", "."): y
            for x, y in files.items()
        }

    def kind_of(self, path: str) -> str | None:
        if path not in self.files:
            return None
        return "l" if self.files[path] is None else "f"

    def read(self, path: str) -> bytes:
        data = self.files[path]
        assert data is not None
        return data


@pytest.fixture
def tree() -> FakeTree:
    return FakeTree(hw__a_c=NUMBERS, hw__b_c=b"b\n", link=None)


def diff(path: str, *hunks: str, mode: str = "") -> str:
    return (
        f"diff --git a/{path} b/{path}\n{mode}--- a/{path}\n+++ b/{path}\n"
        + "".join(hunks)
    )


FIRST = "@@ -3,3 +3,3 @@ int f(void)\n 3\n-4\n+four\n 5\n"
SECOND = "@@ -20,3 +20,3 @@\n 20\n-21\n+x\n 22\n"
WRONG = "@@ -30,3 +30,3 @@ int g(void)\n 30\n-xx\n+y\n 32\n"


def apply(tree: FakeTree, *texts: str) -> Changes:
    patches = [
        Patch(f"{n}.patch", x.encode(errors="surrogateescape"))
        for n, x in enumerate(texts, 1)
    ]
    return apply_patches(tree, patches)


def refused(tree: FakeTree, *texts: str) -> PatchError:
    with pytest.raises(PatchError) as caught:
        apply(tree, *texts)
    assert caught.value.exit_code == 2
    return caught.value


def test_only_changed_files_are_returned(tree: FakeTree) -> None:
    result = apply(tree, diff("hw/a.c", FIRST, SECOND))
    expected = NUMBERS.replace(b"\n4\n", b"\nfour\n")
    assert result == {"hw/a.c": expected.replace(b"\n21\n", b"\nx\n")}


def test_a_patch_applies_on_top_of_those_before_it(tree: FakeTree) -> None:
    back = "@@ -3,3 +3,3 @@\n 3\n-four\n+4\n 5\n"
    assert apply(tree, diff("hw/a.c", FIRST), diff("hw/a.c", back)) == {}


def test_a_patch_is_reverted(tree: FakeTree) -> None:
    patch = Patch("x.patch", diff("hw/a.c", FIRST, SECOND).encode())
    before = tree.files["hw/a.c"]
    tree.files |= apply_patches(tree, [patch])
    assert apply_patches(tree, [patch], reverse=True) == {"hw/a.c": before}


def test_a_patch_is_checked_without_a_tree() -> None:
    check_patch(Patch("x.patch", diff("no/such.c", FIRST).encode()))
    with pytest.raises(PatchError, match="outside"):
        check_patch(Patch("x.patch", diff("../x", FIRST).encode()))
    with pytest.raises(PatchError, match="longer than its header says"):
        check_patch(Patch("x.patch", diff("x", FIRST + "+x\n").encode()))


def test_new_and_removed_files(tree: FakeTree) -> None:
    new = (
        "diff --git a/hw/n.c b/hw/n.c\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/hw/n.c\n@@ -0,0 +1 @@\n+n\n"
    )
    gone = (
        "diff --git a/hw/b.c b/hw/b.c\ndeleted file mode 100644\n"
        "--- a/hw/b.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-b\n"
    )
    assert apply(tree, new, gone) == {"hw/n.c": b"n\n", "hw/b.c": None}


def test_a_rename_removes_one_file_and_adds_another(tree: FakeTree) -> None:
    text = (
        "diff --git a/hw/b.c b/hw/c.c\nsimilarity index 100%\n"
        "rename from hw/b.c\nrename to hw/c.c\n"
    )
    assert apply(tree, text) == {"hw/b.c": None, "hw/c.c": b"b\n"}


def test_the_mail_around_the_diff_is_ignored(tree: FakeTree) -> None:
    mail = (
        "From 0123 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] x\n\n"
        "Text.\n---\n hw/a.c | 2 +-\n\n"
        + diff("hw/a.c", FIRST)
        + "-- \n2.39.5\n\n"
    )
    assert set(apply(tree, mail)) == {"hw/a.c"}


def test_the_last_line_may_lack_a_newline(tree: FakeTree) -> None:
    hunk = "@@ -1 +1 @@\n-b\n+c\n\\ No newline at end of file"
    assert apply(tree, diff("hw/b.c", hunk)) == {"hw/b.c": b"c"}


def test_bytes_that_are_not_utf8_are_kept() -> None:
    tree = FakeTree(a_c=b"\xe9\n")
    text = diff("a.c", "@@ -1 +1 @@\n-\udce9\n+\udcff\n")
    assert apply(tree, text) == {"a.c": b"\xff\n"}


def test_an_offset_is_allowed(tree: FakeTree) -> None:
    moved = FIRST.replace("-3,3 +3,3", "-7,3 +7,3")
    assert set(apply(tree, diff("hw/a.c", moved))) == {"hw/a.c"}


def test_a_hunk_that_does_not_apply_is_named(tree: FakeTree) -> None:
    error = refused(tree, diff("hw/a.c", FIRST, WRONG))
    assert (error.patch, error.file, error.hunk) == (
        "1.patch", "hw/a.c", "@@ -30,3 +30,3 @@"
    )


def test_context_must_match_including_blanks(tree: FakeTree) -> None:
    fuzzy = FIRST.replace(" 5\n", " 5 \n")
    assert refused(tree, diff("hw/a.c", fuzzy)).hunk == "@@ -3,3 +3,3 @@"


@pytest.mark.parametrize(
    "hunk",
    [
        "@@ -20,3 +20,3 @@\n 20\n-21\n+x\n",
        "@@ -20,3 +20,3 @@\n 20\n-21\n+x\n 22\n 23\n+24\n",
        "@@ -20,3 +20,3 @@\n 20\n-21\n+x\njunk\n",
    ],
)
def test_a_corrupted_hunk_is_named(tree: FakeTree, hunk: str) -> None:
    later = diff("hw/b.c", "@@ -1 +1 @@\n-b\n+c\n")
    error = refused(tree, diff("hw/a.c", FIRST, hunk) + later)
    assert (error.patch, error.file, error.hunk) == (
        "1.patch", "hw/a.c", "@@ -20,3 +20,3 @@"
    )
    assert not error.what.endswith("\n")


def test_a_corrupted_header_is_named(tree: FakeTree) -> None:
    text = diff("hw/a.c", FIRST) + diff("hw/b.c").replace("+ b/hw", "+ b/..")
    error = refused(tree, text)
    assert error.file == "diff --git a/hw/b.c b/hw/b.c"
    assert error.hunk is None


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "hw/../../x",
        "/etc/x",
        ".git/config",
        "hw/.GIT/x",
        "hw//x",
    ],
)
def test_paths_outside_of_the_tree(tree: FakeTree, path: str) -> None:
    text = f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
    assert "outside" in str(refused(tree, text))


def test_paths_need_prefixes(tree: FakeTree) -> None:
    text = f"--- hw/a.c\n+++ hw/a.c\n{FIRST}"
    assert "a/ or b/" in str(refused(tree, text))


def test_a_link_is_not_followed(tree: FakeTree) -> None:
    text = diff("link", "@@ -1 +1 @@\n-x\n+y\n")
    assert "symbolic link" in str(refused(tree, text))


def test_no_file_is_created_behind_a_link(tree: FakeTree) -> None:
    text = "--- /dev/null\n+++ b/link/x\n@@ -0,0 +1 @@\n+x\n"
    assert "link is not a folder" in str(refused(tree, text))


@pytest.mark.parametrize("mode", ["120000", "160000", "100755"])
def test_only_plain_files_are_created(tree: FakeTree, mode: str) -> None:
    text = (
        f"diff --git a/n b/n\nnew file mode {mode}\n"
        "--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+/etc/passwd\n"
    )
    assert mode in str(refused(tree, text))


def test_a_mode_change_is_refused(tree: FakeTree) -> None:
    mode = "old mode 100644\nnew mode 100755\n"
    assert "100755" in str(refused(tree, diff("hw/a.c", FIRST, mode=mode)))


@pytest.mark.parametrize(
    "body",
    [
        "Binary files a/hw/b.c and b/hw/b.c differ\n",
        "GIT binary patch\nliteral 2\nJcmZQzfB^vj0096100IC2\n\n"
        "literal 2\nJcmZQzfB^vj0096100IC2\n\n",
    ],
)
def test_binary_patches_are_refused(tree: FakeTree, body: str) -> None:
    text = f"diff --git a/hw/b.c b/hw/b.c\nindex 1..2 100644\n{body}"
    assert str(refused(tree, text)) == "1.patch: hw/b.c: the patch is binary"


@pytest.mark.parametrize("text", ["", "not a patch\n", "\0\1\2"])
def test_a_text_without_a_diff_is_refused(tree: FakeTree, text: str) -> None:
    assert "no diff" in str(refused(tree, text))


def test_a_missing_file_is_reported(tree: FakeTree) -> None:
    error = refused(tree, diff("hw/no.c", FIRST))
    assert str(error) == "1.patch: hw/no.c: No such file or directory"


def test_a_repository_around_the_scratch_folder_does_not_matter(
    tree: FakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert set(apply(tree, diff("hw/a.c", FIRST))) == {"hw/a.c"}
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert set(apply(tree, diff("hw/a.c", FIRST))) == {"hw/a.c"}


def test_settings_of_git_do_not_make_it_lenient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / ".gitconfig"
    config.write_text("[apply]\n\tignoreWhitespace = change\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    tree = FakeTree(a_c=b"int  x;\na\n")
    refused(tree, diff("a.c", "@@ -1,2 +1,2 @@\n int x;\n-a\n+b\n"))


@pytest.mark.parametrize("made", ["new.c", "hw/a.c"])
def test_git_may_create_only_files_that_unidiff_saw(
    tree: FakeTree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: str,
) -> None:
    # Let git see a link that unidiff does not see.
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\nln -sf /etc/passwd {made}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    error = refused(tree, diff("hw/a.c", FIRST))
    assert str(error) == f"1.patch: {made}: the patch is ambiguous"


def test_missing_git_is_reported(
    tree: FakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="git"):
        apply(tree, diff("hw/a.c", FIRST))


def test_a_patch_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "0001-x.patch"
    path.write_bytes(b"x")
    assert Patch.load(path) == Patch("0001-x.patch", b"x")


def test_a_patch_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="No such file"):
        Patch.load(tmp_path / "no.patch")


def test_a_patch_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.patch"
    with path.open("wb") as file:
        file.truncate(MAX_PATCH_BYTES + 1)
    with pytest.raises(PatchError, match="larger than 4 MiB"):
        Patch.load(path)
