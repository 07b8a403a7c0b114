# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors that can occur where a scenario runs.

They are a part of the tree that `vfio_p2p.errors` draws, and other code
imports them from there.  They have a module of their own because it goes
into the testbed's VM, where nothing else of the tree is needed.
"""

from __future__ import annotations

import signal


class HarnessError(Exception):
    """Root of the tree: one line of what went wrong, one of what to do.

    :param what: What went wrong, one line.
    :param hint: What the user can do about it, one line; may be empty.
    """

    exit_code = 5

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class HostError(HarnessError):
    """A host did not do what it must do."""


class TestbedError(HostError):
    """The outer VM failed: no boot, no bundle, out of time."""

    __test__ = False        # not a test class, whatever pytest thinks


class VMError(HarnessError):
    """One QEMU process; `side` says which ("source", "destination").

    :param side: Which of the two.
    :param what: What went wrong, one line.
    """

    def __init__(self, side: str, what: str, hint: str = "") -> None:
        super().__init__(f"{side}: {what}", hint)
        self.side = side


class LaunchError(VMError):
    """QEMU refused to start; `message` is what it printed.

    :param side: Which of the two.
    :param message: What it wrote to stderr.
    :param status: Its exit status as in `subprocess`, None if unknown.
    """

    def __init__(self, side: str, message: str, status: int | None) -> None:
        last = message.strip().splitlines()[-1:] or ["no message"]
        how = ""
        if status is not None and status < 0:
            how = f" (killed by {signal.Signals(-status).name})"
        super().__init__(side, f"QEMU did not start{how}: {last[0]}")
        self.message = message
        self.status = status


class ConnectionLostError(VMError):
    """The QMP connection went away while it was needed.

    :param side: Which of the two.
    :param what: What went wrong, one line.
    :param crashed: Whether it was killed by a signal.
    """

    def __init__(self, side: str, what: str, crashed: bool = False) -> None:
        super().__init__(side, what)
        self.crashed = crashed


class CommandError(VMError):
    """QEMU answered a QMP command with an error."""


class StepTimeoutError(VMError):
    """A step took longer than its limit.

    :param step: Name of the step.
    :param limit_s: Its limit in seconds.
    """

    def __init__(self, side: str, step: str, limit_s: float) -> None:
        super().__init__(side, f"{step} took longer than {limit_s:g} s")
        self.step = step
        self.limit_s = limit_s


class OutputLimitError(VMError):
    """Too much was written; a migration that does not converge does.

    :param side: Which wrote most.
    :param limit_bytes: The limit, for all files of the run together.
    """

    def __init__(self, side: str, limit_bytes: int) -> None:
        super().__init__(
            side,
            f"QEMU wrote more than {limit_bytes >> 20} MiB of traces and "
            "messages; a migration that does not converge does",
            "see its parameters downtime-limit and max-bandwidth",
        )
        self.limit_bytes = limit_bytes


class MigrationFailedError(VMError):
    """The migration itself failed; carries QEMU's own description."""
