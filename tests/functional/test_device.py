# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated device keeps what VFIO's uAPI promises."""

from __future__ import annotations

from avocado import Test
from vfio_p2p.places.sealed.selftest import run_selftest


class Device(Test):
    """p2psim, by itself."""

    timeout = 900

    def test_its_own_test_passes(self) -> None:
        found, console = run_selftest()
        self.assertEqual(found.failed, (), f"all of it: {console}")
        self.assertGreater(found.passed, 500)
