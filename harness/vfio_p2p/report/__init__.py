# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports: one document, and renderers that are pure functions of it."""
