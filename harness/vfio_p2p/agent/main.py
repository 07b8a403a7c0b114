# SPDX-License-Identifier: GPL-2.0-or-later
"""Find a command of the agent, run it, and answer in JSON.

A command is a module with a function ``run(arguments, roots)``. What it
returns is printed as the one JSON document of the answer. A command that
answers with several lines prints them with `show` and returns None.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence

from vfio_p2p.agent.failure import HOST, INPUT, AgentError
from vfio_p2p.agent.roots import Roots

# A command's module is imported when the command is run: most hosts need
# only some of them.
COMMANDS = {
    "clock": "vfio_p2p.agent.clock",
    "console": "vfio_p2p.agent.console",
    "follow": "vfio_p2p.agent.follow",
    "hold": "vfio_p2p.agent.hold",
    "inventory": "vfio_p2p.agent.inventory",
    "prepare": "vfio_p2p.agent.prepare",
    "qemus": "vfio_p2p.agent.qemus",
    "restore": "vfio_p2p.agent.restore",
    "simulate": "vfio_p2p.agent.simulate",
    "watch": "vfio_p2p.agent.watch",
}

_INTERRUPTED = 130


def show(document: object) -> None:
    """Print a JSON document on one line, at once."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str], roots: Roots | None = None) -> int:
    """Run one command.

    :param argv: The command and its arguments.
    :param roots: Where the kernel's folders are; None is this host's.
    :return: The exit code.
    """
    try:
        return _answer(argv, roots or Roots())
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python would complain about it once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return HOST


def _answer(argv: Sequence[str], roots: Roots) -> int:
    try:
        answer = _run(argv, roots)
    except AgentError as err:
        error = err
    except BrokenPipeError:
        raise
    except OSError as err:
        error = AgentError(
            f"{err.filename or 'the system'}: {err.strerror or err}",
            "Check the path and its permissions on the host.",
        )
    except Exception as err:
        error = AgentError(
            f"a mistake in the agent: {err!r}", "Please report it."
        )
    else:
        if answer is not None:
            show(answer)
        return 0
    show({"error": error.what, "hint": error.hint})
    return error.code


def _run(argv: Sequence[str], roots: Roots) -> object:
    if not argv or argv[0] not in COMMANDS:
        what = f"there is no command {argv[0]!r}" if argv else "no command"
        raise AgentError(what, f"Use one of: {', '.join(COMMANDS)}.", INPUT)
    module = importlib.import_module(COMMANDS[argv[0]])
    answer: object = module.run(list(argv[1:]), roots)
    return answer
