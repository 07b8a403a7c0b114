# SPDX-License-Identifier: GPL-2.0-or-later
"""Histories of invented results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vfio_p2p.history.database import Entry, Metric

MS = 1_000_000


def entry(value_ns: int = 300 * MS, revision: str = "c0ffee") -> Entry:
    """Make a result of a scenario with two devices."""
    return Entry(
        recorded_s=1_700_000_000,
        digest=f"d-{revision}",
        qemu_revision=revision,
        qemu_revision_s=1_600_000_000,
        qemu_version="QEMU emulator version 10.0.13",
        variant="stock",
        build=f"b-{revision}",
        project_revision="f00d",
        scenario="two-devices",
        scenario_digest="5ce",
        seed=42,
        host="testbed",
        testbed="7ebed",
        metrics=(
            Metric("blackout", value_ns, "ns"),
            Metric("qmp_downtime", 20, "ms"),
        ),
    )


def entries(values_ns: Iterable[int]) -> list[Entry]:
    """Make results of one revision after another, a day apart."""
    return [
        replace(
            entry(value_ns, f"{number:04x}"),
            qemu_revision_s=1_600_000_000 + 86_400 * number,
        )
        for number, value_ns in enumerate(values_ns)
    ]
