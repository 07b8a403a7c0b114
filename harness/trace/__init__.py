# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers for QEMU's trace logs, by version, and the devices' own."""

from harness.trace.device import DeviceLog, Entry
from harness.trace.devicelog import read_device_log
from harness.trace.formats import VERSIONS, Kind
from harness.trace.reader import Record, Summary, TraceReader, printable

__all__ = [
    "VERSIONS",
    "DeviceLog",
    "Entry",
    "Kind",
    "Record",
    "Summary",
    "TraceReader",
    "printable",
    "read_device_log",
]
