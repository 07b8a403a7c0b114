# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are either whole or absent, and locks between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vfio_p2p.errors import NoSpaceError, UsageError
from vfio_p2p.machine import files
from vfio_p2p.machine.files import (
    copy_files,
    exclusive,
    exclusive_if_free,
    publishing,
    remove,
    remove_tree,
    room_for,
    touch,
    unused,
    used,
    using,
    write_whole,
)
from vfio_p2p.machine.temporary import temporary_folder


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_lock_is_held_as_long_as_the_context(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with exclusive(path):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_waiting_process_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    said = []
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def waiting() -> None:
            said.append("waiting")
            fcntl.flock(other, fcntl.LOCK_UN)

        with exclusive(path, waiting):
            assert is_locked(path)
    assert said == ["waiting"]


def test_a_lock_that_was_removed_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def waiting() -> None:
            path.unlink()
            fcntl.flock(other, fcntl.LOCK_UN)

        with exclusive(path, waiting):
            assert is_locked(path)


def test_a_child_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path) as fd:
        child = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, pass_fds=[fd]
        )
    assert is_locked(path)
    child.communicate()
    assert not is_locked(path)


def test_a_lock_that_is_taken_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_if_free(path) as first, exclusive_if_free(path) as second:
        assert (first, second) == (True, False)
        assert is_locked(path)
    with exclusive_if_free(path) as third:
        assert third


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_lock_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The cache is read-only, or another user's."""

    def refuse(path: Path, flags: int, mode: int = 0) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", refuse)
    for lock in exclusive, exclusive_if_free:
        with (
            pytest.raises(UsageError) as caught,
            lock(tmp_path / "builds" / "lock"),
        ):
            pytest.fail("it was made")
        assert caught.value.what.startswith(f"{tmp_path / 'builds'} cannot")
        assert "XDG_CACHE_HOME" in caught.value.hint


# A process that uses an entry until its input ends.
USER = """\
import sys
from pathlib import Path
from vfio_p2p.machine.files import used
print(used(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_entry_is_used_until_the_process_ends(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "entry"
    path.mkdir() if kind == "folder" else path.touch()
    os.utime(path, (0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", USER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout
        assert user.stdout.readline() == b"True\n"
        assert path.stat().st_mtime > 0
        with unused(path) as free:
            assert not free
        user.communicate()
    with unused(path) as free:
        assert free


def test_an_entry_that_is_missing_is_not_used(tmp_path: Path) -> None:
    assert not used(tmp_path / "entry")
    with unused(tmp_path / "entry") as free:
        assert not free


def test_an_entry_that_is_taken_away_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.touch()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(used(path)))
    with unused(path) as free:
        assert free
        thread.start()
        path.rename(tmp_path / "gone")
    thread.join()
    assert answers == [False]


def test_an_entry_that_was_made_again_is_used(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.touch()
    assert used(path)
    path.rename(tmp_path / "gone")
    path.touch()
    assert used(path)
    with unused(path) as free:
        assert not free


def test_an_entry_is_used_within_a_block(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.touch()
    os.utime(path, (0, 0))
    with using(path) as there:
        assert there
        assert path.stat().st_mtime > 0
        with unused(path) as free:
            assert not free
    with unused(path) as free:
        assert free
    with using(tmp_path / "missing") as there:
        assert not there


def test_touching(tmp_path: Path) -> None:
    os.utime(tmp_path, (0, 0))
    touch(tmp_path)
    assert tmp_path.stat().st_mtime > 0
    touch(tmp_path / "missing")
    assert os.listdir(tmp_path) == []


def test_publishing_replaces(tmp_path: Path) -> None:
    final = tmp_path / "a" / "x"
    for text in "one", "two":
        with publishing(final) as partial:
            (partial / text).touch()
            assert not (final / text).exists()
        assert os.listdir(final) == [text]
    assert os.listdir(final.parent) == ["x"]


def test_nothing_is_published_on_failure(tmp_path: Path) -> None:
    def publish_half() -> None:
        with publishing(tmp_path / "x") as partial:
            (partial / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_half()
    assert os.listdir(tmp_path) == []


# A process that is killed when all but the last step is done.
KILLED = """\
import os, signal, sys
from pathlib import Path
from vfio_p2p.machine import files
def kill(*paths):
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = files._exchange = kill
path = Path(sys.argv[2])
if sys.argv[1] == "file":
    files.write_whole(path, b"old" * 100)
else:
    with files.publishing(path) as partial:
        (partial / "half").touch()
"""


def killed(kind: str, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, kind, path], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert os.listdir(path.parent)


@pytest.mark.parametrize("name", ["x", "y"])
def test_what_a_kill_has_left_goes_with_the_next_folder(
    tmp_path: Path, name: str
) -> None:
    killed("folder", tmp_path / "x")
    with publishing(tmp_path / name):
        pass
    assert os.listdir(tmp_path) == [name]
    assert os.listdir(tmp_path / name) == []


def test_what_a_kill_has_left_goes_with_the_same_file(tmp_path: Path) -> None:
    killed("file", tmp_path / "x")
    write_whole(tmp_path / "x", b"1")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_has_the_name_of_a_half_is_left_alone(
    tmp_path: Path, kind: str
) -> None:
    killed("file", tmp_path / "x")
    (half,) = tmp_path.iterdir()
    half.unlink()
    match kind:
        case "link":
            half.symlink_to("/dev/zero")
        case "folder":
            half.mkdir()
        case "pipe":
            os.mkfifo(half)
    write_whole(tmp_path / "x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_the_half_of_a_process_that_lives_stays(tmp_path: Path) -> None:
    killed("file", tmp_path / "x")
    (half,) = tmp_path.iterdir()
    with half.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_whole(tmp_path / "x", b"1")
    assert sorted(os.listdir(tmp_path)) == sorted([half.name, "x"])
    write_whole(tmp_path / "x", b"2")
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # Not even root can make files there.
    for path in Path("/proc/x"), Path("/proc/self/fdinfo/x"):
        with pytest.raises(OSError, match="No such file") as caught:
            write_whole(path, b"1")
        assert caught.value.filename == str(path)
    with (
        pytest.raises(OSError, match="No such file") as caught,
        temporary_folder(Path("/proc")),
    ):
        pytest.fail("it was made")
    assert caught.value.filename == "/proc"


def test_many_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def write(number: int) -> bool:
        write_whole(path, b"%d" % number * 100_000)
        text = path.read_bytes()
        return text == text[:1] * 100_000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, [x % 10 for x in range(400)]))
    assert os.listdir(tmp_path) == ["x"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(NoSpaceError) as caught:
        write_whole(tmp_path / "x", b"new")
    assert str(tmp_path / "x") in caught.value.what
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_an_interrupted_removal_is_completed(tmp_path: Path) -> None:
    for name in ".x.doomed", "x":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_tree(tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x", ".x.doomed"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_files_and_links_are_replaced(
    tmp_path: Path, name: str, kind: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    match kind:
        case "link":
            (tmp_path / name).symlink_to(other)
        case "dangling link":
            (tmp_path / name).symlink_to("nowhere")
        case "file":
            (tmp_path / name).touch()
    with publishing(tmp_path / "x") as partial:
        (partial / "new").touch()
    assert not (tmp_path / "x").is_symlink()
    assert os.listdir(tmp_path / "x") == ["new"]
    assert os.listdir(other) == ["file"]
    assert sorted(os.listdir(tmp_path)) == ["other", "x"]


def test_writing_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, b"1")
    os.link(path, tmp_path / "link")
    write_whole(path, b"2", 0o755)
    assert path.read_bytes() == b"2"
    assert path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "link").read_bytes() == b"1"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    other = tmp_path / "other"
    other.write_bytes(b"1")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(other)
        case "folder":
            path.mkdir()
    before = path.lstat()
    with pytest.raises(UsageError, match="not a regular file"):
        write_whole(path, b"2")
    assert os.path.samestat(path.lstat(), before)
    assert other.read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == ["other", "x"]


@pytest.fixture
def private_umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)


@pytest.mark.usefixtures("private_umask")
def test_new_files_respect_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    write_whole(path, b"1")
    path.chmod(0o644)
    path.parent.chmod(0o755)
    with publishing(tmp_path / "b") as partial:
        (partial / "more").mkdir()
        copy_files(path.parent, partial / "more")
    copied = tmp_path / "b" / "more" / "file"
    assert copied.read_bytes() == b"1"
    for made in (copied, *copied.parents[:2]):
        assert not made.stat().st_mode & 0o077, made
    write_whole(path, b"2")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("can_exchange", [True, False])
def test_an_old_folder_stays_until_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """Killed at any moment, one of the two is there, if they can exchange."""
    final = tmp_path / "x"
    final.mkdir()
    seen: list[bool] = []

    def watched(path: Path) -> None:
        seen.append(final.is_dir())
        remove(path)

    monkeypatch.setattr(files, "remove", watched)
    if not can_exchange:
        # As on a file system without this operation.
        monkeypatch.setattr(files, "_EXCHANGE", 1 << 20)
    with publishing(final) as partial:
        (partial / "new").touch()
    assert os.listdir(final) == ["new"]
    assert os.listdir(tmp_path) == ["x"]
    assert all(seen) == can_exchange


def test_too_little_room(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with (
        pytest.raises(NoSpaceError) as caught,
        room_for(tmp_path / "not" / "yet", free * 2),
    ):
        pytest.fail("was let in")
    assert caught.value.exit_code == 2
    assert caught.value.needed_bytes == free * 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_room_that_runs_out(tmp_path: Path, code: int) -> None:
    with pytest.raises(NoSpaceError), room_for(tmp_path, 1):
        raise OSError(code, "no")


def test_room_is_told_as_a_user_knows_it(tmp_path: Path) -> None:
    with (
        temporary_folder(tmp_path) as folder,
        pytest.raises(NoSpaceError) as caught,
        room_for(folder / "x" / "y", 1000),
    ):
        raise OSError(errno.ENOSPC, "no")
    said = caught.value.what
    assert said.startswith(f"no room under {tmp_path}: 1 MiB needed, ")


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), room_for(tmp_path, 1):
        raise PermissionError(errno.EACCES, "no")
