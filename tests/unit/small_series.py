# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a small series, and a small tree that it applies to."""

from __future__ import annotations

import difflib
import subprocess
from pathlib import Path

SERIES = """\
format = 1
mutants = "mutants"

[[base]]
name = "v10.0"
qemu = "10.0"
folder = "v10.0"

[[base]]
name = "v10.2"
qemu = "10.2"

[[mutant]]
name = "swap"
base = "v10.0"
trips = "barrier"
scenarios = ["two-devices"]
waits_for = "a slow device"

[[followup]]
name = "mend"
base = "v10.0"
fixes = ["two-devices"]
"""

# The stock tree contains these traces of upstream's series.
FACTS = {
    "include/system/runstate.h": (
        "qemu_add_vm_change_state_handler_prio_full(\n"
        "qdev_add_vm_change_state_handler_full(\n"
    ),
    "hw/vfio/trace-events": "vfio_vmstate_change_prepare(const char *name)\n",
    "hw/vfio/migration.c": '"support P2P migration"\n',
}

# This checkpatch.pl complains about each added line with the word "bad".
CHECKPATCH = """\
my $n = grep { /^\\+.*bad/ } <STDIN>;
exit 0 unless $n;
print "-:7: ERROR: bad\\n\\n" x $n;
print "total: $n errors, 0 warnings, 3 lines checked\\n";
exit 1;
"""


def numbers(**words: str) -> str:
    """Return forty numbered lines, with some replaced: ``x4="four"``."""
    return "".join(f"{words.get(f'x{n}', n)}\n" for n in range(1, 41))


# The source, and the file after the pre-patch, patches 1 and 2, the mutant.
STATES = (
    numbers(),
    numbers(x4="pre"),
    numbers(x4="pre", x12="one"),
    numbers(x4="pre", x12="two"),
    numbers(x4="pre", x12="two", x30="swap"),
)


def mail(subject: str, old: str, new: str, path: str = "hw/a.c") -> bytes:
    """Return a patch as git writes it."""
    diff = difflib.unified_diff(
        old.splitlines(keepends=True),
        new.splitlines(keepends=True),
        f"a/{path}",
        f"b/{path}",
    )
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\n"
        "From: A. U. Thor <author@example.org>\n"
        "Date: Sun, 1 Nov 2026 12:00:00 +0000\n"
        f"Subject: {subject}\n\nWhy.\n---\n\n"
        f"diff --git a/{path} b/{path}\n{''.join(diff)}"
    ).encode()


def make_series(root: Path) -> Path:
    """Write a folder of patches, and return it."""
    folder = root / "qemu-patches"
    for name, subject, number in (
        ("v10.0/pre/0001-pre.patch", "[PATCH 1/1] hw: Pre", 0),
        ("v10.0/0001-one.patch", "[PATCH 1/2] hw: One", 1),
        ("v10.0/0002-two.patch", "[PATCH 2/2] hw: Two", 2),
        ("mutants/swap.patch", "[PATCH] mutant: Swap", 3),
        ("followups/mend.patch", "[PATCH] hw: Mend", 3),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mail(subject, STATES[number], STATES[number + 1]))
    (folder / "series.toml").write_text(SERIES)
    return folder


def make_small_tree(
    root: Path, version: str = "10.0.13", *, stock: bool = False
) -> Path:
    """Write a tree that the series applies to, and return it."""
    files = {
        "VERSION": f"{version}\n",
        "hw/a.c": STATES[0],
        "hw/vfio/trace-events": "",
        "scripts/checkpatch.pl": CHECKPATCH,
    }
    for name, text in (files | (FACTS if stock else {})).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def git(root: Path, *arguments: str) -> str:
    """Run git in a tree, and return its output."""
    return subprocess.run(
        ["git", "-C", root, *arguments],
        check=True, capture_output=True, text=True,
    ).stdout


def make_repository(root: Path) -> Path:
    """Turn a tree into a git work tree with one commit, and return it."""
    git(root, "init", "-q")
    # Git may not know a name for the user.
    git(root, "config", "user.name", "C. Mitter")
    git(root, "config", "user.email", "c@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "stock")
    return root


def snapshot(root: Path) -> dict[str, bytes]:
    """Return all files of a tree except for those of git."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }
