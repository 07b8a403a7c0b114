# SPDX-License-Identifier: GPL-2.0-or-later
"""A unit test is a function too: the same examples in every run."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a loaded machine must not make a test fail.
settings.register_profile("vfio-p2p", deadline=None, derandomize=True)
settings.load_profile("vfio-p2p")
