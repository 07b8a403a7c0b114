# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that somebody else started: find it, watch it, record it."""
