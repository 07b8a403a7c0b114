# SPDX-License-Identifier: GPL-2.0-or-later
"""A companion and patch test harness for QEMU's VFIO live migration."""

import logging

# A library does not decide where its messages go; the command line does.
logging.getLogger(__name__).addHandler(logging.NullHandler())
