# ruff: noqa: UP036 -- it is for older Pythons
# SPDX-License-Identifier: GPL-2.0-or-later
"""Say clearly that Python is too old; runs on any Python 3."""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "vfio-p2p needs Python 3.11 or newer, this is "
        + sys.version.split()[0]
        + "\n  give one: make setup PYTHON=python3.11"
    )
