#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrate two devices from Python, and read the verdict and the phases.

    python docs/examples/two_devices.py [FOLDER]

The bundle is left in FOLDER, by default in ``out``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vfio_p2p.errors import HarnessError
from vfio_p2p.plans.setting import Setting
from vfio_p2p.plans.single import RunRequest, run_one
from vfio_p2p.report.document import Document


class PrintedTask:
    """A task that only prints how it ends."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, done: int, total: int, text: str) -> None:
        """Ignore the progress."""

    def end(self, text: str) -> None:
        """Print how the work ended."""
        print(f"{self._name}: {text}", file=sys.stderr)


class PrintedReporter:
    """A `vfio_p2p.progress.Reporter` that writes lines to stderr."""

    def task(self, name: str) -> PrintedTask:
        """Open a task."""
        return PrintedTask(name)

    def remark(self, text: str) -> None:
        """Print a remark."""
        print(text, file=sys.stderr)


def migrate(folder: Path) -> Document:
    """Build QEMU with the series, and migrate two devices with it.

    :param folder: The folder for the bundle.
    """
    request = RunRequest(
        scenario="two-devices",
        variant="patched",
        setting=Setting(seed=42),
        bundle=folder / "two-devices",
    )
    return run_one(request, PrintedReporter())


def main() -> int:
    """Print the result of the run.

    :return: The exit code that the command line would have.
    """
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
    try:
        document = migrate(folder)
    except HarnessError as err:
        print(f"{err.what}\n  {err.hint}", file=sys.stderr)
        return err.exit_code
    (run,) = document.runs
    print(f"{run.variant}, {run.scenario}: {run.verdict}, {run.summary}")
    for finding in run.findings:
        print(f"broken rule {finding.rule}: {finding.message}")
    if run.blackout_ns is not None:
        print(f"blackout {run.blackout_ns / 1e6:.3f} ms, of which:")
    for phase in run.phases:
        print(f"  {phase.name:20} {phase.duration_ns / 1e6:8.3f} ms")
    return document.verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
