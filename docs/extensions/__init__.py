# SPDX-License-Identifier: GPL-2.0-or-later
"""Sphinx extensions of the documentation site."""
