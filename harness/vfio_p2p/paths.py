# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are, and of what kind."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder of everything that can be made again; not created here."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Folder of what cannot be made again; not created here."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def _xdg(variable: str, default: str) -> Path:
    """A relative path is ignored, as the XDG base directory specification
    asks.
    """
    home = Path(os.environ.get(variable, ""))
    if not home.is_absolute():
        home = Path.home() / default
    return home / "vfio-p2p"


def is_special(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder.

    To open it may have effects: a pipe would be waited for, for ever.

    :param path: What a user names; of a link, what it leads to counts.
    """
    return path.exists() and not (path.is_file() or path.is_dir())
