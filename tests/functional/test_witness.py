# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of other drivers confirm the results of p2psim."""

from __future__ import annotations

import re
from pathlib import Path

from avocado import Test
from testbed import program, run
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.devices import Driver, mtty_limits, p2pvf_limits
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.load import load
from vfio_p2p.verdict.assess import assess

_STEP = re.compile(
    r"(vfio_(?:vmstate_change|migration_set|save_cleanup|load_cleanup)\w*) "
    r" \(([^)]*)\)(.*)"
)


def steps(bundle: Bundle, side: str) -> list[tuple[str, int, str]]:
    """Return QEMU's requests in order, without times and names."""
    names: dict[str, int] = {}
    return [
        (event, names.setdefault(device, len(names)), what)
        for event, device, what in _STEP.findall(
            bundle.files[f"{side}/trace.log"].decode()
        )
    ]


class Mtty(Test):
    """Linux's own sample driver."""

    timeout = 900
    driver = Driver.MTTY

    def on_theirs(self, variant: str, scenario: str, name: str) -> Bundle:
        """Make one sealed run on that driver's devices."""
        limits = {Driver.MTTY: mtty_limits, Driver.P2PVF: p2pvf_limits}
        return run(
            program(variant),
            limits[self.driver].adapt(load(scenario)),
            Path(self.workdir, name),
            driver=self.driver,
        )

    def test_same_steps_as_on_p2psim(self) -> None:
        ours = run(program("patched"), "two-devices", Path(self.workdir, "p"))
        bundle = self.on_theirs("patched", "two-devices", "m")
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        for side in ("source", "destination"):
            self.assertGreater(len(steps(ours, side)), 20)
            self.assertEqual(steps(bundle, side), steps(ours, side))

    def test_same_seed_same_bytes(self) -> None:
        first = self.on_theirs("patched", "two-devices", "1")
        second = self.on_theirs("patched", "two-devices", "2")
        self.assertEqual(first.digest, second.digest)
        self.assertEqual(first.manifest.inputs.place.driver, self.driver)

    def test_refuses_two_devices_without_the_series(self) -> None:
        bundle = self.on_theirs("base", "two-devices", "b")
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        self.assertEqual(bundle.manifest.result.outcome, "refused")

    def test_catches_a_broken_order(self) -> None:
        bundle = self.on_theirs(
            "patched+main-before-prepare", "two-devices", "x"
        )
        found = assess(bundle)
        self.assertEqual(found.verdict, Verdict.FAIL)
        self.assertIn("barrier", [x.rule for x in found.findings])


class P2pvf(Mtty):
    """PCI virtual functions, with a variant driver of vfio-pci."""

    driver = Driver.P2PVF

    def test_their_logs_agree_with_qemu(self) -> None:
        """They keep the logs that mtty does not."""
        bundle = self.on_theirs("patched", "two-devices", "l")
        logs = sorted(x for x in bundle.files if x.startswith("devices/"))
        self.assertEqual(
            logs,
            [
                f"devices/0000:0{bus}:00.{function}.log"
                for bus in (1, 2)
                for function in (1, 2)
            ],
        )
        for name in logs:
            self.assertIn(b" arc from=RUNNING_P2P to=", bundle.files[name])
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)

    def test_a_fault(self) -> None:
        bundle = self.on_theirs(
            "patched", "without-precopy-fault-prepare-fails", "f"
        )
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)

    def test_bars_that_are_mapped(self) -> None:
        """Finding 8 of docs/findings.md, and the patch that mends it."""
        for variant, outcome in (
            ("patched", "migration-failed"),
            ("patched+mapped-pages-synced", "migrated"),
        ):
            bundle = self.on_theirs(variant, "mapped-bars", variant)
            self.assertEqual(bundle.manifest.result.outcome, outcome)
            self.assertEqual(assess(bundle).verdict, Verdict.PASS)
