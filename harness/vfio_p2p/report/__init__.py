# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports: text, JSON and JUnit, pure functions of what was found."""
