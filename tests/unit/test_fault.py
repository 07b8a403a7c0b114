# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault lines are refused if the kernel would refuse or ignore them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vfio_p2p.scenario.fault import ERRNOS, check_fault
from vfio_p2p.scenario.model import Device, Flag
from vfio_p2p.side import Side
from vfio_p2p.uapi import ALL_FLAGS, MigrationFlags

NO_P2P = MigrationFlags.STOP_COPY | MigrationFlags.PRE_COPY
MODULE = Path(__file__).parents[2] / "images" / "p2psim" / "fault.c"


@pytest.mark.parametrize(
    "line",
    [
        "arc PRE_COPY PRE_COPY_P2P 1 fail EIO",
        "arc PRE_COPY PRE_COPY_P2P 0 error ETIMEDOUT",
        "arc STOP RUNNING_P2P 4294967295 hang 3600000000",
        "arc STOP_COPY STOP 2 late 0",
        "save 1 corrupt 65535",
        "save 1 short 4294967295",
        "reset 2 fail EBUSY",
        "  reset 2\tfail EBUSY ",
    ],
)
def test_good(line: str) -> None:
    check_fault(line, ALL_FLAGS, 65536)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "none of: arc FROM TO N fail|error ERRNO; arc"),
        ("reset", "none of"),
        ("reset 1 fail EIO now", "none of"),
        ("reset 1 hang 5", "none of"),
        ("save 1 fail EIO", "none of"),
        ("arc RUNNING PRE_COPY 1 corrupt 5", "none of"),
        ("arc RUNNING PRE_COPY fail EIO", "none of"),
        ("open 1 fail EIO", "none of"),
        ("arc RUNNING STOP_COPY 1 fail EIO", "RUNNING to STOP_COPY is not"),
        ("arc RUNNING FLYING 1 fail EIO", "RUNNING to FLYING is not"),
        ("arc RUNNING STOP 1 fail EIO", "RUNNING to STOP is not a single"),
        ("arc RUNNING PRE_COPY 1 fail ENOTHING", "'ENOTHING' is not one of"),
        ("arc RUNNING PRE_COPY 1 fail 5", "'5' is not one of E"),
        ("arc RUNNING PRE_COPY x fail EIO", "'x' is not a count of tries"),
        ("arc RUNNING PRE_COPY -1 fail EIO", "'-1' is not a count"),
        ("arc RUNNING PRE_COPY 4294967296 fail EIO", "0 to 4294967295"),
        ("arc RUNNING PRE_COPY \u0661 fail EIO", "is not a count of tries"),
        ("arc RUNNING PRE_COPY 1 hang 1s", "'1s' is not microseconds"),
        ("arc RUNNING PRE_COPY 1 hang 3600000001", "0 to 3600000000"),
        ("save 1 corrupt 65536", "'65536' is not an offset, 0 to 65535"),
        ("save 1 short -1", "'-1' is not bytes"),
        ("reset 1 fail eio", "'eio' is not one of"),
    ],
)
def test_wrong(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        check_fault(line, ALL_FLAGS, 65536)


def test_arcs_are_those_of_the_device() -> None:
    without = "arc RUNNING STOP 1 fail EIO"
    with_p2p = "arc RUNNING RUNNING_P2P 1 fail EIO"
    check_fault(without, NO_P2P, 4096)
    check_fault(with_p2p, ALL_FLAGS, 4096)
    for line, flags in ((without, ALL_FLAGS), (with_p2p, NO_P2P)):
        with pytest.raises(ValueError, match="not a single arc"):
            check_fault(line, flags, 4096)


@pytest.mark.parametrize(
    "line", ["arc STOP_COPY STOP 1 fail EIO", "save 1 short 1"]
)
def test_device_that_cannot_migrate(line: str) -> None:
    with pytest.raises(ValueError, match="a device that cannot migrate"):
        check_fault(line, MigrationFlags(0), 4096)
    check_fault("reset 1 fail EIO", MigrationFlags(0), 4096)


def test_faults_must_fit_the_flags_and_size_of_the_device() -> None:
    device = Device(
        flags=(Flag.STOP_COPY, Flag.PRE_COPY),
        faults=("arc PRE_COPY STOP_COPY 1 fail EIO", "save 1 corrupt 65535"),
        fault_side=Side.SOURCE,
    )
    assert device.migration_flags == NO_P2P
    with pytest.raises(ValueError, match=r"^faults: PRE_COPY to PRE_COPY_P2P"):
        Device(
            flags=(Flag.STOP_COPY, Flag.PRE_COPY),
            faults=("arc PRE_COPY PRE_COPY_P2P 1 fail EIO",),
            fault_side=Side.SOURCE,
        )
    with pytest.raises(ValueError, match=r"^faults: '4096' is not an offset"):
        Device(
            size_bytes=4096,
            faults=("save 1 corrupt 4096",),
            fault_side=Side.SOURCE,
        )


def test_errnos_are_those_of_the_module() -> None:
    found = re.findall(r"NAMED\((E\w+)\)", MODULE.read_text())
    assert set(found) == ERRNOS
