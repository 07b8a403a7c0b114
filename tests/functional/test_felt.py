# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's absence is the blackout and the other parts of the gap."""

from __future__ import annotations

from pathlib import Path

from avocado import Test
from testbed import program, run
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import read_run

# The time to pause a vCPU, and to resume it up to its next heartbeat; a fifth
# of the blackouts of these migrations.
_BESIDE_NS = 8_000_000


class Felt(Test):
    """Heartbeats of the guest before and after a migration."""

    timeout = 900

    def _felt(self, variant: str, scenario: str) -> None:
        path = Path(self.workdir, f"{variant}-{scenario}")
        bundle = run(program(variant), scenario, path)
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        found = read_run(bundle).breakdown
        gap = found.beside.guest_gap
        assert gap is not None, found.not_observable
        self.assertTrue(gap.explained, str(gap))
        self.assertEqual(gap.duration_ns, gap.longest_ns)
        beside_ns = gap.pause_ns + gap.stop_request_ns + gap.after_ns
        self.assertLess(beside_ns, _BESIDE_NS, str(gap))

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
