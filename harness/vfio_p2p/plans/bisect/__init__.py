# SPDX-License-Identifier: GPL-2.0-or-later
"""Which commit of a QEMU tree changed a downtime: git bisect, sealed runs.

`search` is the whole of it; git runs `vfio_p2p.plans.bisect.__main__` for each
commit that it wants to know about.
"""

from vfio_p2p.plans.bisect.driver import Above, Found, Sample, search

__all__ = ["Above", "Found", "Sample", "search"]
