# SPDX-License-Identifier: GPL-2.0-or-later
"""The series keeps its promises, and each mutant is caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from avocado import Test
from testbed import judged, program, run
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.model import Device, Flag, Scenario
from vfio_p2p.verdict.assess import assess

_NO_PRECOPY = (Flag.STOP_COPY, Flag.P2P)
_BEFORE = "Migration is currently not supported with multiple VFIO devices"
_MIXED = (
    "Multiple VFIO devices migration is supported only if all of them "
    "support P2P migration"
)


class Base(Test):
    """QEMU without the series."""

    timeout = 900

    def test_refuses_two_devices(self) -> None:
        bundle = run(program("base"), "two-devices", Path(self.workdir, "b"))
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        result = bundle.manifest.result
        self.assertEqual(result.outcome, "refused")
        self.assertEqual(result.side, "source")
        self.assertIn(_BEFORE, result.stderr)

    def test_refuses_mixed_devices(self) -> None:
        bundle = run(
            program("base"), "mixed-devices", Path(self.workdir, "b")
        )
        self.assertIn(_BEFORE, bundle.manifest.result.stderr)

    def test_migrates_one_device(self) -> None:
        found = judged("base", "one-device", Path(self.workdir, "b"))
        self.assertEqual(found.verdict, Verdict.PASS)
        self.assertGreater(found.blackout_ns, 0)

    def test_is_not_taken_for_the_series(self) -> None:
        """A tree without the series does not pass as one with it."""
        bundle = run(program("base"), "one-device", Path(self.workdir, "b"))
        logs = Path(self.workdir, "b")
        self.assertEqual(bundle.manifest.result.outcome, "migrated")
        self.assertNotEqual(_check(logs, "--expect-p2p"), 0)


class Patched(Test):
    """QEMU with the series."""

    timeout = 900

    def _keeps_order(
        self, devices: int, flags: tuple[Flag, ...] = tuple(Flag)
    ) -> None:
        scenario = Scenario(
            name=f"order-{devices}",
            devices=(
                Device(
                    count=devices,
                    flags=flags,
                    latency_us={"STOP_COPY>STOP": 2000},
                ),
            ),
        )
        path = Path(self.workdir, "b")
        found = judged("patched", scenario, path)
        self.assertEqual(found.verdict, Verdict.PASS, str(found))
        self.assertGreater(found.blackout_ns, 0)
        logs = ("--devices", str(devices), "--expect-p2p")
        self.assertEqual(_check(path, *logs), 0)
        self.assertNotEqual(
            _check(path, "--devices", str(devices + 1)), 0
        )

    def test_multifd_moves_the_state_of_two_devices_at_once(self) -> None:
        alone, together = (
            judged("patched", f"bandwidth-{case}", Path(self.workdir, case))
            for case in ("one-after-another", "at-once")
        )
        self.assertEqual(alone.verdict, Verdict.PASS)
        self.assertEqual(together.verdict, Verdict.PASS)
        assert alone.blackout_ns
        assert together.blackout_ns
        # What one of the devices takes to be loaded, within a tenth.
        saved_ns = (alone.blackout_ns or 0) - (together.blackout_ns or 0)
        self.assertAlmostEqual(saved_ns, 128_200_000, delta=12_800_000)

    def test_order_with_1_device(self) -> None:
        self._keeps_order(1)

    def test_order_with_2_devices(self) -> None:
        self._keeps_order(2)

    def test_order_with_4_devices(self) -> None:
        self._keeps_order(4)

    def test_order_with_1_device_without_precopy(self) -> None:
        self._keeps_order(1, _NO_PRECOPY)

    def test_order_with_2_devices_without_precopy(self) -> None:
        self._keeps_order(2, _NO_PRECOPY)

    def test_order_with_4_devices_without_precopy(self) -> None:
        self._keeps_order(4, _NO_PRECOPY)

    def test_refuses_mixed_devices(self) -> None:
        bundle = run(
            program("patched"), "mixed-devices", Path(self.workdir, "b")
        )
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        self.assertIn(_MIXED, bundle.manifest.result.stderr)


class Mutants(Test):
    """A series that is broken on purpose is caught."""

    timeout = 900

    def _is_caught(self, mutant: str, rule: str) -> None:
        found = judged(
            f"patched+{mutant}", "two-devices", Path(self.workdir, "b")
        )
        self.assertEqual(found.verdict, Verdict.FAIL)
        caught = [x for x in found.findings if x.rule == rule]
        self.assertTrue(caught, str(found.findings))
        devices = {name for x in caught for name in x.devices}
        self.assertLessEqual({"src0", "src1"}, devices)
        self.assertTrue(all(x.records for x in caught))

    def test_main_before_prepare(self) -> None:
        self._is_caught("main-before-prepare", "barrier")

    def test_one_pass(self) -> None:
        self._is_caught("one-pass", "barrier")

    def test_stop_in_complete_precopy(self) -> None:
        self._is_caught("stop-in-complete-precopy", "stop-copy")


def _check(bundle: Path, *arguments: str) -> int:
    """Return the exit code of ``vfio-p2p check`` on the logs of a bundle."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vfio_p2p", "check"),
            str(bundle / "source" / "trace.log"),
            *("--destination", str(bundle / "destination" / "trace.log")),
            *arguments,
        ],
        check=False,
    )
    return done.returncode
