# SPDX-License-Identifier: GPL-2.0-or-later
"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by a job that takes time.

    :param done: Steps done.
    :param total: Steps in all as known now; 0 means unknown. It may
                  change: ninja learns of more work on its way.
    :param text: What is being done, a few words.
    """

    def __call__(self, done: int, total: int, text: str) -> None: ...


def silent(done: int, total: int, text: str) -> None:
    """The `Progress` of somebody who does not care."""
