# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments of the agent's commands, whose errors are answers, too."""

from __future__ import annotations

import argparse
from typing import NoReturn

from vfio_p2p.agent.failure import INPUT, AgentError

WHO = "--who"


class AgentParser(argparse.ArgumentParser):
    """A parser that raises its errors.

    :param command: The name of the command.
    """

    def __init__(self, command: str) -> None:
        super().__init__(prog=command, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        usage = " ".join(self.format_usage().split())
        raise AgentError(
            f"{self.prog}: {message}", f"The {usage}.", INPUT
        )


def add_who(parser: AgentParser) -> None:
    """Add the option that says on whose behalf a command takes locks.

    The command does not read it: whoever finds a lock taken finds the option
    in the command line of the process that has the lock.
    """
    parser.add_argument(WHO, default="")
