# SPDX-License-Identifier: GPL-2.0-or-later
"""The way in for files that come from elsewhere."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from package_calls import ROOT, check_calls
from vfio_p2p.foreign import UnfitFileError, read_file


def test_all_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(UnfitFileError, match="larger than 0 MiB"):
        read_file(path, 4)


def test_a_file_that_does_not_say_its_size() -> None:
    # Files in /proc have a size of 0.
    assert b"MemTotal" in read_file(Path("/proc/meminfo"), 1 << 20)


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    """The address space would not hold all of it."""
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    done = subprocess.run(
        [
            sys.executable, "-c",
            "import resource, sys\n"
            "from pathlib import Path\n"
            "from vfio_p2p.foreign import UnfitFileError, read_file\n"
            "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
            "try:\n"
            "    read_file(Path(sys.argv[1]), 1 << 20)\n"
            "except UnfitFileError as err:\n"
            "    sys.exit(f'it is {err.strerror}')\n",
            path,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == "it is larger than 1 MiB\n"


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device"])
def test_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path = Path("/dev/zero")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        read_file(path, 100)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_link_is_followed_unless_it_must_not_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    link = tmp_path / "link"
    link.symlink_to("x")
    assert read_file(link, 5) == b"1"
    with pytest.raises(OSError, match="symbolic links"):
        read_file(link, 5, follow=False)


def test_a_pipe_that_the_shell_opened() -> None:
    """As in 'vfio-p2p run --patch <(git show)'."""
    reader, writer = os.pipe()
    os.write(writer, b"123")
    os.close(writer)
    assert read_file(Path(f"/dev/fd/{reader}"), 5) == b"123"
    os.close(reader)


# What reads or decodes a file as a whole.
CALLS = {
    "json.load", "json.loads", "lzma.decompress", "msgspec.json.decode",
    "msgspec.toml.decode", "pickle.load", "pickle.loads", "sqlite3.connect",
    "tarfile.open", "tomllib.load", "tomllib.loads", "zipfile.ZipFile",
}  # fmt: skip
METHODS = {"read_bytes", "read_text"}

# Where else these are called, and why nothing foreign comes in there.  A name
# that ends in a slash is that of a package.
ALLOWED = {
    "agent/": "runs on hosts: reads the kernel's files and our requests",
    "attach/domain.py": "what virsh and libvirt answer, as they print it",
    "attach/tracing.py": "a note that the watcher left beside its log",
    "bundle/manifest.py": "bytes that bundle/read.py has read",
    "bundle/read.py": "the way in for bundles: zips",
    "bundle/write.py": "what the run has just written",
    "cli/findings.py": "patches of ours",
    "defects/model.py": "findings of ours",
    "devices/": "the kernel's and p2psim's files",
    "downtime/transcript.py": "lines of what downtime/logs.py has read",
    "history/alert_table.py": "rows that history/database.py has read",
    "history/database.py": "the way in for histories: SQLite",
    "lab/": "images and states of ours",
    "machine/agent_session.py": "what our agent answers",
    "machine/agent_zip.py": "modules of ours",
    "machine/flock.py": "the kernel's files",
    "machine/local.py": "what places hand over, by paths of ours",
    "machine/qemu.py": "what QEMU printed to a file of ours",
    "machine/session.py": "the kernel's files",
    "places/cache.py": "entries of the cache",
    "places/hosts/": "firmware and archives of ours",
    "places/job.py": "a job of ours",
    "places/sealed/": "images, kits and results of the testbed",
    "plans/bisect/": "a folder that the bisection itself has made",
    "plans/cache.py": "entries of the cache",
    "plans/doctor.py": "the kernel's files",
    "plans/judgements.py": "entries of the cache, and modules of ours",
    "qemu/abilities.py": "what a QEMU that we started answers",
    "qemu/apt_sources.py": "the machine's own settings",
    "qemu/program.py": "a QEMU that the user has us run",
    "qemu/recipe.py": "a recipe of ours",
    "qemu/store.py": "entries of the cache",
    "report/document.py": "bytes that report/collect.py has read",
    "report/html.py": "templates of ours",
    "report/shard.py": "bytes that it has read by foreign.py",
    "scenario/": "bytes that strict.py has read, and logs of the run itself",
    "series/apply.py": "files of a tree that is patched",
    "series/data.py": "patches of ours",
    "series/thread.py": "patches of ours",
    "plans/series.py": "patches that it has just written",
    "series/tree.py": "files of a tree that is patched",
    "trace/wrapped.py": "a line of a log, whose length is limited",
    "foreign.py": "the way in",
}


def reads(node: ast.Call) -> bool:
    """Return whether a call reads or decodes as a whole."""
    name = ast.unparse(node.func)
    return name in CALLS or name.rpartition(".")[2] in METHODS


def test_nothing_foreign_comes_in_elsewhere() -> None:
    check_calls(reads, ALLOWED, "foreign.py")
