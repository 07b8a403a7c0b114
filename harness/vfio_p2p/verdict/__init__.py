# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on a run: its migrations, how it ended, its assessment."""
