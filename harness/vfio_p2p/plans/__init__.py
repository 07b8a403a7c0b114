# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands do, as functions of plain values."""
