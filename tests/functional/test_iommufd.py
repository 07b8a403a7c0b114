# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices behind an IOMMUFD that write to the guest's memory."""

from __future__ import annotations

from pathlib import Path

from avocado import Test
from testbed import program, run
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.choice import VmKernel
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places.sealed.selftest import run_selftest
from vfio_p2p.trace import DeviceLog
from vfio_p2p.trace.device import DmaMemory, LoggingReport, Request
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import read_run


def logs_of(bundle: Bundle) -> dict[str, DeviceLog]:
    """Return the logs of all devices of both sides, by name."""
    return {
        name: log
        for side in read_run(bundle).timelines
        for name, log in side.logs.items()
    }


def requests(bundle: Bundle) -> list[tuple[str, str]]:
    """Return what every device was asked for, in the order of all."""
    found = [
        (entry.time_ns, name, str(entry.target))
        for name, log in logs_of(bundle).items()
        for entry in log.of(Request)
    ]
    return [(name, target) for _, name, target in sorted(found)]


class Iommufd(Test):
    """The testbed's own kernel, which has IOMMUFD."""

    # The kernel is built first.
    timeout = 2400

    def played(self, scenario: str) -> Bundle:
        """Run a scenario, which must pass."""
        bundle = run(
            program("patched"), scenario, Path(self.outputdir, scenario)
        )
        found = assess(bundle)
        self.assertIs(found.verdict, Verdict.PASS, f"{found}")
        return bundle

    def test_nothing_is_lost(self) -> None:
        bundle = self.played("iommufd-two-devices")
        place = bundle.manifest.inputs.place
        assert isinstance(place, SealedProvenance)
        self.assertEqual(place.kernel_kind, VmKernel.OWN)
        logs = logs_of(bundle)
        for name in ("dst0", "dst1"):
            (memory,) = logs[name].of(DmaMemory)
            self.assertGreater(memory.last, memory.pages)
            self.assertEqual((memory.stale, memory.empty), (0, 0))
        for name in ("src0", "src1"):
            reports = logs[name].of(LoggingReport)
            # Precopy has converged: the last round had little to send.
            self.assertGreater(len(reports), 1)
            most = max(x.pages for x in reports)
            self.assertLess(reports[-1].pages, most / 2)

    def test_what_is_not_reported_is_found(self) -> None:
        for scenario in ("dma-report-short", "dma-report-late"):
            found = assess(self.played(scenario))
            self.assertEqual({x.rule for x in found.known}, {"dma-memory"})

    def test_both_containers_give_the_same_order(self) -> None:
        one, other = (
            requests(self.played(scenario))
            for scenario in ("dma-logged-by-devices",
                             "iommufd-tracked-when-stopped")
        )  # fmt: skip
        self.assertEqual(one, other)
        self.assertGreater(len(one), 12)

    def test_the_device_on_this_kernel(self) -> None:
        found, console = run_selftest(kernel=VmKernel.OWN)
        self.assertEqual(found.failed, (), f"all of it: {console}")
        self.assertGreater(found.passed, 1100)
