# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p lab``: virtual machines that are like hosts with SR-IOV."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from shlex import quote

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.lab.options import NAMES, Card, LabOptions
from vfio_p2p.plans.lab import (
    Lab,
    LabStatus,
    bring_up,
    described,
    lab_shell,
    lab_status,
    take_down,
)

_MEMORY_MIB = range(1024, (64 << 10) + 1)
_CLOCK_MS = range(-3_600_000, 3_600_001)
_MEMLOCK_KIB = range(64, (1 << 30) + 1)
_UNLIMITED = "unlimited"
_LETTERS = [name.rpartition("-")[2] for name in NAMES]
_DOWN = 4


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``lab``."""
    parser = commands.add_parser(
        "lab",
        help=summary,
        description="Virtual machines that are like hosts with SR-IOV "
        "devices, for trying out what works on real hosts. They need "
        "neither root nor KVM, and nothing of them is installed.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_up(actions)
    status = actions.add_parser(
        "status",
        help="say what is up",
        description="Say what is up. The exit code is 0 if the lab can be "
        "used, and 4 if it cannot.",
    )
    options.add_json(status)
    status.set_defaults(request=options.no_request, run=_status)
    shell = actions.add_parser(
        "shell",
        help="log in as root, or run a command as root",
        description="Log in to a VM as root by SSH, or run a command there. "
        "The exit code is that of the command; 255 is an error of SSH.",
    )
    shell.add_argument(
        "argv",
        nargs="*",
        metavar="[a|b] [-- COMMAND]",
        help="the VM (default: a), and a command with its arguments; as with "
        "ssh, the VM's shell reads them",
    )
    shell.set_defaults(request=_shell_request, run=_shell)
    down = actions.add_parser(
        "down",
        help="end it",
        description="End the VMs, and remove their keys and files.",
    )
    down.set_defaults(request=options.no_request, run=_down)


def _add_up(actions: options.Commands) -> None:
    defaults = LabOptions()
    up = actions.add_parser(
        "up",
        help="start it, and wait until it can be used",
        description="Start one or two VMs in the background, and wait until "
        "they answer by SSH. The first time, 220 MB of packages are "
        "downloaded. If the lab is up already, it stays as it is.",
    )
    up.add_argument(
        "--hosts",
        type=int,
        choices=(1, 2),
        default=defaults.hosts,
        help="the number of VMs (default: %(default)s)",
    )
    up.add_argument(
        "--card",
        choices=[card.value for card in Card],
        default=defaults.card.value,
        help="the devices that have virtual functions, of which each VM has "
        "two (default: %(default)s)",
    )
    up.add_argument(
        "--memory-mib",
        type=lambda text: _number(text, _MEMORY_MIB),
        default=defaults.memory_mib,
        metavar="N",
        help="the memory of each VM (default: %(default)s)",
    )
    up.add_argument(
        "--memlock",
        type=_memlock,
        default=None,
        metavar="KIB",
        help="the memory that a process of an ordinary user may lock, "
        "which a VM with vfio-pci devices needs (default: unlimited)",
    )
    up.add_argument(
        "--clock-offset-ms",
        type=lambda text: _number(text, _CLOCK_MS),
        default=defaults.clock_offset_ms,
        metavar="N",
        help="how far the clock of the last VM is ahead of this machine's "
        "(default: %(default)s)",
    )
    up.add_argument(
        "--no-labpf",
        action="store_true",
        help="leave out the module labpf, by which the devices have devlink",
    )
    up.add_argument(
        "--no-iommu",
        action="store_true",
        help="boot without an IOMMU, to see what is said of such a host",
    )
    up.set_defaults(request=_up_request, run=_up)


def _number(text: str, allowed: range) -> int:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and int(text) in allowed:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"not a number from {allowed[0]} to {allowed[-1]}: {text}"
    )


def _memlock(text: str) -> int | None:
    return None if text == _UNLIMITED else _number(text, _MEMLOCK_KIB)


def _up_request(args: argparse.Namespace) -> LabOptions:
    return LabOptions(
        hosts=args.hosts,
        card=Card(args.card),
        memory_mib=args.memory_mib,
        memlock_kib=args.memlock,
        clock_offset_ms=args.clock_offset_ms,
        labpf=not args.no_labpf,
        iommu=not args.no_iommu,
    )


def _up(wanted: LabOptions, context: Context) -> int:
    with context.reporter() as reporter:
        lab = bring_up(wanted, reporter)
    context.show(_next_steps(lab))
    return 0


def _next_steps(lab: Lab) -> str:
    names = [machine.name for machine in lab.state.machines]
    already = "" if lab.started else "already "
    verb = "is" if len(names) == 1 else "are"
    shells = {"vfio-p2p lab shell": f"a shell on {names[0]}, as root"}
    if len(names) > 1:
        shells["vfio-p2p lab shell b"] = f"a shell on {names[1]}, as root"
    config, hosts = map(quote, (str(lab.run.ssh_config), str(lab.run.hosts)))
    steps = shells | {
        f"ssh -F {config} ci@{names[0]}": "the same as the user ci",
        f"export VFIO_P2P_HOSTS={hosts}": "places for other commands",
        "vfio-p2p lab down": "the end of it",
    }
    lines = [f"{' and '.join(names)} {verb} {already}up."]
    for step, what in steps.items():
        lines += [f"  # {what}", f"  {step}"]
    return "\n".join(lines)


def _status(wanted: None, context: Context) -> int:
    status = lab_status()
    if context.json:
        context.show_json(_document(status))
    else:
        context.show(_text(status))
    return 0 if status.up else _DOWN


def _document(status: LabStatus) -> dict[str, object]:
    return {
        "format": 1,
        "up": status.up,
        "folder": str(status.run.path),
        "options": described(status.state.options) if status.state else None,
        "machines": [
            {
                "name": machine.name,
                "pid": machine.pid,
                "ssh_port": machine.ssh_port,
                "answers": machine.answers,
                "console": str(machine.console),
            }
            for machine in status.machines
        ],
    }


def _text(status: LabStatus) -> str:
    if not status.machines:
        return "The lab is down."
    lines = []
    for machine in status.machines:
        if machine.pid is None:
            lines.append(f"{machine.name}: ended")
            continue
        state = "up" if machine.answers else "does not answer"
        lines.append(
            f"{machine.name}: {state}, PID {machine.pid}, "
            f"SSH port {machine.ssh_port or 'unknown'}"
        )
    if status.state:
        lines.append(f"options: {described(status.state.options)}")
    lines.append(f"folder: {status.run.path}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _ShellRequest:
    name: str
    argv: tuple[str, ...]


def _shell_request(args: argparse.Namespace) -> _ShellRequest:
    letter, words = _LETTERS[0], list(args.argv)
    if words and words[0] in _LETTERS:
        letter = words.pop(0)
    return _ShellRequest(f"lab-{letter}", tuple(words))


def _shell(wanted: _ShellRequest, context: Context) -> int:
    return lab_shell(wanted.name, wanted.argv)


def _down(wanted: None, context: Context) -> int:
    ended = take_down()
    plural = "VM was" if ended == 1 else "VMs were"
    context.show(f"{ended} {plural} ended.")
    return 0
