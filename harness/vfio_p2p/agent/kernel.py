# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes the kernel's state, without ever hanging in a change.

A write to sysfs sleeps in the kernel as long as a process holds the device,
and not even SIGKILL ends it. So a child writes, and we wait for it no longer
than a limit. The child holds our locks: as long as it writes, no other agent
changes the same functions, even if we are killed.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vfio_p2p.agent.failure import HOST, INPUT, SKIP, AgentError
from vfio_p2p.agent.roots import Roots

# Firmware that makes many VFs, or changes the mode of its switch, is slow.
LIMIT_S = 120.0

# When a change takes longer, somebody may be using the device.
DOUBT_S = 5.0

_KILLED_S = 1.0
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class BlockedError(AgentError):
    """A change waits in the kernel, perhaps for a device that is in use."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep signals that would end us waiting until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def nobody() -> str:
    """Name no process."""
    return ""


class Kernel:
    """The kernel's files, and the programs that change its state.

    :param roots: Where the kernel's folders and root's programs are.
    :param limit_s: How long a change may take.
    :param doubt_s: After this time, a change is given up if a process holds
        the device.
    """

    def __init__(
        self,
        roots: Roots,
        limit_s: float = LIMIT_S,
        doubt_s: float = DOUBT_S,
    ) -> None:
        self.roots = roots
        self.locks: tuple[int, ...] = ()
        self.limit_s = limit_s
        self.doubt_s = doubt_s

    def program(self, name: str) -> str:
        """Return the path of one of root's programs; "" if it is missing."""
        paths = (f"{folder}/{name}" for folder in self.roots.tools)
        return next((x for x in paths if os.access(x, os.X_OK)), "")

    def write(
        self,
        path: Path,
        text: str,
        holders: Callable[[], str] = nobody,
    ) -> None:
        """Write to a file of the kernel.

        :param path: The file.
        :param text: What is written, at once.
        :param holders: Names the processes that hold the device.
        :raise OSError: When the kernel refuses.
        :raise BlockedError: When the kernel waits for a device in use.
        """
        reader, writer = os.pipe()
        try:
            child = os.fork()
            if child == 0:
                _write_and_exit(path, text.encode(), writer)
        finally:
            os.close(writer)
        try:
            if not self._answers(reader, holders):
                # It may sleep where no signal reaches it, so it is not
                # waited for.
                os.kill(child, signal.SIGKILL)
                raise self._blocked(str(path), holders())
            answer = os.read(reader, 16)
        finally:
            os.close(reader)
        os.waitpid(child, 0)
        code = int(answer) if answer else errno.EINTR
        if code:
            raise OSError(code, os.strerror(code), str(path))

    def _answers(self, fd: int, holders: Callable[[], str]) -> bool:
        """Wait for an answer; False if there will be none in time."""
        begin_s = time.monotonic()
        while not select.select([fd], [], [], min(self.doubt_s, 1))[0]:
            passed_s = time.monotonic() - begin_s
            if passed_s >= self.limit_s:
                return False
            if passed_s >= self.doubt_s and holders():
                return False
        return True

    def _blocked(self, what: str, holders: str) -> BlockedError:
        if holders:
            return BlockedError(
                f"{what}: the kernel waits for {holders}",
                "End that process, then run 'vfio-p2p host restore'.",
                SKIP,
            )
        return BlockedError(
            f"{what}: not done after {self.limit_s:g} s",
            "Read the kernel's messages (dmesg), and when the device "
            "answers again run 'vfio-p2p host restore'.",
        )

    def devlink_path(self) -> str:
        """Return the path of devlink.

        :raise AgentError: When it is missing.
        """
        path = self.program("devlink")
        if not path:
            raise AgentError(
                "devlink is missing on the host",
                "Install iproute2 6.2 or later there.",
                INPUT,
            )
        return path

    def devlink(self, *arguments: str) -> None:
        """Change something with devlink.

        :raise AgentError: When it is missing or fails.
        """
        status, said = self._call([self.devlink_path(), *arguments])
        if status == 0:
            return
        hint = "Read the kernel's messages (dmesg) on the host."
        code = HOST
        if "Unknown option" in said:
            hint = (
                "This devlink is too old: install iproute2 6.2 or later on "
                "the host."
            )
            code = INPUT
        raise AgentError(f"devlink {' '.join(arguments)}: {said}", hint, code)

    def modprobe(self, name: str) -> str:
        """Load a module.

        :return: Why it cannot be loaded, or "".
        """
        path = self.program("modprobe")
        if not path:
            return "modprobe is missing"
        status, said = self._call([path, "--", name])
        return (said or f"exit status {status}") if status else ""

    def _call(self, argv: list[str]) -> tuple[int, str]:
        """Run a program; return its exit status, and all that it said."""
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self.locks,
            start_new_session=True,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
        try:
            said, _ = process.communicate(timeout=self.limit_s)
        except subprocess.TimeoutExpired as err:
            process.kill()
            # It may sleep where no signal reaches it, as above.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_KILLED_S)
            if process.stdout:
                process.stdout.close()
            raise self._blocked(" ".join(argv), "") from err
        text = " ".join(said.decode(errors="replace").split())
        return process.returncode, text


def _write_and_exit(path: Path, data: bytes, writer: int) -> None:
    """Write in a child and end it; say the number of the error."""
    code = errno.EINTR
    try:
        # Who reads our output must not wait for a write that sleeps, and a
        # Ctrl-C that is meant for us shall not reach the child.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.setsid()
        fd = os.open(path, os.O_WRONLY)
        os.write(fd, data)
        code = 0
    except OSError as err:
        code = err.errno or errno.EIO
    finally:
        try:
            os.write(writer, str(code).encode())
        finally:
            os._exit(0)
