# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios: their format, and the runner that drives a migration.

Nothing is imported here: the runner also works inside the testbed, where
every import costs guest time.
"""
