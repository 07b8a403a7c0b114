# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep physical functions to ourselves for as long as stdin is open.

A session that runs QEMUs does this, so that nobody prepares or restores the
host at the same time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vfio_p2p.agent.arguments import AgentParser, add_who
from vfio_p2p.agent.failure import INPUT, AgentError
from vfio_p2p.agent.functions import checked_address, folder_of
from vfio_p2p.agent.locks import locked
from vfio_p2p.agent.main import show
from vfio_p2p.agent.roots import Roots


def run(arguments: Sequence[str], roots: Roots) -> None:
    """Take the locks, say so, and keep them until stdin ends.

    :param arguments: The physical functions; ``--who`` says for what.
    :param roots: Where the kernel's folders are.
    :raise AgentError: When a function is missing or taken.
    """
    parser = AgentParser("hold")
    add_who(parser)
    parser.add_argument("pfs", nargs="+")
    given = parser.parse_args(list(arguments))
    pfs = sorted({checked_address(x) for x in given.pfs})
    for pf in pfs:
        if not folder_of(roots, pf).exists():
            raise AgentError(
                f"there is no PCI function {pf}",
                "'vfio-p2p host list' prints those that are there.",
                INPUT,
            )
    with locked(roots, pfs):
        show({"held": pfs})
        while os.read(sys.stdin.fileno(), 4096):
            pass
