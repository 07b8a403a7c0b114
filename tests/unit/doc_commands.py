# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``vfio-p2p`` commands that pages and examples show."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator

import pytest
from vfio_p2p.cli.entry import COMMANDS, make_parser


def blocks(text: str) -> Iterator[str]:
    """Return every block of code in a page, indented or fenced."""
    yield from re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    without = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for indented in re.findall(
        r"(?:^\n|\A)((?:^(?: {4}.*)?\n)+)", without, re.M
    ):
        yield re.sub(r"^ {4}", "", indented, flags=re.M)


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every ``vfio-p2p`` command in blocks of code."""
    for block in blocks(text):
        whole = block.replace("\\\n", " ")
        for line in whole.splitlines():
            if re.match(r"(?:\S*/)?vfio-p2p ", line):
                yield shlex.split(line, comments=True)[1:]


def parses(arguments: list[str]) -> None:
    """Require that the command line accepts some arguments."""
    said = io.StringIO()
    known = next((x for x in arguments if x in COMMANDS), None)
    try:
        with contextlib.redirect_stderr(said):
            make_parser(known).parse_args(arguments)
    except SystemExit as err:
        if err.code:
            pytest.fail(f"vfio-p2p {shlex.join(arguments)}: "
                        f"{said.getvalue()}")
