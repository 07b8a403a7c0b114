# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from vfio_p2p.trace import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

# One plain line is printed for each such step.
PLAIN_STEP_PERCENT = 10


class Line:
    """The progress of one task: a bar, or lines.

    :param name: The name of the task.
    :param console: Where the lines go.
    :param bars: Where the bar goes; None shows lines only.
    """

    def __init__(
        self, name: str, console: Console, bars: Bars | None
    ) -> None:
        self._name = name
        self._console = console
        self._bars = bars
        self._task: TaskID | None = None
        self._last = ("", 0)

    def __call__(self, done: int, total: int, text: str) -> None:
        """Show how far the task is; see `vfio_p2p.progress.Progress`."""
        if self._bars is None:
            self._plain(done, total, text)
            return
        if self._task is None:
            # The bar swings until the total is known.
            self._task = self._bars.add_task(
                self._name, total=total or None, text=text
            )
        self._bars.update(
            self._task, completed=done, total=total or None, text=text
        )

    def _plain(self, done: int, total: int, text: str) -> None:
        percent = done * 100 // total if total else 0
        step = percent // PLAIN_STEP_PERCENT
        last_text, last_step = self._last
        if text == last_text and step <= last_step:
            return
        self._last = text, step
        count = f" [{done}/{total}]" if total else ""
        self._print(f"{self._name}: {text}{count}")

    def end(self, text: str) -> None:
        """Replace the bar by a line that says how the task ended."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._print(f"{self._name}: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


class Display:
    """The `vfio_p2p.progress.Reporter` of the command line.

    :param console: Where lines go.
    :param bars: Where bars go; None shows lines only.
    """

    def __init__(self, console: Console, bars: Bars | None) -> None:
        self._console = console
        self._bars = bars

    def task(self, name: str) -> Line:
        """Open a task; see `vfio_p2p.progress.Reporter`."""
        return Line(name, self._console, self._bars)

    def remark(self, text: str) -> None:
        """Print a line; see `vfio_p2p.progress.Reporter`."""
        self._console.print(
            printable(text), markup=False, highlight=False
        )


@cache
def _console(stream: TextIO) -> Console:
    return Console(file=stream, soft_wrap=True)


def console() -> Console:
    """Return the one console of progress and messages, on stderr."""
    return _console(sys.stderr)


@contextmanager
def display() -> Iterator[Display]:
    """Show progress on stderr as long as the context lasts.

    ::

        with display() as shown:
            task = shown.task("base")
            task(3, 7, "compiling")
            task.end("done")
    """
    shown = console()
    if not shown.is_terminal:
        yield Display(shown, None)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=shown,
        transient=True,
    ) as bars:
        yield Display(shown, bars)
