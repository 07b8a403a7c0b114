# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are often taken for a trace and are something else.

A file without any line about VFIO is refused by the name of what it is, if
that is known, with what to do instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vfio_p2p.errors import TraceError
from vfio_p2p.trace.record import printable

# How much of a file is looked at.
HEAD_BYTES = 64 << 10
_MOST_LINES = 200
_TRACE = (
    "-trace 'vfio_*' -trace vm_state_notify -msg timestamp=on -D FILE"
)


@dataclass(frozen=True, slots=True)
class _Foreign:
    """Something that is no trace of QEMU's.

    :param line: The regular expression of a typical line, at its start.
    :param what: What the file is.
    :param hint: What to do.
    :param at_once: Whether one such line at the start is enough.
    """

    line: re.Pattern[str]
    what: str
    hint: str
    at_once: bool = False


def _foreign(
    line: str, what: str, hint: str, *, at_once: bool = False
) -> _Foreign:
    return _Foreign(re.compile(line), what, hint, at_once)


_FOREIGN = (
    _foreign(
        r"\w{1,64} -?\d{1,20}\.\d{3} pid=\d{1,10}\b",
        "the text that QEMU's simpletrace.py prints of a trace",
        "Give the trace file itself, which simpletrace.py was run on.",
    ),
    _foreign(
        r"(?:\S{1,64} ){0,4}\{.{0,2048}"
        r"\"(?:QMP|event|return|execute|error)\":",
        "a transcript of QMP, and not a trace",
        "The events of QMP do not tell which callback asked for a state. "
        f"Run QEMU with {_TRACE}.",
    ),
    _foreign(
        r"\s*\S.{0,32}\s\d{1,10}\s+(?:\[\d{1,4}\]\s+)?\d{1,12}\.\d{6,9}:"
        r"\s+[\w:]{1,64}:",
        "the text of 'perf script'",
        f"Run QEMU with {_TRACE}.",
    ),
    _foreign(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+\d{4}: \d{1,10}: \w{1,16} : ",
        "the log of libvirt's daemon, and not that of a domain",
        "QEMU's lines are in /var/log/libvirt/qemu/NAME.log, or in "
        "~/.cache/libvirt/qemu/log/NAME.log of a session.",
    ),
    _foreign(
        r"(?:\[pid +\d{1,10}\] |\d{1,10} +)?(?:\d[\d:.]{1,20} )?"
        r"\w{2,32}\(.{0,2048}\) += ",
        "the output of strace",
        f"Run QEMU with {_TRACE}.",
    ),
    _foreign(
        r"\s*(?:<!DOCTYPE|<html|<HTML|<head|<body|<div|<p>|<br)",
        "a page of the web",
        "Save the log as plain text.",
        at_once=True,
    ),
    _foreign(
        r"\s*#\s+tracer: ",
        "a trace of the kernel's ftrace without events of QEMU",
        "Use QEMU's 'ftrace' backend, or its 'log' backend: run QEMU with "
        f"{_TRACE}.",
        at_once=True,
    ),
)


def refuse(head: bytes, name: str) -> None:
    """Refuse a file that is known to be something else than a trace.

    :param head: The first `HEAD_BYTES` of the file.
    :param name: What to call the file in messages.
    :raise TraceError: When it is such a file.
    """
    text = head.decode("utf-8", "replace").lstrip("\ufeff")
    lines = [line for line in text.splitlines() if line.strip()]
    lines = lines[:_MOST_LINES]
    for kind in _FOREIGN:
        fits = [kind.line.match(line) is not None for line in lines]
        if sum(fits) * 2 > len(lines) or (kind.at_once and any(fits[:1])):
            raise TraceError(f"{printable(name)} is {kind.what}", kind.hint)
