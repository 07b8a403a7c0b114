# SPDX-License-Identifier: GPL-2.0-or-later
"""Decide whether a whole validation passes.

Each module judges one kind of validation from the assessments of its runs,
and makes the report's document of them.  None of them touches a machine.
"""
