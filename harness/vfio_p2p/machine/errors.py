# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors that can occur while a scenario runs.

They are a part of the tree in the docstring of `vfio_p2p.errors`, and other
code imports them from there.  They have a module of their own because only
these errors are needed in the testbed's VM.
"""

from __future__ import annotations

import signal


class HarnessError(Exception):
    """The root of the tree.

    :param what: What went wrong, in one line.
    :param hint: What the user can do about it, in one line; may be empty.
    """

    exit_code = 5

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class HostError(HarnessError):
    """A machine did not do what it has to do."""


class TestbedError(HostError):
    """The outer VM failed: it did not boot, left no bundle, or hung."""

    __test__ = False        # not a test class, whatever pytest thinks


class VMError(HarnessError):
    """Something went wrong with one QEMU process.

    :param side: The name of the QEMU, e.g. "source".
    :param what: What went wrong, in one line.
    :param hint: What the user can do about it; may be empty.
    """

    def __init__(self, side: str, what: str, hint: str = "") -> None:
        super().__init__(f"{side}: {what}", hint)
        self.side = side


class LaunchError(VMError):
    """QEMU refused to start.

    :param side: The name of the QEMU.
    :param message: What it wrote to stderr.
    :param status: Its exit status as in `subprocess`; None if unknown.
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
    """The QMP connection was lost while it was needed.

    :param side: The name of the QEMU.
    :param what: What went wrong, in one line.
    :param crashed: Whether a signal killed QEMU.
    """

    def __init__(self, side: str, what: str, crashed: bool = False) -> None:
        super().__init__(side, what)
        self.crashed = crashed


class CommandError(VMError):
    """QEMU answered a QMP command with an error."""


class StepTimeoutError(VMError):
    """A step took longer than its limit.

    :param side: The name of the QEMU.
    :param step: The name of the step.
    :param limit_s: Its limit in seconds.
    """

    def __init__(self, side: str, step: str, limit_s: float) -> None:
        super().__init__(side, f"{step} took longer than {limit_s:g} s")
        self.step = step
        self.limit_s = limit_s


class OutputLimitError(VMError):
    """The QEMUs wrote too much, as when a migration does not converge.

    :param side: The QEMU that wrote most.
    :param limit_bytes: The limit for all files of the run together.
    """

    def __init__(self, side: str, limit_bytes: int) -> None:
        super().__init__(
            side,
            f"QEMU wrote more than {limit_bytes >> 20} MiB of traces and "
            "messages, as when a migration does not converge",
            "Check the migration's parameters downtime-limit and "
            "max-bandwidth.",
        )
        self.limit_bytes = limit_bytes


class MigrationFailedError(VMError):
    """The migration failed; the message has QEMU's own description."""
