# SPDX-License-Identifier: GPL-2.0-or-later
"""How work reports its progress without knowing who listens.

A plan is given a `Reporter` and opens one `Task` for each piece of work.
The command line draws them; `SILENT` ignores them.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callable that a long piece of work calls now and then.

    :param done: The number of steps that are done.
    :param total: The number of steps as far as it is known; 0 means
                  unknown.  It may change: ninja discovers work on its way.
    :param text: A few words on what is being done.
    """

    def __call__(self, done: int, total: int, text: str) -> None: ...


class Task(Progress, Protocol):
    """The progress of one named piece of work."""

    def end(self, text: str) -> None:
        """Report how the work ended.

        :param text: One or a few words, such as ``built``.
        """


class Reporter(Protocol):
    """The listener that the caller of a plan provides."""

    def task(self, name: str) -> Task:
        """Open a task.

        :param name: The name of the piece of work.
        """

    def remark(self, text: str) -> None:
        """Tell the user something that is neither progress nor a result.

        :param text: One line.
        """


class _SilentTask:
    def __call__(self, done: int, total: int, text: str) -> None: ...

    def end(self, text: str) -> None: ...


class _Silent:
    def task(self, name: str) -> Task:
        return _SilentTask()

    def remark(self, text: str) -> None: ...


SILENT: Reporter = _Silent()


def silent(done: int, total: int, text: str) -> None:
    """Ignore the progress; a `Progress` for callers who do not care."""
