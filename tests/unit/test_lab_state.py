# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab without a VM: its files, its processes and its commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vfio_p2p.cli import main
from vfio_p2p.errors import HostError
from vfio_p2p.lab.access import (
    hosts_toml,
    keys_layer,
    ssh_config,
    write_access,
)
from vfio_p2p.lab.image import LabImage
from vfio_p2p.lab.machine import kernel_arguments, qemu_command
from vfio_p2p.lab.options import NAMES, Card, LabOptions
from vfio_p2p.lab.process import end_processes, find_processes
from vfio_p2p.lab.ready import has_banner, wait_ready
from vfio_p2p.lab.rundir import LabMachine, LabState, RunFolder
from vfio_p2p.places.hosts.config import parse_hosts
from vfio_p2p.places.sealed.kit import Kit
from vfio_p2p.plans.lab import free_machines

needs_ssh = pytest.mark.skipif(
    shutil.which("ssh") is None, reason="no OpenSSH client on this machine"
)

MACHINES = (
    LabMachine(name="lab-a", ssh_port=2201, link_port=5501, peer_port=5502),
    LabMachine(name="lab-b", ssh_port=2202, link_port=5502, peer_port=5501),
)


def state(**changes: object) -> LabState:
    options = LabOptions(**changes)  # type: ignore[arg-type]
    return LabState(
        image="x", options=options, machines=MACHINES[: options.hosts]
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The folder of the user's lab, in a place that takes care to quote."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a %h b"))
    found = RunFolder.of_user()
    found.path.mkdir(parents=True)
    return found


def command(options: LabOptions, name: str = "lab-a") -> list[str]:
    image = LabImage("x", Path("/image"), Kit(Path("/kit"), {}))
    machine = MACHINES[NAMES.index(name)]
    return qemu_command(image, options, machine, RunFolder(Path("/run")))


def values(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, x in enumerate(argv) if x == option]


def test_one_vm_has_no_link() -> None:
    argv = command(LabOptions())
    (user,) = values(argv, "-netdev")
    # It is reached from this machine only, and reaches nothing.
    assert "hostfwd=tcp:127.0.0.1:2201-:22" in user
    assert "restrict=on" in user
    assert values(argv, "-m") == ["2048"]
    assert values(argv, "-pidfile") == ["/run/lab-a.pid"]


def test_two_vms_have_a_link() -> None:
    options = LabOptions(hosts=2)
    ends = [values(command(options, x), "-netdev")[1] for x in NAMES]
    assert "local.port=5501" in ends[0]
    assert "remote.port=5502" in ends[0]
    assert "local.port=5502" in ends[1]
    assert "remote.port=5501" in ends[1]
    assert all("host=127.0.0.1" in end for end in ends)


def test_no_address_is_used_twice() -> None:
    options = LabOptions(hosts=2)
    devices = [
        device
        for name in NAMES
        for device in values(command(options, name), "-device")
    ]
    macs = [x.partition("mac=")[2][:17] for x in devices if "mac=" in x]
    assert len(macs) == 8
    assert len(set(macs)) == 8


@pytest.mark.parametrize("card", list(Card))
def test_each_card_has_a_port(card: Card) -> None:
    devices = values(command(LabOptions(card=card)), "-device")
    cards = [x for x in devices if x.startswith(f"{card},")]
    assert [x.split(",")[1] for x in cards] == ["bus=port1", "bus=port2"]
    assert sum(x.startswith("pcie-root-port") for x in devices) == 2


def test_what_the_init_script_is_told() -> None:
    words = kernel_arguments(LabOptions(), "lab-a").split()
    assert "no_timer_check" in words
    assert "lab.memlock=unlimited" in words
    assert "lab.labpf=1" in words
    options = LabOptions(memlock_kib=8192, labpf=False, card=Card.NVME)
    words = kernel_arguments(options, "lab-b").split()
    assert {"lab.memlock=8192", "lab.labpf=0", "lab.card=nvme",
            "lab.name=lab-b", "lab.link=10.9.0.2/24"} <= set(words)


def test_ports_are_free_and_fit() -> None:
    first, second = free_machines(LabOptions(hosts=2))
    assert first.link_port == second.peer_port
    assert first.peer_port == second.link_port
    assert first.ssh_port != second.ssh_port
    assert first.link_port != second.link_port
    (alone,) = free_machines(LabOptions())
    assert alone.name == "lab-a"


def test_the_state_comes_back(run: RunFolder) -> None:
    assert run.read() is None
    written = state(hosts=2, card=Card.NVME, memlock_kib=64)
    run.write(written)
    assert run.read() == written


@pytest.mark.parametrize("text", ["", "{", '{"format": 2}', "[]"])
def test_a_state_that_is_unknown(run: RunFolder, text: str) -> None:
    (run.path / "state.json").write_text(text)
    assert run.read() is None


def test_a_newer_state(run: RunFolder) -> None:
    run.write(state())
    path = run.path / "state.json"
    path.write_text(path.read_text().replace('"format":1', '"format":2'))
    assert run.read() is None


@needs_ssh
def test_ssh_understands_its_configuration(run: RunFolder) -> None:
    run.ssh_config.write_text(ssh_config(run, state(hosts=2)))

    def asked(name: str) -> list[str]:
        return subprocess.run(
            ["ssh", "-G", "-F", run.ssh_config, name],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.splitlines()

    found = asked("lab-b")
    assert {"hostname 127.0.0.1", "port 2202", "user root",
            "batchmode yes", "stricthostkeychecking true"} <= set(found)
    assert "user ci" in asked("ci@lab-a")
    # Its tokens are expanded only when it is used.
    escaped = str(run.path).replace("%", "%%")
    assert f"identityfile {escaped}/key" in found


@needs_ssh
def test_keys(run: RunFolder) -> None:
    write_access(run, state(hosts=2))
    assert run.key.stat().st_mode & 0o777 == 0o600
    for machine in MACHINES:
        known = subprocess.run(
            ["ssh-keygen", "-F", f"[127.0.0.1]:{machine.ssh_port}",
             "-f", run.known_hosts],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        host_key = run.host_key(machine.name)
        public = host_key.with_name(f"{host_key.name}.pub").read_text()
        assert public.split()[1] in known
        layer = keys_layer(run, machine.name)
        assert host_key.read_bytes() in layer
        assert run.key.with_name("key.pub").read_bytes() in layer
        assert run.key.read_bytes() not in layer


def test_places(run: RunFolder) -> None:
    file = parse_hosts(hosts_toml(run, state()).encode(), run.hosts)
    assert file.places == ("lab-host",)
    host = file.host["lab-host"]
    assert host.ssh == "root@127.0.0.1:2201"
    assert host.known_hosts == str(run.known_hosts)
    assert host.source.most == 4
    file = parse_hosts(hosts_toml(run, state(hosts=2)).encode(), run.hosts)
    assert file.places == ("lab-host", "lab-pair", "lab-tls")
    pair = file.pair["lab-pair"]
    assert (pair.tls, file.pair["lab-tls"].tls) == (False, True)
    assert all(x.qemu.startswith("/usr/bin/") for x in file.host.values())
    assert file.host[pair.destination].ssh == "root@127.0.0.1:2202"
    assert pair.link.destination == "10.9.0.2"


_PROGRAM = """\
import signal, sys
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes with arguments of their own."""
    started = []

    def one(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield one
    for process in started:
        process.kill()
        process.communicate()


def test_only_the_lab_is_ended(run: RunFolder, start: Start) -> None:
    marker = run.marker("lab-a")
    ours = start(*marker)
    others = [
        start("-pidfile", f"{marker[1]}x"),
        start("-pidfile", "x", marker[1]),
        start(f"-pidfile {marker[1]}"),
    ]
    assert find_processes(marker) == [ours.pid]
    assert end_processes(marker) == 1
    assert ours.wait() == -signal.SIGTERM
    assert [x.poll() for x in others] == [None] * 3
    assert end_processes(marker) == 0


def test_a_marker_at_the_end_of_the_arguments(
    run: RunFolder, start: Start
) -> None:
    marker = run.marker("lab-a")
    assert find_processes(marker) == []
    pid = start("-daemonize", *marker).pid
    assert find_processes(marker) == [pid]


def test_a_stopped_process_is_ended(run: RunFolder, start: Start) -> None:
    process = start(*run.marker("lab-a"))
    process.send_signal(signal.SIGSTOP)
    assert end_processes(run.marker("lab-a")) == 1
    assert process.wait() == -signal.SIGTERM


def test_a_deaf_process_is_killed(run: RunFolder, start: Start) -> None:
    process = start("deaf", *run.marker("lab-a"))
    assert end_processes(run.marker("lab-a"), grace_s=0.1) == 1
    assert process.wait() == -signal.SIGKILL


@contextmanager
def server(said: bytes | None) -> Iterator[int]:
    """Serve connections one by one; None says nothing until it is over."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            with link:
                if said is None:
                    over.wait()
                else:
                    link.sendall(said)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@pytest.mark.parametrize(
    ("said", "found"),
    [(b"SSH-2.0-OpenSSH_9.2p1\r\n", True), (b"SSH-", True),
     (b"HTTP/1.1 400 Bad Request\r\n", False), (b"", False)],
)
def test_banner(said: bytes, found: bool) -> None:
    with server(said) as port:
        assert has_banner(port, 60) is found


def test_no_banner() -> None:
    with server(None) as port:
        assert not has_banner(port, 0.1)
    # Nobody listens there now.
    assert not has_banner(port, 0.1)


def test_a_vm_that_ends_is_not_waited_for(run: RunFolder) -> None:
    with pytest.raises(HostError, match="lab-a has ended") as caught:
        wait_ready(run, MACHINES[0], 600, lambda passed_s: None)
    assert str(run.console("lab-a")) in caught.value.hint


def test_a_panic_is_noticed(run: RunFolder, start: Start) -> None:
    start(*run.marker("lab-a"))
    run.console("lab-a").write_bytes(b"x\n[1] Kernel panic - not syncing: y")
    with pytest.raises(HostError, match="panicked"):
        wait_ready(run, MACHINES[0], 600, lambda passed_s: None)


def test_a_vm_that_does_not_answer(run: RunFolder, start: Start) -> None:
    start(*run.marker("lab-a"))
    with pytest.raises(HostError, match=r"lab-a did not answer within 0\.1"):
        wait_ready(run, MACHINES[0], 0.1, lambda passed_s: None)


def test_status_without_a_lab(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "status"]) == 4
    assert capsys.readouterr().out == "The lab is down.\n"
    assert main(["lab", "status", "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == 1
    assert document["up"] is False
    assert document["machines"] == []


def test_status_of_what_has_ended(
    run: RunFolder, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write(state(hosts=2))
    pid = start(*run.marker("lab-b")).pid
    assert main(["lab", "status"]) == 4
    out = capsys.readouterr().out
    assert "lab-a: ended\n" in out
    assert f"lab-b: does not answer, PID {pid}, SSH port 2202\n" in out


def test_status_of_a_lab_whose_folder_is_gone(
    run: RunFolder, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(*run.marker("lab-a"))
    shutil.rmtree(run.path)
    assert main(["lab", "status"]) == 4
    out = capsys.readouterr().out
    assert f"PID {process.pid}, SSH port unknown" in out
    assert main(["lab", "down"]) == 0
    assert capsys.readouterr().out == "1 VM was ended.\n"
    assert process.wait() == -signal.SIGTERM


def test_down_twice(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write(state())
    run.console("lab-a").touch()
    for _ in range(2):
        assert main(["lab", "down"]) == 0
        assert capsys.readouterr().out == "0 VMs were ended.\n"
        assert not run.path.exists()


def test_a_vm_that_the_lab_does_not_have(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write(state())
    assert main(["lab", "shell", "b"]) == 2
    assert "--hosts 2" in capsys.readouterr().err


def test_up_with_other_options(
    run: RunFolder, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write(state(memlock_kib=8192))
    process = start(*run.marker("lab-a"))
    assert main(["lab", "up"]) == 2
    err = capsys.readouterr().err
    assert "--memlock 8192" in err
    assert "vfio-p2p lab down" in err
    assert process.poll() is None
    assert run.read()


@pytest.mark.parametrize(
    "argv",
    [
        ["up", "--hosts", "3"],
        ["up", "--hosts", "0"],
        ["up", "--card", "mlx5"],
        ["up", "--memory-mib", "12"],
        ["up", "--memory-mib", "2G"],
        ["up", "--memlock", "-1"],
        ["up", "--memlock", "none"],
        ["up", "--clock-offset-ms", "1.5"],
        ["shell"],
        ["shell", "b", "--", "true"],
    ],
    ids=" ".join,
)
def test_bad_usage(
    run: RunFolder, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["lab", *argv])
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("vfio-p2p: ")
    assert os.listdir(run.path) == []
