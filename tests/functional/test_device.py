# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated device keeps what VFIO's uAPI promises."""

from __future__ import annotations

from avocado import Test

from harness.testbed.outer import find_outer
from harness.testbed.selftest import run_selftest


class Device(Test):
    """p2psim, by itself."""

    timeout = 900

    def test_its_own_test_passes(self) -> None:
        found, console = run_selftest(find_outer())
        self.assertEqual(found.failed, (), f"all of it: {console}")
        self.assertGreater(found.passed, 500)
