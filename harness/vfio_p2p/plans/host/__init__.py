# SPDX-License-Identifier: GPL-2.0-or-later
"""Look at real hosts, and set them up."""
