# SPDX-License-Identifier: GPL-2.0-or-later
"""Child processes that never outlive us."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vfio_p2p.errors import HostError, MissingToolError
from vfio_p2p.machine.confined import check_program, without_network
from vfio_p2p.machine.session import kill_session, session_members

# setpriv arms the signal and then becomes this shell. A parent that died
# before that would never be noticed: no signal comes, and the child has been
# given to another process. The shell asks who its parent is only after the
# signal was armed, so either the answer differs or the signal comes.
_IF_PARENT_LIVES = '[ "$PPID" = "$1" ] || exit 127; shift; exec "$@"'


def bound(
    argv: Sequence[str | Path],
    signum: signal.Signals = signal.SIGKILL,
    *,
    path: str | None = None,
) -> list[str]:
    """Return a command line whose process dies when we die.

    The process is the program itself, under the PID that `subprocess`
    returns. The kernel ends the process with the *thread* that
    started it, so start it from a thread that lives as long as the child
    shall (prctl(2)). The command line is for children of the calling
    process only.

    :param argv: Program and arguments.
    :param signum: The signal that the child gets when we die.
    :param path: The child's ``PATH``, if it differs from ours.
    :raise MissingToolError: When setpriv is missing.
    :raise FileNotFoundError: When the program is not in ``PATH``, as
                              `subprocess` would report.
    """
    # By its whole path, since the child's PATH may lack it.
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise MissingToolError("setpriv", "util-linux")
    program, *arguments = map(str, argv)
    check_program(program, path)
    return [
        setpriv, "--pdeathsig", signum.name.removeprefix("SIG"),
        "/bin/sh", "-c", _IF_PARENT_LIVES, "sh", str(os.getpid()),
        program, *arguments,
    ]


def end_session(process: subprocess.Popen[bytes], grace_s: float = 3) -> None:
    """End the leader of a session and all its other processes.

    :param process: Started with ``start_new_session=True``.
    :param grace_s: Time for the leader to end by itself upon SIGTERM.
    """
    if process.returncode is not None:
        return
    # The leader is reaped last: until then, its PID, which is the number
    # of the session, cannot be given to another process.
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while process.pid in session_members(process.pid):
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    while kill_session(process.pid, led=True):
        time.sleep(0.01)
    process.wait()


@contextmanager
def owned(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    network: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child in a session of its own, which ends with this block.

    The child's stdout is a pipe that takes its stderr as well; its stdin
    is empty. If we are killed, the child gets SIGTERM, upon which ninja
    ends its own children.

    :param argv: Program and arguments.
    :param cwd: The child's working directory.
    :param env: The child's whole environment.
    :param pass_fds: File descriptors that the child inherits.
    :param network: Whether the child may have a network; see
                    `without_network`.
    :raise MissingToolError: When setpriv is missing.
    :raise FileNotFoundError: When the program is missing.
    """
    command = bound(argv, signal.SIGTERM, path=env.get("PATH", os.defpath))
    process = subprocess.Popen(
        # The signal has to be armed within: a new user namespace disarms it.
        command if network else without_network(command),
        cwd=cwd,
        env=env,
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end_session(process)
        if process.stdout:
            process.stdout.close()


def run_tool(argv: Sequence[str], package: str, hint: str) -> None:
    """Run a program to its end; it dies when we die.

    :param argv: Program and arguments.
    :param package: The Debian package that has the program.
    :param hint: What the user can do if it fails.
    :raise MissingToolError: When there is no such program.
    :raise HostError: When it fails; the message has its last line.
    """
    try:
        done = subprocess.run(
            bound(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as err:
        raise MissingToolError(argv[0], package) from err
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["it printed nothing"]
        raise HostError(f"{Path(argv[0]).name} failed: {lines[-1]}", hint)
