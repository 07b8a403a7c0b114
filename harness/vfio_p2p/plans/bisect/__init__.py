# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the commit of a QEMU tree that changed a downtime.

`vfio_p2p.plans.bisect.search` runs ``git bisect``.  For each commit, git runs
``python -m vfio_p2p.plans.bisect``, which makes one exact run.
"""
