# SPDX-License-Identifier: GPL-2.0-or-later
"""vfio-pci devices, real and simulated."""

from vfio_p2p.devices.driver import Driver, VfioDevice

__all__ = ["Driver", "VfioDevice"]
