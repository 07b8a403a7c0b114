# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations between two QEMUs, in the testbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commands import CommandTest
from vfio_p2p.bundle.read import open_bundle


class Versions(CommandTest):
    """``run --to``."""

    timeout = 1800

    def run_of(self, status: int, *words: str) -> dict[str, Any]:
        """Make a run, and return what is reported of it."""
        return self.reported(status, *words, "--out", "made")

    def test_each_side_does_what_its_tree_does(self) -> None:
        """The P2P states are asked for where the series is, and only there.

        The same bundle can be made again.
        """
        found = self.run_of(
            0, "one-device", "--variant", "base", "--to", "patched"
        )
        self.assertEqual(found["variant"], "base to patched")
        self.assertEqual(found["machine"], "pc-q35-10.0")
        bundle = open_bundle(Path(self.workdir, "made"))
        for side, due in (("source", False), ("destination", True)):
            trace = bundle.files[f"{side}/trace.log"]
            self.assertEqual(b"_P2P" in trace, due, side)
        done = self.command("reproduce", "made", "--out", "again")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_either_side_refuses(self) -> None:
        for words, side in (
            (("--variant", "base", "--to", "patched"), "source"),
            (("--variant", "patched", "--to", "base"), "destination"),
        ):
            found = self.run_of(0, "two-devices", *words)
            self.assertEqual(found["summary"], "refused")
            bundle = open_bundle(Path(self.workdir, "made"))
            self.assertEqual(bundle.manifest.result.side, side)

    def test_another_build_is_the_same_machine(self) -> None:
        """Debian's has an HPET by default, which our builds lack."""
        for words in (
            ("--to", "debian:trixie"),
            ("--qemu", "debian:trixie", "--to", "patched"),
        ):
            found = self.run_of(0, "two-devices", *words)
            self.assertEqual(found["verdict"], "pass")

    def test_a_machine_that_neither_knows(self) -> None:
        done = self.command(
            "run", "two-devices", "--to", "debian:trixie",
            "--machine", "pc-q35-99.0",
        )  # fmt: skip
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertIn("machine type 'pc-q35-99.0'", done.stderr)
