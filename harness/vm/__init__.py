# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process and its QMP session."""
