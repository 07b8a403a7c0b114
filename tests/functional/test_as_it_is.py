# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs that were built elsewhere, in the testbed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from commands import CommandTest
from testbed import program, run
from vfio_p2p.verdict.assess import assess


class AsItIs(CommandTest):
    """``run --qemu``."""

    timeout = 1200

    def run_of(self, qemu: str, scenario: str) -> dict[str, Any]:
        """Make a run, and return what is reported of it."""
        return self.reported(0, scenario, "--qemu", qemu)

    def test_a_build_folder(self) -> None:
        """It does the same as the build that it is."""
        qemu = program("patched")
        folder = Path(self.workdir, "own", "build")
        folder.mkdir(parents=True)
        shutil.copy(qemu.binary, folder)
        found = self.run_of(str(folder.parent), "two-devices")
        self.assertTrue(found["variant"].startswith("binary-10.0."))
        known = run(qemu, "two-devices", Path(self.workdir, "known"))
        self.assertEqual(found["blackout_ns"], assess(known).blackout_ns)

    def test_what_debian_has_built(self) -> None:
        found = self.run_of("debian:trixie", "two-devices")
        self.assertIn("Debian", found["qemu"])
        self.assertEqual(found["verdict"], "pass")

    def test_what_cannot_be_run(self) -> None:
        script = Path(self.workdir, "script")
        script.write_text("#!/bin/sh\nexec qemu-system-x86_64\n")
        for path, said in (
            (str(script), "is a script"),
            (sys.executable, "does not tell QEMU's version"),
            ("/nonexistent", "no such file"),
            ("debian:1.0", "have no QEMU 1.0"),
        ):
            done = self.command("run", "two-devices", "--qemu", path)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()[-2:]), 2)
            self.assertNotIn("Traceback", done.stderr)

    def test_what_a_qemu_does_not_know(self) -> None:
        """A built QEMU and one that Debian has built are asked alike."""
        built = str(program("patched").binary)
        file = Path(self.workdir, "x.toml")
        for qemu, table, name, known in (
            (built, "properties", "x-migration-load-config-after-iter", False),
            (built, "properties", "x-migration-multifd-transfer", True),
            (built, "globals", '"migration.switchover-ack-legacy"', False),
            ("debian:trixie", "globals", '"migration.nonesuch"', False),
        ):
            file.write_text(
                f'name = "x"\n[[devices]]\n[{table}]\n{name} = "off"\n'
            )
            if known:
                found = self.run_of(qemu, str(file))
                self.assertEqual(found["verdict"], "pass")
                continue
            done = self.command("run", str(file), "--qemu", qemu)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(f"{file}:4: {table}.", done.stderr)
