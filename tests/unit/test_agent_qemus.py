# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent finds QEMUs, and what they listen on and write to."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sleepers import sleeper
from vfio_p2p.agent.failure import AgentError
from vfio_p2p.agent.monitors import monitors_of
from vfio_p2p.agent.qemus import (
    guest_of,
    is_qemu,
    log_of,
    run,
    stamps,
    vfio_devices,
)
from vfio_p2p.agent.roots import Roots

QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ([QEMU, "-m", "64"], True),
        (["/usr/libexec/qemu-kvm"], True),
        (["/lib/ld.so", "--library-path", "/l", f"{QEMU} (deleted)"], True),
        (["./build/my-qemu", "-machine", "q35", "-device", "x"], True),
        (["vim", "notes-on-qemu-system-x86_64"], False),
        (["/usr/bin/qemu-img", "convert"], False),
        ([], False),
    ],
)
def test_which_processes_are_qemus(argv: list[str], found: bool) -> None:
    assert is_qemu(argv) is found


def test_devices_of_a_command_line() -> None:
    argv = [
        QEMU, "-device", "vfio-pci,host=01:00.1,id=a",
        "-device", "e1000",
        "-device", "vfio-pci,sysfsdev=/sys/bus/mdev/devices/src0",
        "-device",
        '{"driver":"vfio-pci","host":"0002:03:00.0","id":"hostdev0"}',
        "-device", '{"driver":"pcie-root-port"}',
    ]  # fmt: skip
    assert list(vfio_devices(argv)) == ["0000:01:00.1", "src0",
                                        "0002:03:00.0"]


@pytest.mark.parametrize(
    ("value", "name"),
    [("web1", "web1"), ("guest=web1,debug-threads=on", "web1"),
     ("web1,process=q", "web1"), ("process=q", "")],
)  # fmt: skip
def test_the_name_of_a_guest(value: str, name: str) -> None:
    assert guest_of([QEMU, "-name", value]) == name


@pytest.mark.parametrize(
    ("words", "found"),
    [((), False), (("-msg", "timestamp=on"), True),
     (("-msg", "timestamp"), True), (("-msg", "timestamp=off"), False),
     (("-msg", "guest-name=on,timestamp=on"), True)],
)  # fmt: skip
def test_whether_messages_have_times(
    words: tuple[str, ...], found: bool
) -> None:
    assert stamps([QEMU, *words]) is found


class Here:
    """This process, which listens on sockets as a QEMU does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "qmp.sock")
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen(1)

    def held(self, *words: str) -> list[tuple[str, bool]]:
        """Return the monitors of a command line, and whether each is held."""
        found = monitors_of(Roots(), os.getpid(), [QEMU, *words])
        return [(x.address, x.held) for x in found]


@pytest.fixture
def here() -> Iterator[Here]:
    with tempfile.TemporaryDirectory() as name:
        found = Here(Path(name))
        yield found
        found.server.close()


def test_a_monitor_and_its_clients(here: Here) -> None:
    words = ("-qmp", f"unix:{here.path},server=on,wait=off")
    assert here.held(*words) == [(here.path, False)]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(here.path)
        # It waits to be served: whoever came now would wait behind it.
        assert here.held(*words) == [(here.path, True)]
        connection, _ = here.server.accept()
        with connection:
            assert here.held(*words) == [(here.path, True)]
    assert here.held(*words) == [(here.path, False)]


def test_a_dead_client_keeps_its_place(here: Here) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(here.path)
    words = ("-qmp", f"unix:{here.path},server=on,wait=off")
    assert here.held(*words) == [(here.path, True)]


@pytest.mark.parametrize(
    "words",
    [
        ("-chardev", "socket,id=m,path={},server=on,wait=off",
         "-mon", "chardev=m,mode=control"),
        ("-chardev", "socket,path={},id=m,server=on", "-mon",
         "m,mode=control"),
        ("-chardev", "socket,id=m,path={},server=on",
         "-object", "monitor-qmp,id=q,chardev=m"),
    ],
)  # fmt: skip
def test_other_ways_to_say_it(here: Here, words: tuple[str, ...]) -> None:
    argv = [x.format(here.path) for x in words]
    assert here.held(*argv) == [(here.path, False)]


def test_no_monitors_of_qmp(here: Here) -> None:
    assert here.held("-monitor", f"unix:{here.path},server=on") == []
    assert here.held(
        "-chardev", f"socket,id=m,path={here.path},server=on",
        "-mon", "chardev=m,mode=readline",
    ) == []  # fmt: skip


def test_a_monitor_of_tcp() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        argv = [QEMU, "-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off"]

        def held() -> list[bool]:
            return [x.held for x in monitors_of(Roots(), os.getpid(), argv)]

        assert held() == [False]
        with socket.create_connection(("127.0.0.1", port)):
            assert held() == [True]


def test_where_the_log_is(tmp_path: Path) -> None:
    log = tmp_path / "a log"
    with log.open("wb") as file:
        process = sleeper(tmp_path, file)
    with process:
        def found(*words: str) -> dict[str, str]:
            return log_of(Roots(), process.pid, [QEMU, *words])

        assert found() == {"path": str(log), "how": "stderr"}
        assert found("-D", "/x/y") == {"path": "/x/y", "how": "-D"}
        assert found("-D", "y")["path"] == str(tmp_path / "y")
        # The file can be read even if its name is gone.
        log.write_text("text")
        log.unlink()
        assert Path(found()["path"]).read_text() == "text"
        process.kill()


def test_no_log_to_read(tmp_path: Path) -> None:
    for stderr, how in (
        (subprocess.DEVNULL, "/dev/null"),
        (subprocess.PIPE, "a pipe whose reader is not known"),
    ):
        with sleeper(tmp_path, stderr) as process:
            found = log_of(Roots(), process.pid, [QEMU])
            assert found == {"path": "", "how": how}
            process.kill()


def test_the_log_of_a_guest_at_virtlogd(tmp_path: Path) -> None:
    """It is known by its name, wherever its descriptor is."""
    for pid, links in (
        ("12", {"2": "pipe:[7]"}),
        ("13", {"4": "pipe:[7]", "5": "/l/b.log", "6": "pipe:[8]",
                "9": "/l/a.log"}),
    ):  # fmt: skip
        folder = tmp_path / pid / "fd"
        folder.mkdir(parents=True)
        (tmp_path / pid / "comm").write_text("virtlogd\n")
        for name, target in links.items():
            (folder / name).symlink_to(target)
    roots = Roots(proc=tmp_path)

    def found(name: str) -> str:
        return log_of(roots, 12, [QEMU, "-name", f"guest={name}"])["path"]

    assert found("a") == "/l/a.log"
    assert found("b") == "/l/b.log"
    # The name of a log may be shortened.
    assert found("other") == "/l/b.log"


def test_no_such_qemu() -> None:
    with pytest.raises(AgentError, match="is no QEMU"):
        run(["--pid", str(os.getpid())], Roots())
    with pytest.raises(AgentError, match="there is no process"):
        run(["--pid", str(2**22 + 1)], Roots())
