# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: bring it up, look at it, log in, take it down."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.errors import HostError, MissingToolError, UsageError
from vfio_p2p.lab.access import PACKAGE, keys_layer, ssh_command, write_access
from vfio_p2p.lab.image import LabImage, get_lab_image
from vfio_p2p.lab.machine import LOOPBACK, qemu_command
from vfio_p2p.lab.options import NAMES, LabOptions
from vfio_p2p.lab.process import end_processes, find_processes
from vfio_p2p.lab.ready import has_banner, set_clock, wait_ready
from vfio_p2p.lab.rundir import LabMachine, LabState, RunFolder
from vfio_p2p.machine.files import exclusive, remove_tree, room_for
from vfio_p2p.machine.process import bound
from vfio_p2p.progress import SILENT, Reporter, Task

# A loaded machine without KVM has needed more than a minute.
READY_LIMIT_S = 600.0

_PORT_TRIES = 5
_BANNER_S = 5.0
_NEEDED_BYTES = 512 << 20


@dataclass(frozen=True)
class Lab:
    """A lab that is up.

    :param run: The folder of its files.
    :param state: What it is like.
    :param started: Whether it was started just now.
    """

    run: RunFolder
    state: LabState
    started: bool


@dataclass(frozen=True)
class LabVm:
    """The state of one VM.

    :param name: Its name.
    :param pid: The PID of its QEMU; None if that does not run.
    :param ssh_port: The port of its SSH server on our loopback.
    :param answers: Whether the SSH server answers.
    :param console: The file with the output of its console.
    """

    name: str
    pid: int | None
    ssh_port: int | None
    answers: bool
    console: Path


@dataclass(frozen=True)
class LabStatus:
    """The state of the lab.

    :param run: The folder of its files.
    :param state: What it is like; None if no lab was started.
    :param machines: Its VMs.
    """

    run: RunFolder
    state: LabState | None
    machines: tuple[LabVm, ...]

    @property
    def up(self) -> bool:
        """Whether all its VMs can be used."""
        return bool(self.machines) and all(x.answers for x in self.machines)


def bring_up(options: LabOptions, reporter: Reporter = SILENT) -> Lab:
    """Start the lab, and wait until its VMs can be used.

    A lab that is up stays as it is.

    :param options: What it is to be like.
    :param reporter: Told of each step.
    :raise UsageError: When a lab with other options is up.
    :raise HostError: When a VM does not start.
    :raise BuildError: When a kernel module does not build.
    """
    run = RunFolder.of_user()
    task = reporter.task("lab")
    with exclusive(
        run.lock, lambda: task(0, 0, "waiting for another command")
    ):
        state = _running(run, options)
        started = state is None
        if state is None:
            image = get_lab_image(task)
            state = _start(run, image, options, task)
        try:
            _wait(run, state, task)
        except BaseException:
            # A lab of another command is left for somebody to look at.
            if started:
                _end_all(run)
            raise
    task.end("up")
    return Lab(run, state, started)


def _running(run: RunFolder, options: LabOptions) -> LabState | None:
    """Return the lab that is up; one that is up in part is taken down."""
    state = run.read()
    alive = [x for x in NAMES if find_processes(run.marker(x))]
    if state is None or set(alive) != {x.name for x in state.machines}:
        _end_all(run)
        return None
    if state.options != options:
        raise UsageError(
            "the lab is up with other options: "
            f"{described(state.options)}",
            "Take it down with 'vfio-p2p lab down' first, or ask for the "
            "same options.",
        )
    return state


def described(options: LabOptions) -> str:
    """Return the options as they are given to ``lab up``."""
    limit = options.memlock_kib
    return (
        f"--hosts {options.hosts} --card {options.card} "
        f"--memory-mib {options.memory_mib} "
        f"--memlock {'unlimited' if limit is None else limit} "
        f"--clock-offset-ms {options.clock_offset_ms}"
        f"{'' if options.labpf else ' --no-labpf'}"
    )


def _start(
    run: RunFolder, image: LabImage, options: LabOptions, task: Task
) -> LabState:
    for attempt in range(1, _PORT_TRIES + 1):
        remove_tree(run.path)
        run.path.mkdir(parents=True, mode=0o700)
        state = LabState(
            image=image.key, options=options, machines=free_machines(options)
        )
        task(0, 0, "keys")
        write_access(run, state)
        # It is there before the VMs are, so that they can be found again.
        run.write(state)
        try:
            for machine in state.machines:
                task(0, 0, f"starting {machine.name}")
                _start_one(run, image, state, machine)
        except _PortTakenError:
            _end_all(run)
            if attempt == _PORT_TRIES:
                raise
        except BaseException:
            _end_all(run)
            raise
        else:
            break
    return state


class _PortTakenError(HostError):
    """Another program took a port between our look and QEMU's."""


def free_machines(options: LabOptions) -> tuple[LabMachine, ...]:
    """Choose ports that nobody uses for the VMs of a lab.

    :param options: What the lab is to be like.
    """
    with ExitStack() as stack:

        def port(kind: socket.SocketKind) -> int:
            # All are held until each is chosen, so that none comes twice.
            free = stack.enter_context(socket.socket(socket.AF_INET, kind))
            free.bind((LOOPBACK, 0))
            return int(free.getsockname()[1])

        links = [port(socket.SOCK_DGRAM) for _ in NAMES]
        return tuple(
            LabMachine(
                name=name,
                ssh_port=port(socket.SOCK_STREAM),
                link_port=links[i],
                peer_port=links[1 - i],
            )
            for i, name in enumerate(options.names)
        )


def _start_one(
    run: RunFolder, image: LabImage, state: LabState, machine: LabMachine
) -> None:
    path = run.initramfs(machine.name)
    with room_for(path, _NEEDED_BYTES), path.open("wb") as file:
        with image.initramfs.open("rb") as base:
            shutil.copyfileobj(base, file, 1 << 20)
        file.write(keys_layer(run, machine.name))
    # QEMU's first process ends with us; the one that goes into the
    # background does not.
    done = subprocess.run(
        bound(qemu_command(image, state.options, machine, run)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    # QEMU has read it.
    path.unlink()
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        kind = HostError
        if "host forwarding rule" in done.stderr or "bind" in done.stderr:
            kind = _PortTakenError
        raise kind(
            f"QEMU does not start the VM {machine.name}: {lines[-1]}",
            "Run the command again, with less --memory-mib if memory is "
            "short.",
        )


def _wait(run: RunFolder, state: LabState, task: Task) -> None:
    for machine in state.machines:
        name = machine.name

        def waiting(passed_s: float, name: str = name) -> None:
            task(0, 0, f"waiting for {name}, {passed_s:.0f} s")

        wait_ready(run, machine, READY_LIMIT_S, waiting)
        # It is still there if we were killed before.
        run.initramfs(name).unlink(missing_ok=True)
    if state.ready:
        # Somebody may rely on the clocks.
        return
    for machine in state.machines:
        task(0, 0, f"the clock of {machine.name}")
        last = machine is state.machines[-1]
        ahead_ms = state.options.clock_offset_ms if last else 0
        set_clock(run, machine.name, ahead_ms)
    run.write(msgspec.structs.replace(state, ready=True))


def _end_all(run: RunFolder) -> int:
    return sum(end_processes(run.marker(name)) for name in NAMES)


def take_down() -> int:
    """End the VMs of the lab, and remove what belongs to them.

    :return: The number of VMs that were ended.
    :raise HostError: When one cannot be ended.
    """
    run = RunFolder.of_user()
    with exclusive(run.lock):
        ended = _end_all(run)
        remove_tree(run.path)
    return ended


def lab_status() -> LabStatus:
    """Look at the lab."""
    run = RunFolder.of_user()
    state = run.read()
    ports = {x.name: x.ssh_port for x in state.machines} if state else {}
    found = []
    for name in NAMES:
        pids = find_processes(run.marker(name))
        if not pids and name not in ports:
            continue
        port = ports.get(name)
        found.append(
            LabVm(
                name=name,
                pid=pids[0] if pids else None,
                ssh_port=port,
                answers=bool(pids and port and has_banner(port, _BANNER_S)),
                console=run.console(name),
            )
        )
    return LabStatus(run, state, tuple(found))


def lab_shell(name: str, command: Sequence[str] = ()) -> int:
    """Give the terminal to a shell, or to a command, on a VM as root.

    :param name: The name of the VM.
    :param command: What to run; nothing is a login.
    :return: The exit status of ssh, which is that of the command.
    :raise UsageError: When there is no such VM.
    :raise MissingToolError: When the machine has no OpenSSH client.
    """
    run = RunFolder.of_user()
    state = run.read()
    if state is None or name not in {x.name for x in state.machines}:
        raise UsageError(
            f"the lab has no VM {name} that is up",
            "Start the lab with 'vfio-p2p lab up', or 'vfio-p2p lab up "
            "--hosts 2' for two VMs.",
        )
    try:
        done = subprocess.run(
            bound(ssh_command(run, name, *command)), check=False
        )
    except FileNotFoundError as err:
        raise MissingToolError("ssh", PACKAGE) from err
    return done.returncode


