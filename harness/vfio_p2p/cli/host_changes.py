# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p host prepare`` and ``host restore``: change hosts, and back."""

from __future__ import annotations

import argparse
import re

import msgspec

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.cli.host_where import add_driver, add_where, where
from vfio_p2p.errors import UsageError
from vfio_p2p.plans.host.preparing import (
    PreparedHost,
    PrepareRequest,
    RestoredHost,
    RestoreRequest,
    prepare_hosts,
    restore_hosts,
)
from vfio_p2p.trace import printable

FORMAT = 1

_ADDRESS = re.compile(
    r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE
)
_CAP = re.compile(r"([a-z0-9_]+)=([a-z0-9_]+)")


def add_parsers(actions: options.Commands) -> None:
    """Add the actions ``prepare`` and ``restore``."""
    _add_prepare(actions)
    _add_restore(actions)


def _add_prepare(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "prepare",
        help="give virtual functions to their variant driver",
        description="Make virtual functions, or take those that are there, "
        "and bind them to a variant driver of vfio-pci. Root does it on the "
        "host. Each change is noted there before it is made, so that 'host "
        "restore' can put everything back, even if this command is killed. "
        "A preparation that fails puts back what it did; one that is "
        "repeated changes nothing. Kernel modules that are loaded for it "
        "stay.",
        epilog="Exit codes: 2 for what cannot be done on this host, 4 if "
        "something is in use or taken, and by whom. A function that carries "
        "the SSH connection or the default route is refused.",
    )
    add_where(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--pf",
        type=_address,
        metavar="ADDRESS",
        help="the physical function whose virtual ones are wanted (default: "
        "what hosts.toml says)",
    )
    which.add_argument(
        "--vf",
        type=_address,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a virtual function that is there; may be repeated",
    )
    parser.add_argument(
        "--count",
        type=options.positive,
        metavar="N",
        help="the number of virtual functions of --pf",
    )
    add_driver(parser)
    parser.add_argument(
        "--owner",
        default="",
        metavar="USER",
        help="the user of the host who may open the functions (default: the "
        "one as whom the host is reached)",
    )
    parser.add_argument(
        "--eswitch",
        choices=["legacy", "switchdev"],
        help="the mode of the card's switch (default: what the driver needs)",
    )
    parser.add_argument(
        "--port-cap",
        type=_cap,
        action="append",
        default=[],
        metavar="CAP=VALUE",
        help="a port function cap such as migratable=enable, in addition to "
        "those that the driver needs; may be repeated",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="take virtual functions that other drivers use, and change the "
        "number of those that are there. 'host restore' makes them again, "
        "with their drivers; their network settings are lost",
    )
    options.add_json(parser)
    parser.set_defaults(request=_prepare_request, run=_prepare)


def _add_restore(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "restore",
        help="put hosts back as they were before 'prepare'",
        description="Undo all that 'host prepare' did, in the opposite "
        "order, from the notes that it left on the host. It may be repeated "
        "at any time, also after an interruption. It does nothing, and the "
        "exit code is 4, while a process has one of the functions open or "
        "holds the physical function.",
    )
    add_where(parser)
    parser.add_argument(
        "--pf",
        type=_address,
        metavar="ADDRESS",
        help="put back this physical function only (default: all)",
    )
    options.add_json(parser)
    parser.set_defaults(
        request=lambda x: RestoreRequest(where(x), x.pf or ""), run=_restore
    )


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"not a PCI address such as 0000:01:00.0: {text}"
        )
    address = text.lower()
    # As lspci prints it where there is one domain.
    return address if address.count(":") == 2 else f"0000:{address}"


def _cap(text: str) -> tuple[str, str]:
    found = _CAP.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"not a cap such as migratable=enable: {text}"
        )
    return found[1], found[2]


def _prepare_request(args: argparse.Namespace) -> PrepareRequest:
    if bool(args.pf) is not (args.count is not None):
        raise UsageError(
            "--pf and --count belong together",
            "Give both, or --vf, or neither for what hosts.toml says.",
        )
    return PrepareRequest(
        where=where(args),
        pf=args.pf or "",
        count=args.count,
        vfs=tuple(dict.fromkeys(args.vf)),
        driver=args.driver,
        owner=args.owner,
        eswitch=args.eswitch,
        port_caps=tuple(args.port_cap),
        replace=args.replace,
    )


def _prepare(wanted: PrepareRequest, context: Context) -> int:
    hosts = prepare_hosts(wanted)
    if context.json:
        context.show_json({
            "format": FORMAT,
            "kind": "vfio-p2p host prepare",
            "hosts": msgspec.to_builtins(hosts),
        })
        return 0
    for host in hosts:
        for line in _prepared(host):
            context.show(printable(line))
    context.show(
        f"'vfio-p2p host restore{wanted.where.options}' puts everything back."
    )
    return 0


def _prepared(host: PreparedHost) -> list[str]:
    lines = []
    if host.recovered:
        lines.append(
            f"{host.name}: {_changes(host.recovered)} of an unfinished "
            "preparation undone first"
        )
    lines += [f"{host.name}: module {x} loaded; it stays" for x in host.loaded]
    lines += [f"{host.name}: {x.address} is {x.path}" for x in host.vfs]
    if not host.changed:
        lines.append(f"{host.name}: it was ready before; nothing changed")
    return lines


def _restore(wanted: RestoreRequest, context: Context) -> int:
    hosts = restore_hosts(wanted)
    if context.json:
        context.show_json({
            "format": FORMAT,
            "kind": "vfio-p2p host restore",
            "hosts": msgspec.to_builtins(hosts),
        })
        return 0
    for host in hosts:
        context.show(printable(f"{host.name}: {_restored(host)}"))
    return 0


def _restored(host: RestoredHost) -> str:
    if host.dropped:
        return (
            "the notes were of an earlier boot, which undid everything; "
            "they are removed"
        )
    if not host.undone:
        return "there is nothing to undo"
    return f"{_changes(host.undone)} undone"


def _changes(count: int) -> str:
    return "1 change" if count == 1 else f"{count} changes"
