# SPDX-License-Identifier: GPL-2.0-or-later
"""The abilities of machines that lack one thing or another."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from vfio_p2p.plans.doctor import Ability, examine

PROGRAMS = (
    "cc", "ld", "strip", "ninja", "pkg-config", "git", "perl", "tar", "xz",
    "setpriv", "dpkg-deb", "make", "apt-get", "qemu-system-x86_64",
)

pytestmark = pytest.mark.skipif(
    shutil.which("apt-get") is None, reason="no apt on this machine"
)


class Machine:
    """A machine that has everything, until a test takes something away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kvm = root / "kvm"
        self.meminfo = root / "meminfo"
        self.etc = root / "etc"
        for folder in "bin", "cache", "state", "etc/sources.list.d":
            (root / folder).mkdir(parents=True)
        self.kvm.touch()
        self.meminfo.write_text("MemTotal: 9 kB\nMemAvailable: 8388608 kB\n")
        (self.etc / "sources.list").write_text(
            "deb http://mirror.example/debian bookworm main\n"
        )
        for name in PROGRAMS:
            program = shutil.which(name)
            if program is None:
                self.script(name, 'echo "QEMU emulator version 7.2.22"')
            else:
                (root / "bin" / name).symlink_to(program)

    def script(self, name: str, text: str) -> None:
        """Put a script in the place of a program."""
        path = self.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def remove(self, name: str) -> None:
        """Take a program away."""
        (self.root / "bin" / name).unlink()

    def examine(self) -> dict[str, Ability]:
        """Return the abilities by their names."""
        found = examine(
            etc_apt=self.etc, kvm=self.kvm, meminfo=self.meminfo
        )
        return {x.name: x for x in found}

    def lacking(self) -> dict[str, Sequence[str]]:
        """Return what is missing, by the names of the abilities."""
        return {
            name: [x.what for x in ability.lacks]
            for name, ability in self.examine().items()
            if not ability.able
        }


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # A build on a machine without the libraries is tested elsewhere.
    made.script("pkg-config", "exit 0")
    made.script("cc", "echo cc 12")
    return made


def test_a_machine_that_has_everything(machine: Machine) -> None:
    abilities = machine.examine()
    assert list(abilities) == [
        "logs", "series", "build", "testbed", "history", "kvm"
    ]
    assert machine.lacking() == {}
    assert all(x.found and x.purpose for x in abilities.values())
    assert "archive http://mirror.example/debian" in abilities["build"].found


def test_nothing_is_changed(machine: Machine) -> None:
    before = sorted(machine.root.rglob("*"))
    machine.examine()
    assert sorted(machine.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("program", "abilities"),
    [
        ("git", ["series"]),
        ("perl", ["series", "testbed"]),
        ("cc", ["build"]),
        ("ninja", ["build"]),
        ("xz", ["build"]),
        ("make", ["testbed"]),
        ("dpkg-deb", ["testbed"]),
        ("setpriv", ["build", "testbed"]),
        ("apt-get", ["build", "testbed"]),
    ],
)
def test_a_program_is_missing(
    machine: Machine, program: str, abilities: list[str]
) -> None:
    machine.remove(program)
    found = machine.examine()
    assert [x.name for x in found.values() if not x.able] == abilities
    for name in abilities:
        lacks = found[name].lacks
        assert [x.what for x in lacks] == [f"{program} is missing"]
        assert "apt-get install" in lacks[0].remedy


def test_everything_that_is_missing_is_reported(machine: Machine) -> None:
    machine.script("pkg-config", "exit 1")
    machine.script("cc", '[ "$1" = --version ] && echo cc 12')
    assert machine.lacking() == {
        "build": [
            "library glib-2.0 >= 2.66.0 is missing",
            "library zlib is missing",
            "header libfdt.h is missing",
        ]
    }


def test_no_archive(machine: Machine) -> None:
    (machine.etc / "sources.list").unlink()
    lacking = machine.lacking()
    assert list(lacking) == ["build", "testbed"]
    assert "no Debian archive" in lacking["build"][0]
    # A cached file will do as well.
    cache = machine.root / "cache" / "vfio-p2p"
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "qemu_9.9.9.orig.tar.xz").touch()
    assert list(machine.lacking()) == ["build", "testbed"]
    (cache / "downloads" / "qemu_10.0.13+ds.orig.tar.xz").touch()
    assert list(machine.lacking()) == ["testbed"]
    (cache / "testbed" / "kits" / "k1").mkdir(parents=True)
    assert list(machine.lacking()) == []


@pytest.mark.parametrize(
    ("variable", "abilities"),
    [
        ("XDG_CACHE_HOME", ["build", "testbed"]),
        ("XDG_STATE_HOME", ["history"]),
    ],
)
def test_a_folder_that_cannot_be_made(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    abilities: list[str],
) -> None:
    (machine.root / "file").touch()
    monkeypatch.setenv(variable, str(machine.root / "file" / "folder"))
    found = machine.examine()
    assert [x.name for x in found.values() if not x.able] == abilities
    assert variable in found[abilities[0]].lacks[0].remedy


def test_too_little_memory(machine: Machine) -> None:
    machine.meminfo.write_text("MemAvailable: 1048576 kB\n")
    assert machine.lacking() == {
        "testbed": ["only 1024 MiB of memory are free"]
    }
    machine.meminfo.unlink()
    assert machine.lacking() == {}


def test_without_kvm_a_machine_is_whole(machine: Machine) -> None:
    machine.kvm.unlink()
    abilities = machine.examine()
    assert [x.name for x in abilities.values() if not x.able] == ["kvm"]
    assert not abilities["kvm"].needed


def test_nothing_is_contacted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        port = server.getsockname()[1]
        (machine.etc / "sources.list").write_text(
            f"deb http://127.0.0.1:{port}/debian bookworm main\n"
        )
        uri = f"archive http://127.0.0.1:{port}/debian"
        assert uri in machine.examine()["build"].found
        with pytest.raises(BlockingIOError):
            server.accept()
    assert os.listdir(machine.root / "cache") == []
