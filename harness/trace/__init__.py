# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers for QEMU's trace backends; formats by QEMU version."""

from harness.trace.formats import VERSIONS, Kind
from harness.trace.reader import TraceReader
from harness.trace.record import Backend, Clock, Record, Summary, printable

__all__ = [
    "VERSIONS",
    "Backend",
    "Clock",
    "Kind",
    "Record",
    "Summary",
    "TraceReader",
    "printable",
]
