# SPDX-License-Identifier: GPL-2.0-or-later
"""The one error tree of vfio-p2p.

Every error that a user can meet derives from `HarnessError`, carries the
data that explains it, and says what to do::

    HarnessError                    exit code 5
     +-- InputError                 exit code 2: the user can mend it
     |    +-- UsageError            an argument that makes no sense
     |    +-- MissingToolError      a program, header or module is missing
     |    +-- NoSpaceError          the disk is full, or will be
     |    +-- SourceError           not QEMU, or not a QEMU we know
     |    +-- PatchError            a patch is malformed or does not apply
     |    +-- ScenarioError         a scenario file is wrong
     |    +-- TraceError            a trace log that cannot be one
     |    +-- BundleError           a bundle is damaged, or newer than us
     |    +-- HistoryError          the history: not ours, locked, damaged
     +-- UnevenError                phases do not add up: our own mistake
     +-- BuildError                 QEMU or the testbed did not build
     +-- HostError                  a host did not do what it must do
     |    +-- TestbedError          the outer VM failed
     +-- VMError                    one QEMU process
          +-- LaunchError           QEMU refused to start
          +-- ConnectionLostError   its QMP connection went away
          +-- CommandError          it answered a QMP command with an error
          +-- StepTimeoutError      a step took longer than its limit
          +-- OutputLimitError      it wrote more than its limit
          +-- MigrationFailedError  the migration itself failed

What a `VMError` means is for the runner to say: a QEMU that refuses a
second device is the expected outcome of some scenarios.
"""

from __future__ import annotations

import signal
from pathlib import Path


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


class InputError(HarnessError):
    """Bad usage or bad input: the user can mend it."""

    exit_code = 2


class UsageError(InputError):
    """An argument that makes no sense."""


class MissingToolError(InputError):
    """A program, library or module that a command needs is missing.

    :param tool: The missing thing, e.g. ``ninja``.
    :param package: The Debian package that has it.
    :param hint: How to get it, if not by installing the package.
    """

    def __init__(self, tool: str, package: str, hint: str = "") -> None:
        super().__init__(
            f"{tool} is missing",
            hint
            or f"Install the Debian package {package} as root: "
            f"'apt-get install {package}'.",
        )
        self.tool = tool
        self.package = package


class NoSpaceError(InputError):
    """The disk is full, or would be.

    :param path: Where room is needed.
    :param needed_bytes: How much, if known.
    :param free_bytes: How much there is, if known.
    """

    def __init__(
        self,
        path: Path | str,
        needed_bytes: int | None = None,
        free_bytes: int | None = None,
    ) -> None:
        detail = ""
        if needed_bytes is not None and free_bytes is not None:
            detail = (
                f": {needed_bytes >> 20} MiB needed, "
                f"{free_bytes >> 20} MiB free"
            )
        super().__init__(
            f"no room under {path}{detail}",
            "free some, or point XDG_CACHE_HOME at a larger disk",
        )
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class SourceError(InputError):
    """Not a QEMU source tree, or not one that we know."""


class PatchError(InputError):
    """A patch is malformed or does not apply.

    :param patch: Name of the patch file.
    :param file: Path in the tree, or None when the mail itself is at fault.
    :param hunk: The hunk's header line ``@@ -a,b +c,d @@``, if known.
    :param why: What is wrong.
    """

    def __init__(
        self, patch: str, file: str | None, hunk: str | None, why: str
    ) -> None:
        where = ": ".join(x for x in (patch, file, hunk) if x)
        super().__init__(
            f"{where}: {why}",
            "check that the patch is meant for this source "
            "('vfio-p2p build --help' says how to choose a base)",
        )
        self.patch = patch
        self.file = file
        self.hunk = hunk
        self.why = why


class ScenarioError(InputError):
    """A scenario file is wrong.

    :param path: The file.
    :param line: Line number, 1 is the first, if known.
    :param why: What is wrong; names the key.
    """

    def __init__(self, path: Path | str, line: int | None, why: str) -> None:
        where = f"{path}:{line}" if line else f"{path}"
        super().__init__(
            f"{where}: {why}",
            "see harness/vfio_p2p/scenario/library/*.toml for examples",
        )
        self.path = path
        self.line = line


class TraceError(InputError):
    """A trace that cannot be one: foreign, unreadable, damaged."""


class BundleError(InputError):
    """A bundle is damaged, incomplete, or newer than this program."""


class HistoryError(InputError):
    """A history that is not ours, newer, locked, damaged or read-only."""


class UnevenError(HarnessError):
    """The phases of a blackout do not add up to it: our own mistake.

    :param path: The bundle with the run.
    :param why: What does not add up.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path}: {why}",
            "This is a mistake of vfio-p2p. Please report it, and attach "
            "the bundle.",
        )
        self.path = path
        self.why = why


class BuildError(HarnessError):
    """QEMU or the testbed did not build.

    :param what: Which step failed.
    :param log: Path of the whole log.
    :param tail: Its last lines.
    """

    def __init__(self, what: str, log: Path, tail: str = "") -> None:
        super().__init__(what, f"the whole log is {log}")
        self.log = log
        self.tail = tail


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
