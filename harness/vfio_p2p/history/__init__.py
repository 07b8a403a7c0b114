# SPDX-License-Identifier: GPL-2.0-or-later
"""Kept results of many revisions, and where they changed."""
