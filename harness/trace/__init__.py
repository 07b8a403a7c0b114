# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers for QEMU's trace logs; formats by QEMU version."""

from harness.trace.formats import VERSIONS, Kind
from harness.trace.reader import Record, Summary, TraceReader, printable

__all__ = [
    "VERSIONS",
    "Kind",
    "Record",
    "Summary",
    "TraceReader",
    "printable",
]
