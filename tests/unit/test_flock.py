# SPDX-License-Identifier: GPL-2.0-or-later
"""File systems whose locks do not hold."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from vfio_p2p.errors import UsageError
from vfio_p2p.machine import flock
from vfio_p2p.machine.files import (
    exclusive,
    exclusive_if_free,
    unused,
    used,
    using,
    write_whole,
)
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.plans.cache import CacheLimits, prune

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
41 22 0:51 / /mnt/a rw shared:2 - nfs4 srv:/a rw,vers=4.2,local_lock=none
42 22 0:52 / /mnt/b rw - nfs srv:/b rw,vers=3,nolock,local_lock=all
43 22 0:53 / /mnt/c rw shared:4 master:1 - nfs srv:/c rw,local_lock=flock
44 22 0:54 / /mnt/d rw - tmpfs none rw,nolock
"""


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flock, "_KNOWN", {})


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def _lacking(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def _no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)


def refused(
    context: AbstractContextManager[Any], folder: Path
) -> UsageError:
    with pytest.raises(UsageError) as caught, context:
        pytest.fail("it was let in")
    assert str(folder) in caught.value.what
    return caught.value


@pytest.mark.usefixtures("_lacking")
def test_a_cache_without_locks_is_refused(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()
    for context in (
        exclusive(tmp_path / "lock"),
        exclusive_if_free(tmp_path / "lock"),
        using(entry),
        unused(entry),
    ):
        err = refused(context, tmp_path)
        assert "no locks that hold" in err.what
        assert "XDG_CACHE_HOME" in err.hint
    with pytest.raises(UsageError):
        used(entry)


@pytest.mark.usefixtures("_no_effect")
def test_a_lock_that_two_can_have_is_refused(tmp_path: Path) -> None:
    err = refused(exclusive(tmp_path / "lock"), tmp_path)
    assert "two processes" in err.what


def not_pruned(home: Path) -> None:
    deb = home / "debs" / "x.deb"
    deb.mkdir(parents=True)
    with pytest.raises(UsageError, match="no locks that hold"):
        prune(CacheLimits(keep_bytes=-1), home=home)
    assert deb.exists()


@pytest.mark.usefixtures("_lacking")
def test_a_cache_without_locks_is_not_pruned(tmp_path: Path) -> None:
    not_pruned(tmp_path)


@pytest.mark.usefixtures("_no_effect")
def test_nor_one_whose_locks_two_can_have(tmp_path: Path) -> None:
    not_pruned(tmp_path)


def test_locks_that_other_machines_do_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for device, local in (
        (os.makedev(254, 0), False),
        (os.makedev(0, 51), False),
        (os.makedev(0, 52), True),
        (os.makedev(0, 53), True),
        (os.makedev(0, 54), False),
    ):
        assert flock._is_local(device, MOUNTS) == local
    here = tmp_path.stat().st_dev
    number = f"{os.major(here)}:{os.minor(here)}"
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(flock, "_MOUNTS", mounts)
    mounts.write_text(MOUNTS.replace("254:0", "9:9").replace("0:52", number))
    refused(exclusive(tmp_path / "lock"), tmp_path)


@pytest.mark.usefixtures("_lacking")
def test_folders_of_users_need_no_locks(tmp_path: Path) -> None:
    without_locks(tmp_path)


@pytest.mark.usefixtures("_no_effect")
def test_nor_such_that_hold(tmp_path: Path) -> None:
    without_locks(tmp_path)


def without_locks(folder: Path) -> None:
    write_whole(folder / "file", b"1")
    write_whole(folder / "file", b"2")
    assert os.listdir(folder) == ["file"]
    with temporary_folder(folder) as one, temporary_folder(folder) as two:
        # Nobody may take that of another one for one that is left.
        assert one.is_dir()
        assert two.is_dir()
    assert os.listdir(folder) == ["file"]
