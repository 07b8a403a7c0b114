# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers for QEMU's trace backends, by version, and devices' logs."""

from harness.trace.device import DeviceLog, Entry
from harness.trace.devicelog import read_device_log
from harness.trace.formats import VERSIONS, Kind
from harness.trace.reader import TraceReader
from harness.trace.record import Backend, Clock, Record, Summary, printable

__all__ = [
    "VERSIONS",
    "Backend",
    "Clock",
    "DeviceLog",
    "Entry",
    "Kind",
    "Record",
    "Summary",
    "TraceReader",
    "printable",
    "read_device_log",
]
