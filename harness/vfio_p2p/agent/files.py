# SPDX-License-Identifier: GPL-2.0-or-later
"""Small files of sysfs and procfs, any of which may be missing or closed."""

from __future__ import annotations

import os
from pathlib import Path


def text(path: Path) -> str:
    """Return the text of a file; "" if it cannot be read."""
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Return the number in a file; None if there is none."""
    try:
        return int(text(path), 0)
    except ValueError:
        return None


def flag(path: Path) -> bool | None:
    """Return whether the number in a file is not 0; None if unknown."""
    found = number(path)
    return None if found is None else bool(found)


def target(path: Path) -> str:
    """Return the last part of where a link points to; "" if it is none."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def names(path: Path) -> list[str]:
    """Return the names in a folder, in order; none if it cannot be read."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
