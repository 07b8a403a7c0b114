# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job at places of real devices: prepare, validate, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hosting import HostTest


class OneHost(HostTest):
    """Both QEMUs run on one host."""

    def test_validate(self) -> None:
        before = self.state() if self.own else {}
        if self.own:
            self.vfio_p2p("host", "prepare", "--at", self.at)
            self.vfio_p2p("host", "check", "--at", self.at)
        history = str(Path(self.workdir, "history.sqlite3"))
        found = self.report("validate", "--at", self.at, "--history", history)
        self.judge(found)
        kept = self.report("history", "export", "--db", history)["results"]
        self.assertEqual([x["host"] for x in kept], [self.at] * 6)
        if self.own:
            # Each run of the lab's devices has a log of its own.
            logs = list(
                Path(self.workdir, "out").glob("patched-*/*/devices/*.log")
            )
            self.assertTrue(logs)
            for log in logs:
                users = log.read_text().count(" live ")
                self.assertEqual(users, 1, log)
            self.assertNotEqual(self.state(), before)
            self.vfio_p2p("host", "restore", "--at", self.at)
            self.assertEqual(self.state(), before)
            self.assertEqual(self.qemus(), 0)

    def judge(self, found: dict[str, Any]) -> None:
        """Check what the report says of 1, 2 and 4 functions."""
        self.assertEqual(found["verdict"], "pass")
        runs = {(x["variant"], x["scenario"]): x for x in found["runs"]}
        self.assertEqual(len(runs), 6)
        for (variant, scenario), run in runs.items():
            self.assertFalse(run["exact"])
            migrates = variant == "patched" or scenario == "one-device"
            self.assertEqual(run["blackout_ns"] is not None, migrates)
            if migrates:
                self.assertEqual(run["summary"], "migrated")
                self.assertTrue(run["phases"])
            else:
                self.assertEqual(run["summary"], "refused")
            self.bounded(run)

    def bounded(self, run: dict[str, Any]) -> None:
        """One host has one clock."""
        self.assertIsNone(run["blackout_bound_ns"])


class TwoHosts(OneHost):
    """The migration goes from one host to another."""

    lab_options = ("--hosts", "2", "--clock-offset-ms", "100")
    lab_place = "lab-pair"

    def bounded(self, run: dict[str, Any]) -> None:
        """The clocks were 100 ms apart, and are taken off."""
        clock = run["inputs"]["place"]["clock"]
        if self.own:
            # `lab up` sets the clocks through SSH, which has a bound, too.
            error_ns = abs(clock["offset_ns"] - 100_000_000)
            self.assertLess(error_ns, 50_000_000 + clock["bound_ns"])
        if run["blackout_ns"] is not None:
            self.assertEqual(run["blackout_bound_ns"], clock["bound_ns"])
            self.assertLess(clock["bound_ns"], 50_000_000)
