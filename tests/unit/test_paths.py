# SPDX-License-Identifier: GPL-2.0-or-later
"""The folders of the cache and of the state."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from vfio_p2p import paths


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.cache_dir() == tmp_path / "vfio-p2p"


@pytest.mark.parametrize("value", ["", "relative/path", None])
def test_the_cache_at_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert paths.cache_dir() == tmp_path / ".cache" / "vfio-p2p"


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_home_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    user = pwd.getpwuid(os.getuid()).pw_dir
    assert paths.cache_dir() == Path(user) / ".cache" / "vfio-p2p"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another")
def test_a_user_that_the_system_does_not_know() -> None:
    code = (
        "import os\n"
        "from vfio_p2p.errors import UsageError\n"
        "from vfio_p2p import paths\n"
        "os.setuid(54321)\n"
        "for find in paths.cache_dir, paths.state_dir:\n"
        "    try:\n"
        "        print(find())\n"
        "    except UsageError as error:\n"
        "        print(error.what, error.hint)\n"
    )
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    text = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert text == (
        "user 54321 has no home folder "
        "Set XDG_CACHE_HOME to a folder that you can write to.\n"
        "user 54321 has no home folder "
        "Set XDG_STATE_HOME to a folder that you can write to.\n"
    )


def test_special_files(tmp_path: Path) -> None:
    file, pipe, link = (tmp_path / x for x in ("file", "pipe", "link"))
    file.touch()
    os.mkfifo(pipe)
    link.symlink_to(file)
    for path in (tmp_path, file, link, tmp_path / "none"):
        assert not paths.is_special(path)
    link.unlink()
    link.symlink_to(pipe)
    for path in (pipe, link, Path("/dev/zero")):
        assert paths.is_special(path)
