# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests at places of real devices: heartbeats at the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hosting import HostTest

_SCENARIOS = ("one-device-with-heartbeat", "two-devices-with-heartbeat")


class HeartbeatsOfOneHost(HostTest):
    """The gap that a guest notices is measured with any device."""

    def test_the_gap(self) -> None:
        if self.own:
            self.vfio_p2p("host", "prepare", "--at", self.at)
        for scenario in _SCENARIOS:
            found = self.report(
                "run", scenario, "--at", self.at,
                "--out", str(Path(self.workdir, scenario)),
            )  # fmt: skip
            (run,) = found["runs"]
            self.assertEqual((run["verdict"], run["notes"]), ("pass", []))
            self.measured(run)
            for side in ("source", "destination"):
                log = Path(self.workdir, scenario, side, "console.log")
                *_, end = log.read_text().splitlines()
                self.assertIn("end how=closed", end)
                self.assertIn("missed=0 repeated=0", end)

    def test_a_limit_for_p2p_arcs(self) -> None:
        if self.own:
            self.vfio_p2p("host", "prepare", "--at", self.at)
        found = self.report(
            "run", "one-device", "--at", self.at, "--fail-above-p2p",
            "0.000001", code=1,
        )  # fmt: skip
        (finding,) = found["runs"][0]["findings"]
        self.assertEqual(finding["rule"], "p2p-time")

    def measured(self, run: dict[str, Any]) -> None:
        """Check what the report says of the gap."""
        gap = run["guest_gap"]
        self.assertEqual(gap["device"], "console")
        # The guest is gone for longer than its devices.
        self.assertGreater(gap["duration_ns"], run["blackout_ns"])
        parts = ("rest_ns", "pause_ns", "stop_request_ns", "after_ns")
        self.assertEqual(
            gap["duration_ns"],
            run["blackout_ns"] + sum(gap[part] for part in parts),
        )
        self.assertEqual(gap["bound_ns"], run["blackout_bound_ns"])


class HeartbeatsOfTwoHosts(HeartbeatsOfOneHost):
    """The gap begins on one host and ends on another."""

    lab_options = ("--hosts", "2", "--clock-offset-ms", "100")
    lab_place = "lab-pair"

    def measured(self, run: dict[str, Any]) -> None:
        """The bound of the clocks is that of the gap, too."""
        super().measured(run)
        if run["inputs"]["place"]["clock"] is None:
            self.cancel(f"{self.at} has one clock.")
        self.assertIsNotNone(run["guest_gap"]["bound_ns"])
