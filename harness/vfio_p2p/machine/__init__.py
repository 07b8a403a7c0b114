# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process with its QMP session; child processes and files."""
