# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest feels of a migration is the blackout, and what is told."""

from __future__ import annotations

import sys
from pathlib import Path

from avocado import Test

# Avocado imports a test by its path, without the folder that it is in.
sys.path.insert(0, str(Path(__file__).parent))

from testbed import program, run

from harness.assess import assess
from harness.downtime.bundle import breakdown
from harness.scenario.model import Outcome
from harness.verdict import Verdict


class Felt(Test):
    """Heartbeats of the guest, before and after."""

    timeout = 900

    def _felt(self, variant: str, scenario: str) -> None:
        path = Path(self.workdir, f"{variant}-{scenario}")
        bundle = run(program(variant), scenario, path)
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        found = breakdown(bundle)
        gap = found.beside.guest_gap
        assert gap is not None, found.not_observable
        self.assertTrue(gap.in_order)
        self.assertTrue(gap.explained, str(gap))
        self.assertEqual(gap.duration_ns, gap.longest_ns)
        assert found.blackout.duration_ns is not None
        told_ns = gap.pause_ns + gap.stop_request_ns + gap.after_ns
        self.assertLess(
            gap.duration_ns - found.blackout.duration_ns,
            2 * gap.period_ns + told_ns,
        )

    def test_one_device_without_the_series(self) -> None:
        self._felt("base", "one-device-with-heartbeat")

    def test_two_devices(self) -> None:
        self._felt("patched", "two-devices-with-heartbeat")

    def test_a_guest_that_dirties_memory(self) -> None:
        self._felt("patched", "guest-dirties-memory")

    def test_a_guest_that_dirties_too_much(self) -> None:
        path = Path(self.workdir, "b")
        bundle = run(program("patched"), "guest-dirties-too-much", path)
        self.assertEqual(bundle.manifest.result.outcome, Outcome.TIMEOUT)
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
