# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder that migrations are recorded into."""

from __future__ import annotations

import re
from pathlib import Path

from vfio_p2p.machine.files import remove_tree
from vfio_p2p.machine.temporary import temporary_folder

_NAME = re.compile(r"migration-\d{6,12}")


def next_bundle(out: Path) -> Path:
    """Return the folder of the next migration in a folder.

    :param out: The folder, which need not exist.
    """
    numbers = [int(x.name.partition("-")[2]) for x in _whole(out)]
    return out / f"migration-{max(numbers, default=0) + 1:06}"


def _whole(out: Path) -> list[Path]:
    if not out.is_dir():
        return []
    return sorted(x for x in out.iterdir() if _NAME.fullmatch(x.name))


def sweep(out: Path) -> None:
    """Remove what killed recordings have left in a folder.

    :param out: The folder, which need not exist; nobody records into it.
    """
    if out.is_dir():
        # Whoever makes one removes those that are left.
        with temporary_folder(out):
            pass


def prune(out: Path, keep: int) -> None:
    """Remove the oldest migrations from a folder.

    :param out: The folder.
    :param keep: How many to keep; 0 keeps all.
    """
    if keep:
        for path in _whole(out)[:-keep]:
            remove_tree(path)
