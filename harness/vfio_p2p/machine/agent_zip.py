# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as one file that any Python 3.9 can run."""

from __future__ import annotations

import io
import zipfile

from vfio_p2p.resources import resource

_START = b"""\
import sys

from vfio_p2p.agent.main import main

sys.exit(main(sys.argv[1:]))
"""
# The first time that a zip file can express. No clock is read, so that the
# same sources give the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def agent_zip() -> bytes:
    """Return the agent, to be run as ``python3 FILE COMMAND``.

    The same sources give the same bytes.
    """
    # The package's own __init__ is empty here: the agent needs nothing of
    # it.
    members = {"__main__.py": _START, "vfio_p2p/__init__.py": b""}
    for path in resource("agent").glob("*.py"):
        members[f"vfio_p2p/agent/{path.name}"] = path.read_bytes()
    file = io.BytesIO()
    # zlib's versions compress differently.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    return file.getvalue()
