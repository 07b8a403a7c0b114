# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU sources, and the content-addressed store of builds."""

from harness.build.builder import Build, build
from harness.build.source import Source, find_source

__all__ = ["Build", "Source", "build", "find_source"]
