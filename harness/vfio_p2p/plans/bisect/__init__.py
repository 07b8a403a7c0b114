# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the commit of a QEMU tree that changed a downtime.

`vfio_p2p.plans.bisect.search` does it: ``git bisect`` with an exact run for
each commit, for which git runs ``python -m vfio_p2p.plans.bisect``.
"""
