# SPDX-License-Identifier: GPL-2.0-or-later
"""The files with which SSH, and vfio-p2p itself, reach the VMs of a lab."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import tomli_w

from vfio_p2p.errors import HostError, MissingToolError
from vfio_p2p.lab.machine import LINK, LOOPBACK
from vfio_p2p.lab.options import NAMES
from vfio_p2p.lab.rundir import LabMachine, LabState, RunFolder
from vfio_p2p.machine.files import write_whole
from vfio_p2p.machine.process import bound
from vfio_p2p.places.sealed.cpio import Layer

PACKAGE = "openssh-client"

_COUNT = 4
_DRIVER = "p2pvf"
# Debian's, a part of the image.
_QEMU = "/usr/bin/qemu-system-x86_64"
_PFS = ("0000:01:00.0", "0000:02:00.0")

_SSH_CONFIG = """\
Host {name}
    HostName {address}
    Port {port}
    User root
    IdentityFile {key}
    IdentitiesOnly yes
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    BatchMode yes
"""


def write_access(run: RunFolder, state: LabState) -> None:
    """Make all keys and files for a new lab.

    :param run: The folder of the lab.
    :param state: What the lab is like.
    :raise MissingToolError: When the machine has no OpenSSH client.
    """
    _generate(run.key, "vfio-p2p lab")
    known = []
    for machine in state.machines:
        key = run.host_key(machine.name)
        _generate(key, machine.name)
        kind, text = _public(key).split()[:2]
        known.append(f"[{LOOPBACK}]:{machine.ssh_port} {kind} {text}\n")
    write_whole(run.known_hosts, "".join(known).encode())
    write_whole(run.ssh_config, ssh_config(run, state).encode())
    write_whole(run.hosts, hosts_toml(run, state).encode())


def ssh_config(run: RunFolder, state: LabState) -> str:
    """Return the SSH configuration; the user is root unless one is given.

    :param run: The folder of the lab.
    :param state: What the lab is like.
    """
    return "\n".join(
        _SSH_CONFIG.format(
            name=machine.name,
            address=LOOPBACK,
            port=machine.ssh_port,
            key=_quoted(run.key),
            known_hosts=_quoted(run.known_hosts),
        )
        for machine in state.machines
    )


def _quoted(path: Path) -> str:
    # ssh takes a word after a percent sign for a token.
    return '"' + str(path).replace("%", "%%") + '"'


def hosts_toml(run: RunFolder, state: LabState) -> str:
    """Return the description of the VMs as places.

    :param run: The folder of the lab.
    :param state: What the lab is like.
    """
    first = state.machines[0]
    both = {
        side: {"pf": pf, "count": _COUNT}
        for side, pf in zip(("source", "destination"), _PFS, strict=True)
    }
    tree: dict[str, Any] = {
        "format": 1,
        "host": {"lab-host": _host(run, first) | both},
    }
    if len(state.machines) > 1:
        for machine in state.machines:
            tree["host"][machine.name] = _host(run, machine) | {
                "source": both["source"]
            }
        pair = {
            "source": NAMES[0],
            "destination": NAMES[1],
            "link": {
                "source": LINK[NAMES[0]],
                "destination": LINK[NAMES[1]],
            },
        }
        tree["pair"] = {"lab-pair": pair, "lab-tls": pair | {"tls": True}}
    return tomli_w.dumps(tree)


def _host(run: RunFolder, machine: LabMachine) -> dict[str, Any]:
    return {
        "ssh": f"root@{LOOPBACK}:{machine.ssh_port}",
        "ssh_config": str(run.ssh_config),
        "known_hosts": str(run.known_hosts),
        "identity": str(run.key),
        "qemu": _QEMU,
        "driver": _DRIVER,
    }


def keys_layer(run: RunFolder, name: str) -> bytes:
    """Return the archive that gives a VM its keys.

    :param run: The folder of the lab.
    :param name: The name of the VM.
    """
    layer = Layer()
    layer.add("etc/lab/authorized_keys", _public(run.key).encode())
    host_key = run.host_key(name)
    layer.add("etc/ssh/ssh_host_ed25519_key", host_key.read_bytes())
    layer.add(
        "etc/ssh/ssh_host_ed25519_key.pub", _public(host_key).encode()
    )
    return layer.to_bytes()


def ssh_command(run: RunFolder, name: str, *command: str) -> list[str]:
    """Return a command line of ssh, as root on a VM.

    :param run: The folder of the lab.
    :param name: The name of the VM.
    :param command: What the VM's shell shall run; nothing is a login.
    """
    return ["ssh", "-F", str(run.ssh_config), name, *command]


def _public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text()


def _generate(path: Path, comment: str) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment]
    try:
        done = subprocess.run(
            bound([*argv, "-f", str(path)]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as err:
        raise MissingToolError("ssh-keygen", PACKAGE) from err
    if done.returncode:
        raise HostError(
            f"ssh-keygen failed: {done.stdout.strip()}",
            "Run it by hand to see why: "
            f"ssh-keygen -t ed25519 -f {path}.",
        )
