# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that things run on: one QEMU, its QMP session, files."""
