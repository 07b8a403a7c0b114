# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are."""

from __future__ import annotations

import os
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


def test_what_is_special(tmp_path: Path) -> None:
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
