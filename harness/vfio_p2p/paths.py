# SPDX-License-Identifier: GPL-2.0-or-later
"""The folders of the cache and of the state, and kinds of files."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from vfio_p2p.errors import UsageError


def cache_dir() -> Path:
    """Return the folder of everything that can be made again.

    The folder is not created here.

    :raise UsageError: When neither the environment nor the system says
                       where the user's files are.
    """
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Return the folder of what cannot be made again, such as histories.

    The folder is not created here.

    :raise UsageError: When neither the environment nor the system says
                       where the user's files are.
    """
    return _xdg("XDG_STATE_HOME", ".local/state")


def config_dir() -> Path:
    """Return the folder of what the user wrote for us.

    The folder is not created here.

    :raise UsageError: When neither the environment nor the system says
                       where the user's files are.
    """
    return _xdg("XDG_CONFIG_HOME", ".config")


def _xdg(variable: str, default: str) -> Path:
    # A relative path is ignored, as the XDG base directory specification
    # requires.
    folder = Path(os.environ.get(variable, ""))
    if not folder.is_absolute():
        folder = _home(variable) / default
    return folder / "vfio-p2p"


def _home(variable: str) -> Path:
    home = Path(os.environ.get("HOME", ""))
    if home.is_absolute():
        return home
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError as error:
        raise UsageError(
            f"user {os.getuid()} has no home folder",
            f"Set {variable} to a folder that you can write to.",
        ) from error


def is_special(path: Path) -> bool:
    """Tell whether a path names neither a file nor a folder.

    Opening it may have effects: a pipe, for example, would be waited for
    forever.

    :param path: A path that a user gave. Links are followed.
    """
    return path.exists() and not (path.is_file() or path.is_dir())
