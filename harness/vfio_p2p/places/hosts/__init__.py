# SPDX-License-Identifier: GPL-2.0-or-later
"""Places of real devices: one host, or a pair of hosts."""
