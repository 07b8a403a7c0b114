# SPDX-License-Identifier: GPL-2.0-or-later
"""Our reader of diffs says what git and unidiff say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet
from vfio_p2p import resources
from vfio_p2p.errors import PatchError
from vfio_p2p.series import Patch, apply_patches, check_patch
from vfio_p2p.series.diff import FileDiff, Hunk, read_diff
from vfio_p2p.series.patch import MAX_PATCH_BYTES

HOSTILE = Path(__file__).parent / "cases" / "hostile"
HEAD = "diff --git a/x b/x\n--- a/x\n+++ b/x\n"


def wrong(text: str) -> PatchError:
    with pytest.raises(PatchError) as caught:
        read_diff("x.patch", text)
    return caught.value


@pytest.mark.parametrize(
    "path", sorted(resources.patches().rglob("*.patch")), ids=lambda x: x.stem
)
def test_unidiff_reads_the_same_of_all_our_patches(path: Path) -> None:
    text = path.read_text()
    assert [
        (x.source, x.target, [y.source_start for y in x.hunks])
        for x in read_diff(path.name, text)
    ] == [
        (x.source_file, x.target_file, [y.source_start for y in x])
        for x in PatchSet.from_string(text)
    ]


LINES = st.sampled_from(
    [
        HEAD.rstrip("\n"), "diff --git a/x b/x", "diff --git a/x b/y",
        "--- a/x", "+++ b/x", "@@ -1 +1 @@", "@@ -1,2 +1,3 @@ int f(void)",
        "@@ -0,0 +1 @@", " a", "-b", "+c", "+d", "", "\\ No newline at end "
        "of file", "new file mode 100644", "rename from x", "rename to y",
        "-- ", "text",
    ]
)  # fmt: skip
TWO = "\n".join([HEAD + "@@ -1,2 +1,3 @@", " a", "-b", "+c", "+d"])


@settings(max_examples=500)
@given(st.lists(LINES, max_size=9))
def test_what_we_accept_is_read_alike_by_unidiff(lines: list[str]) -> None:
    """Unless unidiff refuses it.  It takes some lines of text for files."""
    text = "\n".join([TWO, *lines, ""])
    try:
        files = read_diff("x.patch", text)
        other = PatchSet.from_string(text)
    except (PatchError, UnidiffParseError):
        return
    assert [
        (x.source, x.target, len(x.hunks)) for x in files if x.hunks
    ] == [(x.source_file, x.target_file, len(x)) for x in other if x]


@settings(max_examples=80)
@given(st.lists(LINES, max_size=6))
def test_what_we_accept_makes_git_touch_no_other_file(
    lines: list[str],
) -> None:
    text = "\n".join([TWO, *lines, ""])
    try:
        files = read_diff("x.patch", text)
    except PatchError:
        return
    done = subprocess.run(
        ["git", "apply", "--numstat", "-z", "-"],
        input=text.encode(),
        # In a repository, paths would be relative to its top.
        cwd="/",
        capture_output=True,
        check=False,
    )
    touched = {x.rpartition(b"\t")[2] for x in done.stdout.split(b"\0")}
    known = {
        name[2:].encode() for x in files for name in (x.source, x.target)
    }
    assert touched - {b""} <= known


def test_names_modes_and_hunks() -> None:
    text = (
        "Text.\n---\n x | 2 +-\n\n"
        "diff --git a/a b b/a b\nold mode 100644\nnew mode 100755\n"
        "index 1..2\n--- a/a b\t2023\n+++ b/a b\t2023\n"
        "@@ -3 +3,2 @@ f\n-1\n+2\n+3\n\\ No newline at end of file\n"
        "@@ -9,0 +11 @@\n+4\n"
        "diff --git a/n b/n\nnew file mode 100644\nindex 0..1\n"
        "diff --git a/o b/p\nrename from o\nrename to p\n"
        "diff --git a/d b/d\ndeleted file mode 100644\n--- a/d\n"
        "+++ /dev/null\n@@ -1 +0,0 @@\n-1\n"
        "diff --git a/e b/e b/e b/e\nnew file mode 100644\nindex 0..1\n"
        "diff --git a/i b/i\nindex 1..2\nBinary files a/i and b/i differ\n"
        "--- a/k\n+++ b/k\n@@ -1 +1 @@\n-1\n+2\n"
        "-- \n2.39.5\n"
    )
    assert read_diff("x.patch", text) == [
        FileDiff(
            "a/a b",
            "b/a b",
            (Hunk("@@ -3 +3,2 @@", 3), Hunk("@@ -9,0 +11 @@", 9)),
            ("100644", "100755"),
        ),
        FileDiff("/dev/null", "b/n", (), ("100644",)),
        FileDiff("a/o", "b/p"),
        FileDiff("a/d", "/dev/null", (Hunk("@@ -1 +0,0 @@", 1),)),
        FileDiff("/dev/null", "b/e b/e", (), ("100644",)),
        FileDiff("a/i", "b/i", binary=True),
        FileDiff("a/k", "b/k", (Hunk("@@ -1 +1 @@", 1),)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}@@ -1 +1 @@\n-1\n", "x: @@ -1 +1 @@: the hunk is shorter"),
        (f"{HEAD}@@ -1 +1 @@\n-1\n+2\n+3\n", "the hunk is longer"),
        (f"{HEAD}@@ -1 +1 @@\n-1\n-2\n+3\n", "the hunk is longer"),
        (f"{HEAD}@@ -1 +1 @@\n-1\n+2\n---3\n", "the hunk is longer"),
        (f"{HEAD}@@ -a +1 @@\n", "x: @@ -a +1 @@: the header of the hunk"),
        (f"{HEAD}@@ -{'9' * 5000} +1 @@\n", "is malformed"),
        ("@@ -1 +1 @@\n-1\n+2\n", "@@ -1 +1 @@: the hunk follows no header"),
        (HEAD.replace("+++ b/x", "+++ b/y"), "b/y stands where b/x is"),
        (HEAD.replace("--- a/x", "rename from y"), "a/y stands where a/x"),
    ],
)
def test_what_is_malformed(text: str, said: str) -> None:
    assert said in wrong(text).what


@pytest.mark.parametrize("name", ["a\0b", "x" * 256, "x/" * 300 + "y" * 999])
def test_names_that_no_file_can_have(name: str) -> None:
    text = f"--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-1\n+2\n"
    with pytest.raises(PatchError, match="no file can have") as caught:
        check_patch(Patch("x.patch", text.encode()))
    assert len(caught.value.what) < 700


def test_an_error_has_a_length_that_can_be_read() -> None:
    name = "x" * 5000
    text = f"--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-1\n"
    assert len(wrong(text).what) < 700


@pytest.mark.parametrize("text", ["---\n", "---  \n", "-- \n", "--\n"])
def test_separators_of_mails_may_follow_a_hunk(text: str) -> None:
    assert len(read_diff("x.patch", f"{HEAD}@@ -1 +1 @@\n-1\n+2\n{text}")) == 1


class Empty:
    """A tree with one file."""

    def kind_of(self, path: str) -> str | None:
        return "f" if path == "x" else None

    def read(self, path: str) -> bytes:
        return b"1\n"


@pytest.mark.parametrize("name", ["bad.patch", "quad.patch"])
def test_hostile_patches(name: str) -> None:
    """They were a traceback, and 40 s."""
    with pytest.raises(PatchError):
        apply_patches(Empty(), [Patch.load(HOSTILE / name)])


@pytest.mark.parametrize(
    "piece",
    [
        "@@ -1 +1 @@\n-1\n+2\n",
        f"{HEAD}@@ -1 +1 @@\n-1\n+2\n",
        f"{HEAD}@@ -1 +1 @@\n-1\n",
        "\n",
        "+\n",
        "diff --git :// ",
        "Binary files a and ",
        "Binary files a and b",
    ],
)
def test_the_time_is_linear(piece: str) -> None:
    """Each of these took hours, or still runs, if it is read in squares."""
    text = f"{HEAD}@@ -1,9999999 +1,9999999 @@\n" if piece == "\n" else ""
    text += piece * ((MAX_PATCH_BYTES - len(text)) // len(piece))
    with pytest.raises(PatchError):
        check_patch(Patch("x.patch", text.encode() + b"\n@@ -1 +1 @@\n"))
