# SPDX-License-Identifier: GPL-2.0-or-later
"""Temporary folders, also of processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import vfio_p2p
from vfio_p2p.machine.temporary import temporary_folder

ROOT = Path(vfio_p2p.__file__).parents[1]
MAKE = """
import sys, time
from pathlib import Path
from vfio_p2p.machine.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "x").touch()
    print(folder, flush=True)
    time.sleep(1000)
"""


def other(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that has such a folder, which has a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def test_it_is_removed_at_the_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
        (folder / "x").mkdir()
        assert os.listdir(tmp_path) == [folder.name]
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), temporary_folder(tmp_path):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_by_default_it_is_where_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert not folder.name.startswith(".")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    killed, left = other(tmp_path)
    alive, kept = other(tmp_path)
    end(killed)
    assert (left / "x").exists()
    (tmp_path / "vfio-p2p-tmp-not-hidden").mkdir()
    (tmp_path / ".vfio-p2p-tmp-file").touch()
    try:
        with temporary_folder(tmp_path):
            assert not left.exists()
            assert (kept / "x").exists()
    finally:
        end(alive)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [".vfio-p2p-tmp-file", kept.name, "vfio-p2p-tmp-not-hidden"]
    )


def test_many_at_a_time_remove_nobody_elses(tmp_path: Path) -> None:
    def use(number: int) -> bool:
        with temporary_folder(tmp_path) as folder:
            (folder / "x").write_text(str(number))
            return (folder / "x").read_text() == str(number)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(200)))
    assert os.listdir(tmp_path) == []
