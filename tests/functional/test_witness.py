# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's own sample driver confirms the results of p2psim."""

from __future__ import annotations

import re
from pathlib import Path

from avocado import Test
from testbed import program, run
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.devices import Driver
from vfio_p2p.devices.mtty_limits import adapt
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
    """Basic scenarios on mtty."""

    timeout = 900

    def on_mtty(self, variant: str, scenario: str, name: str) -> Bundle:
        """Make one sealed run on mtty."""
        return run(
            program(variant),
            adapt(load(scenario)),
            Path(self.workdir, name),
            driver=Driver.MTTY,
        )

    def test_same_steps_as_on_p2psim(self) -> None:
        ours = run(program("patched"), "two-devices", Path(self.workdir, "p"))
        bundle = self.on_mtty("patched", "two-devices", "m")
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        for side in ("source", "destination"):
            self.assertGreater(len(steps(ours, side)), 20)
            self.assertEqual(steps(bundle, side), steps(ours, side))

    def test_same_seed_same_bytes(self) -> None:
        first = self.on_mtty("patched", "two-devices", "1")
        second = self.on_mtty("patched", "two-devices", "2")
        self.assertEqual(first.digest, second.digest)
        self.assertEqual(first.manifest.inputs.place.driver, "mtty")

    def test_refuses_two_devices_without_the_series(self) -> None:
        bundle = self.on_mtty("base", "two-devices", "b")
        self.assertEqual(assess(bundle).verdict, Verdict.PASS)
        self.assertEqual(bundle.manifest.result.outcome, "refused")

    def test_catches_a_broken_order(self) -> None:
        bundle = self.on_mtty(
            "patched+main-before-prepare", "two-devices", "x"
        )
        found = assess(bundle)
        self.assertEqual(found.verdict, Verdict.FAIL)
        self.assertIn("barrier", [x.rule for x in found.findings])
