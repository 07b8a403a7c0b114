# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the agent as ``python3 -m vfio_p2p.agent``."""

import sys

from vfio_p2p.agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
