# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder in which QEMU is compiled, kept from build to build.

From one variant to the next, only the files that differ are written. ninja
goes by time stamps, and so compiles only what depends on those files.

``tree.json`` says what the folder holds. It is removed while a build runs,
and written again at the end. If it is missing, for example after a kill, the
state of the folder is unknown, and everything is made anew.
"""

from __future__ import annotations

import bz2
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.errors import BuildError
from vfio_p2p.foreign import read_listing
from vfio_p2p.machine.files import remove_tree, write_whole
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.job import BuildJob
from vfio_p2p.qemu.ninja import run_logged
from vfio_p2p.qemu.recipe import DEVICE_LIST
from vfio_p2p.qemu.source import identity

BINARY = "qemu-system-x86_64"
STATE = "tree.json"

_HAS_VALGRIND = b"cc.has_header('valgrind/valgrind.h')"

# For a tree, a build and the staged binary (QEMU 10.0: 140 + 150 + 20 MiB).
FRESH_BYTES = 1 << 30
AGAIN_BYTES = 128 << 20


@dataclass(frozen=True)
class WorkTree:
    """A folder to compile in; it is used under a lock.

    :param home: Holds ``tree/``, ``build/`` and ``tree.json``.
    """

    home: Path

    @property
    def lock(self) -> Path:
        """The file of the lock under which it is used."""
        return self.home.with_name(f"{self.home.name}.lock")

    @property
    def _state(self) -> Path:
        return self.home / STATE

    @property
    def needed_bytes(self) -> int:
        """The room that the next build needs."""
        return AGAIN_BYTES if self._state.exists() else FRESH_BYTES

    def compile(
        self, job: BuildJob, log: Path, lock: int, progress: Progress
    ) -> Path:
        """Compile a job.

        :param job: The job; its `BuildJob.work_key` is that of this folder.
        :param log: The file to which the output of the tools is appended.
        :param lock: The descriptor of the lock, which the tools inherit.
        :return: The binary, not stripped.
        :raise BuildError: When a tool fails.
        """
        state = self._take_state()
        if not state:
            progress(0, 0, "copying the source")
        self._sync(job, state)
        build = self.home / "build"
        if not build.exists():
            progress(0, 0, "configuring")
            build.mkdir()
            run_logged(
                [
                    "../tree/configure",
                    f"--python={job.toolchain.python}",
                    # assert() puts paths into the binary, and its bytes
                    # must not depend on where the cache is.
                    f"--extra-cflags=-ffile-prefix-map={self.home}/=",
                    *job.arguments,
                ],
                build, log, lock, progress,
            )
        try:
            progress(0, 0, "compiling")
            run_logged(["ninja", BINARY], build, log, lock, progress)
        except BuildError:
            # ninja ended by itself, and so knows what it has not made.
            self._put_state(state)
            raise
        self._put_state(state)
        return build / BINARY

    def _take_state(self) -> dict[str, str]:
        """Return the identities of the files in ``tree/`` by their paths.

        The result is empty if the state of the folder is unknown.
        """
        state = read_listing(self._state)
        if state is None:
            remove_tree(self.home)
            return {}
        self._state.unlink()
        return state

    def _put_state(self, state: Mapping[str, str]) -> None:
        write_whole(self._state, msgspec.json.encode(state))

    def _sync(self, job: BuildJob, state: dict[str, str]) -> None:
        """Bring the tree to the state that the job asks for.

        :param state: The state of the tree, which is updated.
        """
        tree = self.home / "tree"
        added = _additions(job)
        wanted = dict(job.source.files)
        for path, data in added.items():
            if data is None:
                del wanted[path]
            else:
                # Patches change no modes.
                kind = job.source.kind_of(path) or "f"
                wanted[path] = identity(kind, data)
        for path in state.keys() - wanted.keys():
            (tree / path).unlink()
            # A file may take the place of a folder.
            with suppress(OSError):
                os.removedirs((tree / path).parent)
        for path, ident in wanted.items():
            if state.get(path) == ident:
                continue
            data = added.get(path)
            if data is None:
                data = job.source.read(path)
            _write(tree / path, ident[0], data)
        state.clear()
        state.update(wanted)


def _additions(job: BuildJob) -> dict[str, bytes | None]:
    """Return the overlay, with the other files that our builds change."""
    files = dict(job.overlay)
    files[f"configs/devices/x86_64-softmmu/{DEVICE_LIST}.mak"] = (
        job.device_list
    )
    # Debian's tarball lacks these images, and meson looks for them: for the
    # first if bzip2 is installed, for the others (10.1 and later) if dtc is
    # not. They are not part of our builds.
    for folder, pattern, suffix, data in (
        ("pc-bios", r"'(edk2-[\w-]+\.fd)'", ".bz2", bz2.compress(b"")),
        ("pc-bios/dtb", r"'([\w-]+\.dtb)'", "", b""),
    ):
        recipe = f"{folder}/meson.build"
        if recipe not in job.source.files:
            continue
        text = job.source.read(recipe).decode(errors="replace")
        for name in re.findall(pattern, text):
            path = f"{folder}/{name}{suffix}"
            if path not in job.source.files:
                files[path] = data
    # If valgrind's header is installed, coroutines tell valgrind of their
    # stacks, which changes the binary and the blackout.
    top = "meson.build"
    data = files.get(top) or job.source.read(top)
    files[top] = data.replace(_HAS_VALGRIND, b"false")
    return files


def _write(path: Path, kind: str, data: bytes) -> None:
    if kind == "l" or path.is_symlink():
        path.unlink(missing_ok=True)
    if kind == "l":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.fsdecode(data))
    else:
        write_whole(path, data, 0o777 if kind == "x" else 0o666)
