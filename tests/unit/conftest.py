# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of all unit tests: the examples are the same in every run."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, alive
from fake_qemu import make_tree
from hypothesis import settings
from vfio_p2p.machine import qemu
from workshops import FakeWorkshop, bundle_of

# No deadline: a loaded machine must not make a test fail.
settings.register_profile("vfio-p2p", deadline=None, derandomize=True)
settings.load_profile("vfio-p2p")


@pytest.fixture(autouse=True, scope="session")
def _sigint() -> None:
    """Restore SIGINT, which is ignored in background jobs of a shell.

    Our children would ignore it as well, and not end.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Make a bench, and check afterwards that no process or file is left."""
    # It is not below tmp_path, since a socket's path has to be short.
    private = Path(tempfile.mkdtemp(prefix="b"))
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    made = Bench(tmp_path, private)
    try:
        yield made
        assert not [s for s, pid in made.pids().items() if alive(pid)]
        assert list(private.iterdir()) == []
    finally:
        for pid in made.pids().values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(private)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only briefly for a QEMU that never ends."""
    monkeypatch.setattr(qemu, "_EXIT_S", 0.1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test; returns where it will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vfio-p2p"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of a small QEMU."""
    return make_tree(tmp_path / "qemu")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWorkshop:
    """A workshop whose runs leave good bundles below the working folder."""
    monkeypatch.chdir(tmp_path)
    return FakeWorkshop(make=bundle_of)
