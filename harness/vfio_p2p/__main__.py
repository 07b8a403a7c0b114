# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the command line as ``python -m vfio_p2p``."""

import sys

from vfio_p2p.cli.entry import main

sys.exit(main())
