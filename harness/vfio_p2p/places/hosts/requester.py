# SPDX-License-Identifier: GPL-2.0-or-later
"""On whose behalf hosts are used, for those who want to use them as well."""

from __future__ import annotations

import getpass
import os
import socket
import sys

import vfio_p2p
from vfio_p2p.trace import printable

# A message shows no more than one line of it.
_SHOWN = 100


def requester() -> str:
    """Return the command that this process runs, the user, and the machine.

    An example is ``vfio-p2p run two-devices --at box of alice on ci7``.
    """
    command = " ".join([_program(), *sys.argv[1:]])
    if len(command) > _SHOWN:
        command = f"{command[:_SHOWN]}..."
    return printable(f"{command} of {_user()} on {socket.gethostname()}")


def _program() -> str:
    path = os.path.abspath(sys.argv[0])
    if os.path.dirname(path) == os.path.dirname(vfio_p2p.__file__):
        return "vfio-p2p"  # python -m vfio_p2p
    return os.path.basename(path)


def _user() -> str:
    try:
        return getpass.getuser()
    # A container may have no name for its user.
    except (KeyError, OSError):
        return f"user {os.getuid()}"
