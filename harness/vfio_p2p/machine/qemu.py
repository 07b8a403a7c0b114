# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process: start it, talk to it, and end it on every way out.

QMP runs over one end of a socket pair, so there is no path to clean up, and
no moment at which the socket does not exist yet.  When QEMU goes away, the
socket is closed, and QEMU's exit status and stderr then say why.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecuteError,
    QMPError,
    Runstate,
)

from vfio_p2p.machine.errors import (
    CommandError,
    ConnectionLostError,
    LaunchError,
    StepTimeoutError,
)
from vfio_p2p.machine.qmp import TranscribedClient
from vfio_p2p.machine.session import kill_session
from vfio_p2p.tells import Tells

# The trace events that the oracle reads.  They are patterns because QEMU
# complains on stderr about a name that it does not know, but not about a
# pattern that matches nothing.
TRACE_EVENTS = (
    "vfio_migration_*",
    "vfio_vmstate_change*",
    "vfio_save_*",
    "vfio_load_*",
    "vfio_state_pending*",
    "vm_state_notify",
    "migrate_set_state",
    "migration_completion_vm_stop",
    "migrate_fd_cleanup*",
    "migration_cleanup*",
    "savevm_state_cleanup",
    "vmstate_downtime_*",
    "process_incoming_migration_co_end*",
    "migration_bitmap_sync_end",
)

TRACE_LOG = "trace.log"
TRANSCRIPT = "qmp.jsonl"
STDERR = "stderr.txt"
# How far the wall clock is ahead of the clock of `Tells.SIMPLE`, in
# nanoseconds.
CLOCK = "clock.txt"
_CLOCK_LOOKS = 16

# How long a QEMU whose QMP session has ended may take to exit.
_EXIT_S = 5.0

# The pause between two looks at the remaining processes of a killed QEMU.
_KILL_S = 0.01


# A message with one of these is followed by a stack or a register dump.
_DEATHS = ("hardware error: ", "ssertion ")


def _ahead_ns() -> int:
    """Return how far the wall clock is ahead of the monotonic clock."""
    found = []
    for _ in range(_CLOCK_LOOKS):
        before = time.monotonic_ns()
        now = time.time_ns()
        after = time.monotonic_ns()
        found.append((after - before, now - (before + after) // 2))
    return min(found)[1]


def _last_words(stderr: str) -> str:
    """Find the line that says why QEMU ended; empty if there is none."""
    lines = stderr.strip().splitlines()
    told = [line for line in lines if any(x in line for x in _DEATHS)]
    return next(iter([*told[-1:], *lines[-1:]]), "")


class Qemu:
    """One QEMU process; use it as an async context manager.

    When the context is left, the process and its children have ended.  If
    this process is killed, only a program that was made by
    `vfio_p2p.machine.process.bound` ends with it.  In the testbed's VM that
    is not needed, since the VM ends with this process.

    :param side: The name of the QEMU, e.g. "source" or "destination-2".
    :param argv: The program and its arguments; the options for QMP, tracing
        and messages are added.
    :param directory: An existing folder for the files ``trace.log``,
        ``qmp.jsonl`` and ``stderr.txt``.
    :param tells: How it tells of its migrations.
    """

    def __init__(
        self,
        side: str,
        argv: Sequence[str],
        directory: Path,
        tells: Tells = Tells.LOG,
    ) -> None:
        self.side = side
        self.tells = tells
        self.directory = directory
        self._argv = tuple(argv)
        self._process: asyncio.subprocess.Process | None = None
        self._qmp: TranscribedClient | None = None
        self._transcript: IO[str] | None = None
        self.events = EventListener()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while QEMU runs."""
        return self._process.returncode if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self.status is None

    @property
    def statuses(self) -> list[str]:
        """The statuses of all its migrations that QMP has reported."""
        told = []
        for event in self.events.history:
            match event:
                case {"event": "MIGRATION", "data": {"status": str(status)}}:
                    told.append(status)
        return told

    def stderr(self) -> str:
        """Read what QEMU has written to stderr, undecodable bytes escaped."""
        with suppress(FileNotFoundError):
            return (self.directory / STDERR).read_text(
                errors="backslashreplace"
            )
        return ""

    async def __aenter__(self) -> Qemu:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.kill()

    @asynccontextmanager
    async def step(self, name: str, limit_s: float) -> AsyncIterator[None]:
        """Set a time limit for one step.

        :param name: The name of the step, for messages.
        :param limit_s: The limit in seconds.
        :raise StepTimeoutError: When the step takes longer.
        """
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise StepTimeoutError(self.side, name, limit_s) from None

    async def start(self, limit_s: float) -> None:
        """Start QEMU and negotiate QMP.

        :param limit_s: The limit in seconds, until QMP answers.
        :raise LaunchError: When QEMU ends before that.
        :raise ConnectionLostError: When QEMU does not speak QMP.
        :raise StepTimeoutError: When it takes longer.
        """
        ours, theirs = socket.socketpair()
        with theirs, (self.directory / STDERR).open("wb") as stderr:
            argv = (
                *self._argv,
                *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}"),
                *("-mon", "chardev=qmp,mode=control"),
                *("-msg", "timestamp=on"),
                *self._tracing(),
            )
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException as err:
                ours.close()
                if not isinstance(err, OSError):
                    raise
                raise LaunchError(
                    self.side, f"{argv[0]}: {err.strerror}", None
                ) from err
        self._transcript = (self.directory / TRANSCRIPT).open("w")
        self._qmp = TranscribedClient(self.side, self._transcript)
        self._qmp.register_listener(self.events)
        async with self.step("start", limit_s):
            try:
                await self._qmp.connect(ours)
            except ConnectError as err:
                lost = await self._lost("start")
                if self.status is None:
                    raise lost from err
                raise LaunchError(
                    self.side, self.stderr(), self.status
                ) from None

    def _tracing(self) -> Iterator[str]:
        """Yield the options for the trace."""
        path = str(self.directory / TRACE_LOG)
        if self.tells is Tells.LOG:
            yield from ("-D", path)
        if self.tells is not Tells.EVENTS:
            for event in TRACE_EVENTS:
                yield from ("-trace", event)
        if self.tells is Tells.SIMPLE:
            (self.directory / CLOCK).write_text(f"{_ahead_ns()}\n")
            # Any -trace after it would take the file away.
            yield from ("-trace", f"file={path}")

    async def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        limit_s: float,
    ) -> Any:
        """Run one QMP command.

        :param command: The name of the command.
        :param arguments: Its arguments.
        :param limit_s: The limit in seconds.
        :return: The value that the command returned.
        :raise CommandError: When QEMU answers with an error.
        :raise ConnectionLostError: When QEMU goes away, or does not speak
            QMP.
        :raise StepTimeoutError: When it takes longer.
        """
        qmp = self._session(command)
        async with self.step(command, limit_s):
            try:
                return await qmp.execute(command, arguments)
            except ExecuteError as err:
                raise CommandError(
                    self.side, f"{command}: {err.error.error.desc}"
                ) from err
            except QMPError as err:
                raise await self._lost(command) from err

    async def _lost(self, step: str) -> ConnectionLostError:
        """Wait for the exit status, and say why the connection was lost."""
        assert self._process
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_S):
                await self._process.wait()
        if self.status is None:
            what = f"QMP broke down in {step}, QEMU still runs"
        elif self.status < 0:
            name = signal.Signals(-self.status).name
            what = f"QEMU went away in {step} (killed by {name})"
        else:
            what = f"QEMU went away in {step} (exit status {self.status})"
        said = _last_words(self.stderr())
        return ConnectionLostError(
            self.side,
            f"{what}: {said}" if said else what,
            # Somebody else sent SIGKILL; QEMU did not crash.
            crashed=(self.status or 0) < 0 and self.status != -signal.SIGKILL,
        )

    async def next_event(self, step: str) -> dict[str, Any]:
        """Wait for the next QMP event; the caller sets the time limit.

        :param step: The name of the step, for messages.
        :raise ConnectionLostError: When QEMU goes away before.
        """
        gone = asyncio.ensure_future(self._gone(self._session(step)))
        event = asyncio.ensure_future(self.events.get())
        try:
            await asyncio.wait(
                (gone, event), return_when=asyncio.FIRST_COMPLETED
            )
            if event.done():
                return dict(event.result())
            raise await self._lost(step)
        finally:
            gone.cancel()
            event.cancel()
            # This awaits their cancellation, and still raises ours, which
            # must not be lost.
            await asyncio.gather(gone, event, return_exceptions=True)

    @staticmethod
    async def _gone(qmp: TranscribedClient) -> None:
        # This does not wait for the end of the process, which may be
        # noticed before the last events that it sent.
        while qmp.runstate is Runstate.RUNNING:
            await qmp.runstate_changed()

    def _session(self, step: str) -> TranscribedClient:
        """Return the QMP session, unless QEMU was killed."""
        if self._qmp is None:
            raise ConnectionLostError(self.side, f"no QEMU for {step}")
        return self._qmp

    async def check_alive(self, step: str) -> None:
        """Check that QEMU is still there, without a command.

        :param step: The name of the step, for messages.
        :raise ConnectionLostError: When QEMU has gone away.
        """
        if self._session(step).runstate is not Runstate.RUNNING:
            raise await self._lost(step)

    async def quit(self, limit_s: float) -> None:
        """End QEMU with QMP's ``quit``, as a user would.

        A QEMU that exits by itself meanwhile has ended as well: so does a
        destination whose source has just quit.

        :param limit_s: The limit in seconds, until the process has ended.
        :raise ConnectionLostError: When QEMU breaks the connection and goes
            on, or dies of a signal.
        :raise StepTimeoutError: When it takes longer.
        """
        step = "exit after quit"
        try:
            await self.execute("quit", limit_s=limit_s)
        except ConnectionLostError:
            if self.status is None:
                raise
        await self.ended(step, limit_s)
        if (self.status or 0) < 0:
            raise await self._lost(step)

    async def ended(self, step: str, limit_s: float) -> None:
        """Wait for the end of the process.

        :param step: The name of the step, for messages.
        :param limit_s: The limit in seconds.
        :raise StepTimeoutError: When it takes longer.
        """
        assert self._process
        async with self.step(step, limit_s):
            await self._process.wait()

    async def kill(self) -> None:
        """Kill QEMU and its children if they still run; idempotent."""
        if self._process:
            led = self._process.returncode is None
            while kill_session(self._process.pid, led=led):
                await asyncio.sleep(_KILL_S)
            await self._process.wait()
        if self._qmp:
            # The error that ended the session was reported where it occurred.
            # It can be anything that the reader raised.
            with suppress(Exception):
                await self._qmp.disconnect()
            self._qmp = None
        if self._transcript:
            self._transcript.close()
            self._transcript = None

