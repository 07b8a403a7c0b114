# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables as lines of text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfio_p2p.trace import printable

# A table is wider than a terminal rather than cut: some names are long.
_WIDEST = 200


def table_lines(
    names: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    numbers: Sequence[str] = (),
    wrapped: str = "",
    tight: bool = False,
    width: int = _WIDEST,
) -> list[str]:
    """Lay out a table.

    :param names: The titles of the columns that are aligned on the left.
    :param rows: The cells of each row.  A `Text` is ours; all others are
        escaped.
    :param numbers: The titles of the columns after them, which are aligned
        on the right.
    :param wrapped: The title of a last column, whose cells are wrapped.
    :param tight: Whether columns are one blank apart instead of two.
    :param width: The greatest width, in characters.
    """
    padding = (0, 1, 0, 0) if tight else (0, 1)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    if wrapped:
        table.add_column(wrapped)
    for row in rows:
        # A plain string would be markup to rich.
        table.add_row(
            *(
                cell if isinstance(cell, Text) else Text(printable(cell))
                for cell in row
            )
        )
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return lines[1:-1]
