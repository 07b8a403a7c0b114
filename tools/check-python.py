# ruff: noqa: UP036 -- this script has to run on older versions
# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit with an error if Python is too old; runs on any Python 3."""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "vfio-p2p needs Python 3.11 or newer, and this is "
        + sys.version.split()[0]
        + "\n  Name another one, e.g. 'make setup PYTHON=python3.11'."
    )
