# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p host``: look at machines with real devices."""

from __future__ import annotations

import argparse

import msgspec

from vfio_p2p.cli import host_changes, options
from vfio_p2p.cli.context import Context
from vfio_p2p.cli.host_text import check_lines, host_lines
from vfio_p2p.cli.host_where import add_driver, add_where, where
from vfio_p2p.devices.vf.check import exit_code
from vfio_p2p.devices.vf.wanted import COUNT, RAM_MIB
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.host.checking import HostCheckRequest, check_hosts
from vfio_p2p.plans.host.listing import HostListRequest, list_hosts
from vfio_p2p.trace import printable

FORMAT = 1


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``host``."""
    parser = commands.add_parser(
        "host",
        help=summary,
        description="Look at machines with real devices, and set them up.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_list(actions)
    _add_check(actions)
    host_changes.add_parsers(actions)


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--probe",
        action="store_true",
        help="open the devices that nobody uses, and ask their drivers how "
        "they migrate; this enables and resets the devices",
    )


def _add_list(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "list",
        help="list the functions that are virtual or can have virtual ones",
        description="List the PCI functions that are virtual, can have "
        "virtual ones, or belong to VFIO, and say what you may do with them. "
        "Nothing is changed. The exit code is 4 if there are none.",
    )
    add_where(parser)
    _add_probe(parser)
    options.add_json(parser)
    parser.set_defaults(
        request=lambda x: HostListRequest(where(x), x.probe), run=_list
    )


def _add_check(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "check",
        help="check whether everything is there that a migration needs",
        description="Check whether hosts have what a migration of virtual "
        "functions needs. Each line says what is, what is wanted, and the "
        "command that mends it. The exit code is 0 if all is well, 2 if "
        "something is wrong, and 4 if there is nothing to test on. What "
        "is not known is not wrong.",
    )
    add_where(parser)
    add_driver(parser)
    parser.add_argument(
        "--pf",
        default="",
        metavar="ADDRESS",
        help="the physical function (default: the ones of hosts.toml, or "
        "the one that needs the least to be done)",
    )
    parser.add_argument(
        "--vfs",
        type=options.positive,
        metavar="N",
        help="the number of virtual functions: of each side that hosts.toml "
        "names, or else on the host (default: as in hosts.toml, or "
        f"{COUNT})",
    )
    parser.add_argument(
        "--ram-mib",
        type=_ram_mib,
        default=RAM_MIB,
        metavar="N",
        help="the memory of a guest, which must be locked (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--qemu",
        action="append",
        default=[],
        metavar="PATH",
        help="a QEMU that shall run there; may be repeated",
    )
    _add_probe(parser)
    options.add_json(parser)
    parser.set_defaults(request=_check_request, run=_check)


def _ram_mib(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1 << 24:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number of MiB: {text}")


def _check_request(args: argparse.Namespace) -> HostCheckRequest:
    return HostCheckRequest(
        where=where(args),
        driver=args.driver,
        pf=args.pf,
        vfs=args.vfs,
        ram_mib=args.ram_mib,
        qemus=tuple(args.qemu),
        probe=args.probe,
    )


def _list(wanted: HostListRequest, context: Context) -> int:
    listed = list_hosts(wanted)
    if context.json:
        context.show_json({
            "format": FORMAT,
            "kind": "vfio-p2p host list",
            "hosts": [
                {
                    "name": x.name,
                    "inventory": msgspec.to_builtins(x.inventory),
                }
                for x in listed
            ],
        })
    else:
        for host in listed:
            for line in host_lines(host):
                context.show(printable(line))
    found = any(x.inventory.functions for x in listed)
    return (Verdict.PASS if found else Verdict.SKIP).exit_code


def _check(wanted: HostCheckRequest, context: Context) -> int:
    lines = check_hosts(wanted)
    if context.json:
        context.show_json({
            "format": FORMAT,
            "kind": "vfio-p2p host check",
            "able": exit_code(lines) == 0,
            "lines": [
                {
                    "host": x.host,
                    "subject": x.subject,
                    "ok": x.ok,
                    "is": x.is_,
                    "wanted": x.wanted,
                    "mend": x.mend,
                }
                for x in lines
            ],
        })
    else:
        for line in check_lines(lines):
            context.show(printable(line))
    return exit_code(lines)
