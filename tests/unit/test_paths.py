# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import paths
from harness.errors import UsageError


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


def test_the_checkout() -> None:
    root = paths.project_root()
    assert (root / "qemu-patches" / "series.toml").is_file()


def test_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "harness/paths.py"))
    with pytest.raises(UsageError, match="not a checkout"):
        paths.project_root()
