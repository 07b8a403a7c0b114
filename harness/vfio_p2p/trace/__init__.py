# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers for QEMU's trace files and for the devices' own logs."""

from vfio_p2p.trace.console import ConsoleLog, continued, read_console
from vfio_p2p.trace.device import DeviceLog, LogEntry
from vfio_p2p.trace.devicelog import read_device_log
from vfio_p2p.trace.formats import VERSIONS, Kind, missing_events
from vfio_p2p.trace.qmp import EventReader, heard, is_events
from vfio_p2p.trace.reader import TraceReader
from vfio_p2p.trace.record import Backend, Clock, Record, Summary, printable

__all__ = [
    "VERSIONS",
    "Backend",
    "Clock",
    "ConsoleLog",
    "DeviceLog",
    "EventReader",
    "Kind",
    "LogEntry",
    "Record",
    "Summary",
    "TraceReader",
    "continued",
    "heard",
    "is_events",
    "missing_events",
    "printable",
    "read_console",
    "read_device_log",
]
