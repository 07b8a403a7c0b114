# SPDX-License-Identifier: GPL-2.0-or-later
"""Patch test harness for QEMU's VFIO live migration.

Data flows one way, and each stage can be used alone::

    series + source --build--> QEMU --\\
    scenario + seed -------------------+--run--> bundle
    testbed image ---------------------/
    bundle --trace--> events --timeline--> arcs --oracle--> verdict --> report

Only *build* and *run* touch the machine; everything right of the bundle is
a pure function.
"""
