# SPDX-License-Identifier: GPL-2.0-or-later
"""The one error tree of vfio-p2p.

Every error that a user can meet derives from `HarnessError`, carries the
data that explains it, and says what the user can do::

    HarnessError                    exit code 5
     +-- InputError                 exit code 2: the user can fix it
     |    +-- UsageError            an argument that makes no sense
     |    +-- MissingToolError      a program, header or module is missing
     |    +-- NoSpaceError          the disk is full, or will be
     |    +-- SourceError           not QEMU, or not a QEMU that we know
     |    +-- PatchError            a patch is malformed or does not apply
     |    +-- ScenarioError         a scenario file is wrong
     |    +-- ConfigError           the file hosts.toml is wrong
     |    +-- TraceError            a trace log that cannot be one
     |    +-- BundleError           a bundle is damaged, or too new
     |    +-- HistoryError          a history is foreign, locked or damaged
     +-- SkipError                  exit code 4: nothing to test on, or taken
     +-- UnevenError                phases do not add up: our own mistake
     +-- BuildError                 QEMU or the testbed did not build
     +-- HostError                  a machine did not do what it has to do
     |    +-- TestbedError          the outer VM failed
     +-- VMError                    one QEMU process
          +-- LaunchError           QEMU refused to start
          +-- ConnectionLostError   its QMP connection went away
          +-- CommandError          it answered a QMP command with an error
          +-- StepTimeoutError      a step took longer than its limit
          +-- OutputLimitError      it wrote more than its limit
          +-- MigrationFailedError  the migration itself failed

The runner turns a `VMError` into the outcome of a run: some scenarios expect
that QEMU refuses a second device.

The errors that can occur while a scenario runs are defined in
`vfio_p2p.machine.errors`, which goes into the testbed's VM.
"""

from __future__ import annotations

from pathlib import Path

from vfio_p2p.machine.errors import (
    CommandError,
    ConnectionLostError,
    HarnessError,
    HostError,
    LaunchError,
    MigrationFailedError,
    OutputLimitError,
    StepTimeoutError,
    TestbedError,
    VMError,
)

__all__ = [
    "BuildError",
    "BundleError",
    "CommandError",
    "ConfigError",
    "ConnectionLostError",
    "HarnessError",
    "HistoryError",
    "HostError",
    "InputError",
    "LaunchError",
    "MigrationFailedError",
    "MissingToolError",
    "NoSpaceError",
    "OutputLimitError",
    "PatchError",
    "ScenarioError",
    "SkipError",
    "SourceError",
    "StepTimeoutError",
    "TestbedError",
    "TraceError",
    "UnevenError",
    "UsageError",
    "VMError",
]


class InputError(HarnessError):
    """Bad usage or bad input, which the user can fix."""

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

    :param path: The place where room is needed.
    :param needed_bytes: How much is needed, if known.
    :param free_bytes: How much is free, if known.
    :param hint: What to do, if there is more to say.
    """

    def __init__(
        self,
        path: Path | str,
        needed_bytes: int | None = None,
        free_bytes: int | None = None,
        hint: str = "",
    ) -> None:
        detail = ""
        if needed_bytes is not None and free_bytes is not None:
            detail = (
                f": {-(-needed_bytes >> 20)} MiB needed, "
                f"{free_bytes >> 20} MiB free"
            )
        super().__init__(
            f"no room under {path}{detail}",
            hint
            or "Free some room there. XDG_CACHE_HOME can name another disk "
            "for the cache, and TMPDIR one for temporary files.",
        )
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class SourceError(InputError):
    """Not a QEMU source tree, or not one that we know."""


class PatchError(InputError):
    """A patch is malformed or does not apply.

    :param patch: The name of the patch file.
    :param file: The path in the tree; None when the mail itself is wrong.
    :param hunk: The header line of the hunk, ``@@ -a,b +c,d @@``, if known.
    :param why: What is wrong.
    :param hint: What the user can do about it.
    """

    def __init__(
        self,
        patch: str,
        file: str | None,
        hunk: str | None,
        why: str,
        hint: str = "Check that the patch is meant for this source "
        "('vfio-p2p build --help' says how to choose a base).",
    ) -> None:
        # A hostile patch may have names of any length.
        where = ": ".join(x[:300] for x in (patch, file, hunk) if x)
        super().__init__(f"{where}: {why[:300]}", hint)
        self.patch = patch
        self.file = file
        self.hunk = hunk
        self.why = why


class ScenarioError(InputError):
    """A scenario file is wrong.

    :param path: The file.
    :param line: The number of the line, from 1, if known.
    :param why: What is wrong; names the key.
    :param hint: What the user can do about it.
    """

    def __init__(
        self,
        path: Path | str,
        line: int | None,
        why: str,
        hint: str = "'vfio-p2p scenario show two-devices' prints an example.",
    ) -> None:
        where = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{where}: {why}", hint)
        self.path = path
        self.line = line


class ConfigError(InputError):
    """The file ``hosts.toml`` is wrong, missing or unreadable.

    :param what: What went wrong; names the file, the line and the key.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what, "docs/hosts.md describes the file.")


class TraceError(InputError):
    """A file is not a trace, or is unreadable or damaged."""


class BundleError(InputError):
    """A bundle is damaged, incomplete, or newer than this program.

    :param what: What went wrong, one line.
    :param hint: What the user can do about it.
    """

    def __init__(
        self,
        what: str,
        hint: str = "Give the folder or the zip file of a whole bundle.",
    ) -> None:
        super().__init__(what, hint)


class HistoryError(InputError):
    """A history is foreign, too new, locked, damaged or read-only."""


class SkipError(HarnessError):
    """There is nothing to test on, or another one has taken it."""

    exit_code = 4


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

    :param what: The step that failed.
    :param log: The path of the whole log.
    :param tail: The last lines of the log.
    """

    def __init__(self, what: str, log: Path, tail: str = "") -> None:
        super().__init__(what, f"Read the whole log: {log}")
        self.log = log
        self.tail = tail
