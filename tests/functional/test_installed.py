# SPDX-License-Identifier: GPL-2.0-or-later
"""The installed wheel does everything that a checkout does."""

from __future__ import annotations

import json

from avocado import Test
from installed import DATA, Installed
from vfio_p2p.paths import cache_dir


class Wheel(Test):
    """Commands of a user without root, HOME and checkout."""

    timeout = 1800

    def setUp(self) -> None:
        self.installed = Installed()
        self.installed.install()

    def tearDown(self) -> None:
        self.installed.remove()

    def test_commands_without_the_testbed(self) -> None:
        run = self.installed.run
        home = self.installed.home
        self.assertRegex(run("--version").out, r"^vfio-p2p \d+\.\d+")
        python = str(self.installed.venv / "bin" / "python")
        self.installed.run_program([python, "-m", "vfio_p2p", "--version"])
        commands = self.installed.commands()
        self.assertIn("validate", commands)
        self.assertGreater(len(commands), 12)
        for command in commands:
            self.assertIn("usage:", run(command, "--help").out)

        name = "qemu-10.0.13-two-devices"
        source = self.installed.give(DATA / f"{name}.source.log")
        self.installed.give(DATA / f"{name}.destination.log")
        checked = run(
            "check", source,
            "--destination", home / f"{name}.destination.log", "--json",
        )
        self.assertEqual(json.loads(checked.out)["verdict"], "pass")
        self.assertIn("order", run("rules").out)
        self.assertIn("two-devices", run("scenario", "list").out)
        self.assertIn("device", run("scenario", "show", "two-devices").out)
        listed = run("scenario", "show", "two-device", codes=(2,))
        self.assertIn("two-devices", listed.err)

        self.assertIn("10.0", run("series", "list").out)
        run("series", "export", "--base", "v10.0", home / "mails")
        self.assertTrue(list((home / "mails").iterdir()))
        # A release from Debian, unpacked as a user might have done it.
        trees = [
            path.parent
            for path in (cache_dir() / "sources").glob("*/tree/VERSION")
            if path.read_text().startswith("10.0.")
        ]
        tree = self.installed.give(trees[0])
        run("series", "verify", tree, codes=(0, 1))
        run("series", "apply", tree)
        self.assertIn("applied", run("series", "verify", tree).out)

        self.assertIn("total", run("cache", "list").out)
        run("cache", "prune")
        run("doctor", codes=(0, 4))
        self.assertIn("record", run("history", "list", codes=(2,)).err)

    def test_commands_that_build_and_run(self) -> None:
        run = self.installed.run
        home = self.installed.home
        self.installed.share_cache()
        for tree in "base", "patched":
            run(
                "run", "one-device", "--variant", tree,
                "--out", home / tree,
            )
        # Both trees were built before, with another interpreter.
        self.assertFalse((home / "cache" / "vfio-p2p" / "work").exists())
        validated = run(
            "validate", "--scenario", "one-device", "--out", home / "out"
        )
        self.assertIn("verdict: pass", validated.out)
        run(
            "compare", "base", "patched", "--scenario", "one-device",
            "--seeds", "2", "--out", home / "compared", codes=(0, 3),
        )
        run("compare", home / "base", home / "patched", codes=(0, 3))
        # The mutant of the demo may have to be built.
        run("demo", "--out", home / "demo")
        text = run("report", home / "patched")
        self.assertIn("one-device", text.out)
        html = home / "report.html"
        run("report", home / "patched", "--format", "html", "--out", html)
        self.assertIn("</html>", html.read_text())
        run("history", "record", home / "patched")
        self.assertIn("one-device", run("history", "list").out)
        # There is no room for results in the working folder.
        refused = run("validate", "--scenario", "one-device", codes=(2,))
        self.assertIn("out", refused.err)
