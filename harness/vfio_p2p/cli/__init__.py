# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `vfio-p2p`: options in, text and an exit code out.

Exit codes of every command: 0 pass, 1 fail, 2 bad usage or bad input,
3 inconclusive, 4 skip (nothing to test on), 5 error of the infrastructure or
a mistake in vfio-p2p.

Each command is a module of this package with three functions:
``add_parser()``, ``request(args)``, which turns the parsed arguments into one
typed request, and ``run(request, context)``, which calls a plan, prints its
result and returns the exit code.  A module is imported only when its command
is asked for, so that ``check`` loads nothing that starts virtual machines.
"""

from vfio_p2p.cli.entry import COMMANDS, main

__all__ = ["COMMANDS", "main"]
