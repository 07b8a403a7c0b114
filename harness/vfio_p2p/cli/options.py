# SPDX-License-Identifier: GPL-2.0-or-later
"""The options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from vfio_p2p.choice import SEALED, VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.plans.setting import (
    OUT,
    SEED,
    SEED_LIMIT,
    Origin,
    Setting,
)
from vfio_p2p.scenario.load import profiles
from vfio_p2p.variant import QEMU, VARIANTS, is_named_binary

Commands: TypeAlias = (
    "argparse._SubParsersAction[argparse.ArgumentParser]"
)

_MANY = 1024


_HOUR_MS = 3_600_000


def positive(text: str) -> int:
    """Parse a number from 1."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MANY:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"not a number from 1 to {_MANY}: {text}"
    )


def milliseconds(text: str) -> float:
    """Parse a time of more than nothing, up to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value <= _HOUR_MS:
        return value
    raise argparse.ArgumentTypeError(
        f"not a number of milliseconds, above 0: {text}"
    )


def add_p2p_gate(parser: argparse.ArgumentParser) -> None:
    """Add the option that limits the time of P2P arcs."""
    parser.add_argument(
        "--fail-above-p2p",
        type=milliseconds,
        metavar="MS",
        help="fail a run in which a device takes longer than this for the "
        "arc into its P2P state, RUNNING>RUNNING_P2P or "
        "PRE_COPY>PRE_COPY_P2P, when the VM stops",
    )


def seed(text: str) -> int:
    """Parse a seed."""
    if text.isascii() and text.isdigit() and int(text) < SEED_LIMIT:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number from 0: {text}")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for one JSON document in place of text."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )


def add_origin(parser: argparse.ArgumentParser) -> None:
    """Add the options that `origin` reads."""
    parser.add_argument(
        "--base",
        metavar="B",
        help="the base whose patches are used; by default the one for the "
        "version of the source ('vfio-p2p series list' lists them)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR|TARBALL",
        help="a QEMU checkout, with its local changes, or a release; "
        "by default the tarball that Debian has",
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="look for a newer tarball in Debian even if one is cached",
    )


def add_qemu(
    parser: argparse._ActionsContainer, *, several: bool, more: str = ""
) -> None:
    """Add the option that names a QEMU as it is.

    :param parser: Gets it.
    :param several: Whether it may be repeated.
    :param more: What it means for a command besides.
    """
    parser.add_argument(
        "--qemu",
        action="append",
        default=[],
        type=_qemu,
        metavar="PATH|debian:VERSION",
        help="a QEMU that is run as it is: a binary, a build folder, the "
        "root of an unpacked system, or what Debian has built, by its "
        "version or its suite"
        + (more or ("; may be repeated" if several else "")),
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the machine type."""
    parser.add_argument(
        "--machine",
        metavar="M",
        help="the machine type of the VM, as 'qemu-system-x86_64 -machine "
        "help' lists them (default: that of the scenario; between two "
        "QEMUs, the newest pc-q35-VERSION that both have)",
    )


def _qemu(text: str) -> str:
    """Return the name of the variant that the option stands for."""
    return text if is_named_binary(text) else f"{QEMU}{text}"


def origin(args: argparse.Namespace) -> Origin:
    """Read the options of `add_origin`."""
    return Origin(args.base, args.source, args.refresh)


def no_request(args: argparse.Namespace) -> None:
    """The request of a command without arguments."""


def add_variants(parser: argparse._ActionsContainer) -> None:
    """Add the option that selects several variants."""
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="V",
        help=f"{VARIANTS}; may be repeated (default: base and patched)",
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where runs are made."""
    parser.add_argument(
        "--at",
        metavar="PLACE",
        default=SEALED,
        help="where the runs are made (default: %(default)s, the testbed in "
        "a VM, whose results are exact): a place of real devices has a name "
        "in hosts.toml",
    )


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where places are described."""
    parser.add_argument(
        "--hosts",
        type=Path,
        metavar="FILE",
        help="the file that describes places of real devices (default: "
        "$VFIO_P2P_HOSTS, or else ~/.config/vfio-p2p/hosts.toml)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option that says whose devices QEMU is given."""
    parser.add_argument(
        "--device",
        choices=[driver.value for driver in Driver],
        default=Driver.P2PSIM.value,
        help="the kernel module whose devices QEMU is given: p2psim, which "
        "is ours; mtty, Linux's sample driver, as an independent witness of "
        "the basic scenarios; or p2pvf, whose devices are PCI virtual "
        "functions behind an IOMMU (default: %(default)s)",
    )


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses the testbed's kernel."""
    parser.add_argument(
        "--kernel",
        type=VmKernel,
        choices=list(VmKernel),
        help="the kernel of the testbed's VM: Debian's, which need not be "
        "compiled; our own, with IOMMUFD and DMA logging; or the same with "
        "checks, which is slow (default: Debian's, and ours for scenarios "
        "that need it)",
    )


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where results are kept."""
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="keep each result that passes in this history, see "
        "'vfio-p2p history' (default: keep none)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of a single run, for `setting`."""
    add_place(parser)
    add_hosts(parser)
    add_device(parser)
    add_kernel(parser)
    parser.add_argument(
        "--boot",
        action="store_true",
        help="boot a VM for each run in the testbed, which takes three times "
        "as long as to go on from a snapshot; figures of the two differ",
    )
    parser.add_argument(
        "--profile",
        metavar="P",
        help="latencies of the devices, in place of those of the scenario: "
        f"{', '.join(profiles())}, or a file (profiles are models)",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=SEED,
        metavar="N",
        help="one seed is one sample (default: %(default)s)",
    )
    parser.add_argument(
        "--rerun",
        action="store_true",
        help="repeat runs that are in the cache, and require the same bytes",
    )
    add_history(parser)


def add_setting(
    parser: argparse.ArgumentParser, seeds: int | None = None
) -> None:
    """Add the options of many runs, for `setting`.

    :param seeds: The number of seeds by default; None adds no option for it.
    """
    add_run(parser)
    if seeds is not None:
        parser.add_argument(
            "--seeds",
            type=positive,
            metavar="N",
            help="the number of runs of each kind, with seeds from --seed on "
            f"(default: {seeds}, or the key 'repeat' of a place of real "
            "devices)",
        )
        parser.set_defaults(usual_seeds=seeds)
    parser.add_argument(
        "--jobs",
        type=positive,
        default=Setting().jobs,
        metavar="N",
        help="the number of runs at a time (default: one for each core)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="the folder for bundles and reports (default: %(default)s)",
    )


def setting(args: argparse.Namespace) -> Setting:
    """Read the options of `add_setting` or `add_run`."""
    return Setting(
        at=args.at,
        hosts=args.hosts,
        driver=Driver(args.device),
        boot=args.boot,
        kernel=args.kernel,
        profile=args.profile,
        seed=args.seed,
        seeds=_seeds(args),
        rerun=args.rerun,
        jobs=getattr(args, "jobs", Setting().jobs),
        out=args.out or OUT,
        history=args.history,
    )


def _seeds(args: argparse.Namespace) -> int:
    given: int | None = getattr(args, "seeds", None)
    if given is not None:
        return given
    usual: int = getattr(args, "usual_seeds", 1)
    if args.at == SEALED or not hasattr(args, "usual_seeds"):
        return usual
    # Only real devices need the file.
    from vfio_p2p.places.hosts.config import repeat_of

    return repeat_of(args.at, args.hosts) or usual


def add_database(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the history is."""
    parser.add_argument(
        "--db",
        type=Path,
        metavar="FILE",
        help="the file of the history (default: "
        "$XDG_STATE_HOME/vfio-p2p/history.sqlite3)",
    )
