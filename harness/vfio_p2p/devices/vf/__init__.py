# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual functions of real cards, and the drivers that migrate them."""
