# SPDX-License-Identifier: GPL-2.0-or-later
"""The way out for files: whole ones, and never over what is not ours."""

from __future__ import annotations

import ast
from pathlib import Path

from package_calls import calls, check_calls

# What writes, replaces or moves a file.
CALLS = {
    "os.link", "os.mkfifo", "os.rename", "os.replace", "os.symlink",
    "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree",
    "shutil.move", "tempfile.mkstemp", "tempfile.mkdtemp",
    "tempfile.NamedTemporaryFile", "tempfile.TemporaryDirectory",
}  # fmt: skip
METHODS = {
    "hardlink_to", "rename", "symlink_to", "write_bytes", "write_text",
}  # fmt: skip
OPENS = {"open", "fdopen"}

# Where else these are called, and why nobody can meet a half-written file
# there.  A name that ends in a slash is that of a package.
ALLOWED = {
    "agent/": "runs on hosts: writes to the kernel's files and its ledger",
    "attach/recorder.py": "a bundle that is not published yet",
    "bundle/write.py": "a bundle that is not published yet",
    "cli/context.py": "standard output, which is closed",
    "cli/entry.py": "standard error, which is closed",
    "devices/": "the kernel's files",
    "lab/": "an image that is not published yet",
    "machine/files.py": "the way out",
    "machine/qemu.py": "a folder of the run",
    "machine/remote.py": "a folder of the run",
    "machine/ssh.py": "a temporary file that is renamed",
    "machine/temporary.py": "temporary folders, which are swept",
    "machine/watched.py": "a log that grows as QEMU writes it",
    "places/": "folders of a run, images and kits that are not published yet",
    "plans/bisect/": "a folder that the bisection itself has made",
    "plans/cache.py": "what is removed is renamed first",
    "plans/lab.py": "a file of a running lab",
    "qemu/": "an entry of the cache that is not published yet",
    "scenario/": "a folder of the run",
    "series/apply.py": "a copy of a tree",
    "series/thread.py": "a folder that is not published yet",
    "series/tree.py": "files of a tree, which are put back after an error",
}


def writes(node: ast.Call) -> bool:
    """Return whether a call may write, replace or move a file."""
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    if last not in OPENS:
        return name in CALLS or last in METHODS
    given = [*node.args, *(x.value for x in node.keywords if x.arg == "mode")]
    return any(
        isinstance(x, ast.Constant)
        and isinstance(x.value, str)
        and set(x.value) & set("wax+")
        and set(x.value) <= set("wax+rbt")
        for x in given
    ) or any(
        flag in ast.unparse(x)
        for x in given
        for flag in ("O_CREAT", "O_WRONLY", "O_RDWR")
    )


def test_nothing_is_written_elsewhere() -> None:
    check_calls(writes, ALLOWED, "machine/files.py")


def test_what_writes_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    for line, wanted in (
        ("path.write_text('')", True),
        ("path.open('wb')", True),
        ("open(path, mode='a')", True),
        ("os.open(path, os.O_CREAT)", True),
        ("os.replace(a, b)", True),
        ("path.open('rb')", False),
        ("open(path)", False),
        ("text.replace('w', 'x')", False),
    ):
        path.write_text(line)
        assert bool(list(calls(path, writes))) == wanted, line
