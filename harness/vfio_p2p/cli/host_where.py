# SPDX-License-Identifier: GPL-2.0-or-later
"""The options that say which hosts a command is about."""

from __future__ import annotations

import argparse
from pathlib import Path

from vfio_p2p.plans.host.where import Where


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add the options that `where` reads."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--at",
        metavar="NAME",
        default="",
        help="a host or pair of hosts.toml (default: this machine)",
    )
    place.add_argument(
        "--ssh",
        metavar="[USER@]HOST[:PORT]",
        default="",
        help="a machine that is reached by SSH",
    )
    parser.add_argument(
        "--hosts",
        type=Path,
        metavar="FILE",
        help="the file to use as hosts.toml (default: $VFIO_P2P_HOSTS, or "
        "the one in the user's configuration folder)",
    )


def add_driver(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the variant driver."""
    parser.add_argument(
        "--driver",
        default="",
        metavar="D",
        help="the variant driver, such as mlx5 (default: the one of "
        "hosts.toml, or one that fits)",
    )


def where(args: argparse.Namespace) -> Where:
    """Read the options of `add_where`."""
    return Where(args.at, args.ssh, args.hosts)
