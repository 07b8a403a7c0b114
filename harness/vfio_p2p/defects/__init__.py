# SPDX-License-Identifier: GPL-2.0-or-later
"""The defects that the suite found in QEMU, as data.

Each has a file in the folder ``library``, from which the page
docs/findings.md and a mail to QEMU's list are made.
"""
