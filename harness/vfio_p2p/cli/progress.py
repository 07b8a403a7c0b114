# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

# A plain line for every so many percent.
PLAIN_STEP_PERCENT = 10


class Line:
    """Progress of one job: a bar, or lines; see `vfio_p2p.progress`.

    :param name: What the job is called.
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
        """See `vfio_p2p.progress.Progress`."""
        if self._bars is None:
            self._plain(done, total, text)
            return
        if self._task is None:
            # Without a total until there is one: the bar swings.
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
        """Say how the job ended; the bar goes, the line stays."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._print(f"{self._name}: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


class Display:
    """Where the progress of several jobs is shown; see `display`."""

    def __init__(self, console: Console, bars: Bars | None) -> None:
        self._console = console
        self._bars = bars

    def line(self, name: str) -> Line:
        """A line for one more job."""
        return Line(name, self._console, self._bars)


@contextmanager
def display() -> Iterator[Display]:
    """Show progress on stderr as long as the context lasts.

    ::

        with display() as shown:
            line = shown.line("base")
            line(3, 7, "compiling")
            line.end("done")
    """
    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        yield Display(console, None)
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
        console=console,
        transient=True,
    ) as bars:
        yield Display(console, bars)
