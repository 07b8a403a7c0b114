# SPDX-License-Identifier: GPL-2.0-or-later
"""What several commands have in common."""

from __future__ import annotations

import argparse

from vfio_p2p.errors import UsageError

SEED = 42
# QEMU's -seed is an unsigned long, and SQLite's integers have a sign.
_SEEDS = 1 << 63


def positive(text: str) -> int:
    """An argument that is a number from 1."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1024:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number from 1 to 1024: {text}")


def seed(text: str) -> int:
    """An argument that is a seed."""
    if text.isascii() and text.isdigit() and int(text) < _SEEDS:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number from 0: {text}")


def add_seeds_argument(
    parser: argparse.ArgumentParser, default: int
) -> None:
    """Add the option that says how many seeds, for `seeds_of`.

    :param default: How many without it.
    """
    parser.add_argument(
        "--seeds",
        type=positive,
        default=default,
        metavar="N",
        help="runs of each, with seeds from --seed on (default: %(default)s)",
    )


def seeds_of(args: argparse.Namespace) -> range:
    """The seeds that the options ask for; one, where there is no --seeds.

    :param args: With the options of `add_seed_arguments`.
    :raise UsageError: When the last ones are too large.
    """
    found = range(args.seed, args.seed + getattr(args, "seeds", 1))
    if found.stop > _SEEDS:
        raise UsageError(
            f"--seed {args.seed} --seeds {args.seeds}: the last seed is too "
            "large",
            f"it may be {_SEEDS - 1}",
        )
    return found


def add_seed_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option that fixes what the scenario leaves open, and the one
    that doubts it.
    """
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
        help="run again what was run before, and see that it is the same "
        "to the byte",
    )
