# SPDX-License-Identifier: GPL-2.0-or-later
"""Examine what this machine can do, and what it lacks.

Nothing is downloaded, built or changed, and nothing is contacted. So "able"
means that the machine has what the work needs, and not that the network
will answer.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vfio_p2p import paths
from vfio_p2p.errors import HarnessError, MissingToolError
from vfio_p2p.machine.files import nearest
from vfio_p2p.places.sealed.outer import RAM_MIB
from vfio_p2p.qemu.apt_sources import find_archive
from vfio_p2p.qemu.debian import TARBALL_BYTES
from vfio_p2p.qemu.recipe import BuildRecipe, missing_tools
from vfio_p2p.qemu.source import UNPACKED_BYTES
from vfio_p2p.qemu.worktree import AGAIN_BYTES, FRESH_BYTES
from vfio_p2p.series import default_base

# The parts, the image, the initramfs, and some results.
_TESTBED_BYTES = 2 << 30
# The outer QEMU itself takes about half as much as its guest.
_OUTER_BYTES = (RAM_MIB << 20) * 3 // 2

_TESTBED_TOOLS = {
    "dpkg-deb": "dpkg",
    "make": "make",
    "perl": "perl",
}


@dataclass(frozen=True)
class Lack:
    """A thing that is missing.

    :param what: What is missing, in a few words.
    :param remedy: How to get it, a whole sentence.
    """

    what: str
    remedy: str


@dataclass(frozen=True)
class Ability:
    """A kind of work that needs something of the machine.

    :param name: One word.
    :param purpose: What the work is, in a few words.
    :param needed: Whether a machine that lacks it is incomplete.
    :param found: The things that are there, in a few words each.
    :param lacks: The things that are missing.
    """

    name: str
    purpose: str
    needed: bool = True
    found: tuple[str, ...] = ()
    lacks: tuple[Lack, ...] = ()

    @property
    def able(self) -> bool:
        """Whether the machine can do the work."""
        return not self.lacks


@dataclass
class _Notes:
    """The findings of an examination so far."""

    found: list[str] = field(default_factory=list)
    lacks: list[Lack] = field(default_factory=list)

    def lack(self, what: str, remedy: str) -> None:
        self.lacks.append(Lack(what, remedy))

    def lack_of(self, error: HarnessError) -> None:
        self.lack(error.what, error.hint)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Note an error as something that is missing."""
        try:
            yield
        except HarnessError as error:
            self.lack_of(error)
        except OSError as error:
            self.lack(
                f"{error.filename or 'the system'}: {error.strerror}",
                "Check the path and its permissions.",
            )

    def tools(self, tools: dict[str, str]) -> None:
        for program, package in tools.items():
            if shutil.which(program) is None:
                self.lack_of(MissingToolError(program, package))

    def ability(
        self, name: str, purpose: str, needed: bool = True
    ) -> Ability:
        # Two parts of an ability may lack the same thing.
        lacks = tuple(dict.fromkeys(self.lacks))
        return Ability(name, purpose, needed, tuple(self.found), lacks)


def examine(
    *,
    etc_apt: Path = Path("/etc/apt"),
    kvm: Path = Path("/dev/kvm"),
    meminfo: Path = Path("/proc/meminfo"),
) -> tuple[Ability, ...]:
    """Find out what this machine can do.

    :param etc_apt: Where apt's configuration is.
    :param kvm: The device node of KVM.
    :param meminfo: The kernel's account of the memory.
    """
    return (
        _logs(),
        _series(),
        _build(etc_apt),
        _testbed(etc_apt, meminfo),
        _history(),
        _kvm(kvm),
    )


def _logs() -> Ability:
    notes = _Notes()
    notes.found.append(f"Python {platform.python_version()}")
    # A checkout need not be installed.
    with suppress(PackageNotFoundError):
        notes.found.append(f"vfio-p2p {version('vfio-p2p')}")
    return notes.ability("logs", "judge and report logs and bundles")


def _series() -> Ability:
    notes = _Notes()
    notes.tools({"git": "git", "perl": "perl"})
    if not notes.lacks:
        notes.found.append("git, perl")
    return notes.ability("series", "apply, verify and bisect patches")


def _build(etc_apt: Path) -> Ability:
    notes = _Notes()
    qemu = default_base().qemu
    with notes.errors():
        missing = list(missing_tools(BuildRecipe.load(), f"{qemu}.0"))
        for error in missing:
            notes.lack_of(error)
        if not missing:
            notes.found.append("compiler, libraries, ninja, meson")
    notes.tools({"tar": "tar", "xz": "xz-utils", "setpriv": "util-linux"})
    with notes.errors():
        home = paths.cache_dir()
        tarballs = sorted(home.glob(f"downloads/qemu_{qemu}.*.orig.tar.*"))
        needed_bytes = TARBALL_BYTES + UNPACKED_BYTES + FRESH_BYTES
        if any(home.glob("work/*/tree.json")):
            needed_bytes = AGAIN_BYTES
        _check_folder(notes, home, "XDG_CACHE_HOME", needed_bytes)
        if tarballs:
            notes.found.append(f"source {tarballs[-1].name}")
        else:
            _check_apt(notes, etc_apt)
    return notes.ability("build", "build QEMU")


def _testbed(etc_apt: Path, meminfo: Path) -> Ability:
    notes = _Notes()
    notes.tools({**_TESTBED_TOOLS, "setpriv": "util-linux"})
    if importlib.util.find_spec("pip") is None:
        notes.lack(
            f"{sys.executable} has no pip",
            f"Run '{sys.executable} -m ensurepip', or make the environment "
            "with 'python3 -m venv'.",
        )
    with notes.errors():
        home = paths.cache_dir()
        kits = [x for x in home.glob("testbed/kits/*") if x.is_dir()]
        needed_bytes = AGAIN_BYTES if kits else _TESTBED_BYTES
        _check_folder(notes, home, "XDG_CACHE_HOME", needed_bytes)
        if kits:
            notes.found.append("the testbed's parts")
        else:
            _check_apt(notes, etc_apt)
    free_bytes = _free_memory_bytes(meminfo)
    if free_bytes is not None:
        if free_bytes < _OUTER_BYTES:
            notes.lack(
                f"only {free_bytes >> 20} MiB of memory are free",
                f"Free some memory: a run takes {_OUTER_BYTES >> 20} MiB.",
            )
        else:
            notes.found.append(f"{free_bytes >> 20} MiB of free memory")
    return notes.ability("testbed", "run scenarios, sealed")


def _history() -> Ability:
    notes = _Notes()
    if importlib.util.find_spec("sqlite3") is None:
        notes.lack(
            "Python has no sqlite3", "Use a Python that was built with it."
        )
    with notes.errors():
        _check_folder(notes, paths.state_dir(), "XDG_STATE_HOME", 16 << 20)
    return notes.ability("history", "keep results over revisions")


def _kvm(node: Path) -> Ability:
    notes = _Notes()
    if not node.exists():
        notes.lack(
            f"there is no {node}",
            "Load the kernel module kvm_intel or kvm_amd, or allow nested "
            "virtualization. The shell works without KVM, slower.",
        )
    elif not os.access(node, os.R_OK | os.W_OK):
        notes.lack(
            f"you may not use {node}",
            "Join its group: run 'adduser USER kvm' as root.",
        )
    else:
        # The node alone does not prove that a guest boots.
        notes.found.append(f"{node}, which the shell tries before it is used")
    return notes.ability(
        "kvm", "a faster shell in the testbed", needed=False
    )


def _check_folder(
    notes: _Notes, folder: Path, variable: str, needed_bytes: int
) -> None:
    """Note whether a folder can be written to, or made, and has room."""
    there = nearest(folder)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        notes.lack(
            f"{folder} cannot be written to",
            f"Set {variable} to a folder that you can write to.",
        )
        return
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < needed_bytes:
        notes.lack(
            f"{folder}: only {free_bytes >> 20} MiB are free, and "
            f"{needed_bytes >> 20} MiB are needed",
            f"Free some room, or point {variable} at a larger disk.",
        )
    else:
        notes.found.append(f"{folder}, {free_bytes >> 20} MiB free")


def _check_apt(notes: _Notes, etc_apt: Path) -> None:
    with notes.errors():
        notes.found.append(f"archive {find_archive(etc_apt).uri}")


def _free_memory_bytes(meminfo: Path) -> int | None:
    try:
        text = meminfo.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return None
