# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process: started, spoken to, ended, on every path.

QMP runs over one end of a socket pair, so there is no path to clean up and
no moment at which the socket is not there yet.  A QEMU that goes away is
seen as the end of that socket, and its exit status and stderr then say why.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Sequence
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

# What the oracle reads; patterns, because a name that a version of QEMU
# does not know makes it complain on stderr, and a pattern does not.
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
)

TRACE_LOG = "trace.log"
TRANSCRIPT = "qmp.jsonl"
STDERR = "stderr.txt"

# From the end of its QMP session to the end of a QEMU that goes away.
_EXIT_S = 5.0

# From one look at what is left of a killed one to the next.
_KILL_S = 0.01


# After these come a stack or a register dump.
_DEATHS = ("hardware error: ", "ssertion ")


def _last_words(stderr: str) -> str:
    """The line that says why a QEMU is gone; empty if there is none."""
    lines = stderr.strip().splitlines()
    told = [line for line in lines if any(x in line for x in _DEATHS)]
    return next(iter([*told[-1:], *lines[-1:]]), "")


class Qemu:
    """One QEMU process of one side; use it as an async context manager.

    :param side: "source" or "destination".
    :param argv: Program and its arguments; those for QMP, tracing and
        messages are added.
    :param directory: Existing folder for what it leaves: ``trace.log``,
        ``qmp.jsonl``, ``stderr.txt``.
    """

    def __init__(
        self, side: str, argv: Sequence[str], directory: Path
    ) -> None:
        self.side = side
        self.directory = directory
        self._argv = tuple(argv)
        self._process: asyncio.subprocess.Process | None = None
        self._qmp: TranscribedClient | None = None
        self._transcript: IO[str] | None = None
        self.events = EventListener()

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def running(self) -> bool:
        """True from its start to its end."""
        return self._process is not None and self.status is None

    @property
    def statuses(self) -> list[str]:
        """Statuses of its migrations, as far as its events told them."""
        told = []
        for event in self.events.history:
            match event:
                case {"event": "MIGRATION", "data": {"status": str(status)}}:
                    told.append(status)
        return told

    def stderr(self) -> str:
        """What it has written to stderr so far, undecodable bytes shown."""
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
        """Time limit on one step.

        :param name: What the step is called in messages.
        :param limit_s: Its limit in seconds.
        :raise StepTimeoutError: When the step takes longer.
        """
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise StepTimeoutError(self.side, name, limit_s) from None

    async def start(self, limit_s: float) -> None:
        """Start it and negotiate QMP.

        :param limit_s: Limit in seconds, until QMP answers.
        :raise LaunchError: When it ends before that.
        :raise ConnectionLostError: When what it says is not QMP.
        :raise StepTimeoutError: When it takes longer.
        """
        ours, theirs = socket.socketpair()
        with theirs, (self.directory / STDERR).open("wb") as stderr:
            argv = (
                *self._argv,
                *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}"),
                *("-mon", "chardev=qmp,mode=control"),
                *("-msg", "timestamp=on"),
                *("-D", str(self.directory / TRACE_LOG)),
                *(
                    word
                    for event in TRACE_EVENTS
                    for word in ("-trace", event)
                ),
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

    async def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        limit_s: float,
    ) -> Any:
        """Run one QMP command.

        :param command: Its name.
        :param arguments: Its arguments.
        :param limit_s: Limit in seconds.
        :return: What it returned.
        :raise CommandError: When QEMU answers with an error.
        :raise ConnectionLostError: When QEMU goes away, or what it says
            is not QMP.
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
        """Say why the connection went away; waits for the exit status."""
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
            # SIGKILL is somebody else's work.
            crashed=(self.status or 0) < 0 and self.status != -signal.SIGKILL,
        )

    async def next_event(self, step: str) -> dict[str, Any]:
        """Wait for its next QMP event; limits are the caller's.

        :param step: What is waited for, for the message.
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
            # It tells their cancellation from ours, which must not be lost.
            await asyncio.gather(gone, event, return_exceptions=True)

    @staticmethod
    async def _gone(qmp: TranscribedClient) -> None:
        # Not the end of the process: that may be seen before the last
        # events that it sent.
        while qmp.runstate is Runstate.RUNNING:
            await qmp.runstate_changed()

    def _session(self, step: str) -> TranscribedClient:
        """Its QMP session, unless it was killed."""
        if self._qmp is None:
            raise ConnectionLostError(self.side, f"no QEMU for {step}")
        return self._qmp

    async def check_alive(self, step: str) -> None:
        """Notice a QEMU that went away while nothing was asked of it.

        :param step: What is waited for, for the message.
        :raise ConnectionLostError: When it is gone.
        """
        if self._session(step).runstate is not Runstate.RUNNING:
            raise await self._lost(step)

    async def quit(self, limit_s: float) -> None:
        """End it by QMP's ``quit``, as a user would.

        :param limit_s: Limit in seconds, until the process is gone.
        :raise ConnectionLostError: When it is gone already, or dies of a
            signal.
        :raise StepTimeoutError: When it takes longer.
        """
        step = "exit after quit"
        await self.execute("quit", limit_s=limit_s)
        await self.ended(step, limit_s)
        if (self.status or 0) < 0:
            raise await self._lost(step)

    async def ended(self, step: str, limit_s: float) -> None:
        """Wait for the end of the process.

        :param step: Why it ends, for messages.
        :param limit_s: Limit in seconds.
        :raise StepTimeoutError: When it takes longer.
        """
        assert self._process
        async with self.step(step, limit_s):
            await self._process.wait()

    async def kill(self) -> None:
        """End it if it still runs, and whatever it started; idempotent."""
        if self._process:
            led = self._process.returncode is None
            while kill_session(self._process.pid, led=led):
                await asyncio.sleep(_KILL_S)
            await self._process.wait()
        if self._qmp:
            # What ended the session was reported where it was met; it can
            # be anything that the reader raised.
            with suppress(Exception):
                await self._qmp.disconnect()
            self._qmp = None
        if self._transcript:
            self._transcript.close()
            self._transcript = None

