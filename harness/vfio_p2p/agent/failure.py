# SPDX-License-Identifier: GPL-2.0-or-later
"""The one error of the agent."""

from __future__ import annotations

INPUT = 2
SKIP = 4
HOST = 5


class AgentError(Exception):
    """The agent cannot do what it was asked for.

    :param what: What went wrong, one line.
    :param hint: What the user can do about it, one line.
    :param code: The exit code: `INPUT` for a request that makes no sense,
        `SKIP` when a device is taken or not there, `HOST` when the host does
        not do what it has to.
    """

    def __init__(self, what: str, hint: str, code: int = HOST) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.code = code
