# SPDX-License-Identifier: GPL-2.0-or-later
"""Wait until a VM of the lab can be used, and set its clock."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable

from vfio_p2p.clock import ClockOffset, Exchange, estimate
from vfio_p2p.errors import HostError, MissingToolError
from vfio_p2p.lab.access import PACKAGE, ssh_command
from vfio_p2p.lab.machine import LOOPBACK
from vfio_p2p.lab.process import find_processes
from vfio_p2p.lab.rundir import LabMachine, RunFolder
from vfio_p2p.machine.process import bound

_BANNER = b"SSH-2.0-"
_SHORT_S, _LONG_S = 3.0, 30.0
_PANIC = b"Kernel panic"
_EXCHANGES = 20
_SSH_LIMIT_S = 120.0

# It tells the time for each line, and sets the clock when it is told how far.
_CLOCK = """\
import sys, time
for line in sys.stdin:
    word = line.strip()
    if word:
        now = time.clock_gettime_ns(time.CLOCK_REALTIME)
        time.clock_settime_ns(time.CLOCK_REALTIME, now + int(word))
    print(time.time_ns(), flush=True)
"""


def wait_ready(
    run: RunFolder,
    machine: LabMachine,
    limit_s: float,
    waiting: Callable[[float], None],
) -> None:
    """Wait until a VM answers by SSH, with the host key that it was given.

    :param run: The folder of the lab.
    :param machine: The VM.
    :param limit_s: How long to wait.
    :param waiting: Called now and then with the seconds that have passed.
    :raise HostError: When the VM ends or does not answer.
    """
    started = time.monotonic()
    patience_s = _SHORT_S
    said = "no SSH server"
    while (passed_s := time.monotonic() - started) < limit_s:
        waiting(passed_s)
        _check_alive(run, machine.name)
        if not has_banner(machine.ssh_port, patience_s):
            # A server that is slow must get the time to answer, too.
            patience_s = min(2 * patience_s, _LONG_S)
            continue
        said = _log_in(run, machine.name)
        if said == machine.name:
            return
        time.sleep(1)
    raise HostError(
        f"the VM {machine.name} did not answer within {limit_s:g} s: {said}",
        f"Read its console: {run.console(machine.name)}",
    )


def has_banner(port: int, limit_s: float) -> bool:
    """Whether an SSH server answers on our loopback.

    The port alone proves nothing: QEMU takes the connection, whatever runs
    in the VM.

    :param port: The port.
    :param limit_s: How long to wait for its first words.
    """
    deadline = time.monotonic() + limit_s
    try:
        with socket.create_connection((LOOPBACK, port), limit_s) as link:
            got = link.recv(len(_BANNER))
            if got:
                return got.startswith(_BANNER[: len(got)])
    except OSError:
        pass
    # A connection may be refused at once.
    time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
    return False


def _check_alive(run: RunFolder, name: str) -> None:
    console = run.console(name)
    text = console.read_bytes() if console.exists() else b""
    if _PANIC in text:
        what = f"Linux panicked in the VM {name}"
    elif not find_processes(run.marker(name)):
        what = f"the VM {name} has ended"
    else:
        return
    raise HostError(what, f"Read its console: {console}")


def _log_in(run: RunFolder, name: str) -> str:
    """Return the VM's own name, or else what went wrong."""
    try:
        done = subprocess.run(
            bound(ssh_command(run, name, "hostname")),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SSH_LIMIT_S,
            check=False,
        )
    except FileNotFoundError as err:
        raise MissingToolError("ssh", PACKAGE) from err
    except subprocess.TimeoutExpired:
        return "SSH did not end"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else "SSH printed nothing"


def set_clock(run: RunFolder, name: str, ahead_ms: int) -> ClockOffset:
    """Set the clock of a VM by ours.

    :param run: The folder of the lab.
    :param name: The name of the VM.
    :param ahead_ms: How far its clock shall be ahead of ours.
    :return: How far it was ahead before.
    :raise HostError: When that does not work.
    """
    code = _CLOCK.replace("'", "'\\''")
    process = subprocess.Popen(
        bound(ssh_command(run, name, f"python3 -c '{code}'")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        found: list[Exchange] = []
        for step in range(_EXCHANGES + 2):
            asked_ns = time.time_ns()
            line = ""
            if step == _EXCHANGES:
                before = estimate(found, via="SSH")
                line = f"{ahead_ms * 1_000_000 - before.offset_ns}"
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            told = process.stdout.readline()
            found.append(Exchange(asked_ns, int(told), time.time_ns()))
    except (OSError, ValueError) as err:
        raise HostError(
            f"the clock of the VM {name} cannot be set: {err}",
            f"Read its console: {run.console(name)}",
        ) from err
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()
    return before
