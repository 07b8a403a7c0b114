# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m harness`` is `vfio-p2p`."""

import sys

from harness.cli import main

sys.exit(main())
