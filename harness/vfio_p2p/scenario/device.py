# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of a scenario, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vfio_p2p import uapi
from vfio_p2p.scenario.fault import check_fault
from vfio_p2p.scenario.values import (
    Bytes,
    Count,
    LatencyUs,
    NsPerKib,
    Occasion,
    PropertyName,
    PropertyValue,
    Strict,
    check_arc,
)
from vfio_p2p.side import Side

# The keys that a profile sets besides the latencies.  What neither it nor the
# device sets is left to p2psim.
WAYS = (
    "read_ns_per_kib",
    "write_ns_per_kib",
    "load_in",
    "on_bad_stream",
    "reset",
)

PAGE_BYTES = 4096
# The firmware uses memory below.
DMA_BASE = 16 << 20

# Which device it is, and where in the VM, is not for a scenario to say.
_TAKEN = ("addr", "bus", "fd", "host", "id", "sysfsdev", "vf-token")


class Flag(StrEnum):
    """The VFIO_MIGRATION_* flags of a device, as p2psim spells them."""

    STOP_COPY = "stop_copy"
    P2P = "p2p"
    PRE_COPY = "pre_copy"


class LoadIn(StrEnum):
    """Where a device checks what is loaded, and takes it over.

    The uAPI allows both.  mlx5's driver does it in `write`, and asks for
    nothing when RESUMING is left; see images/p2psim/README.md.
    """

    RESUMING_STOP = "resuming_stop"
    WRITE = "write"


class OnBadStream(StrEnum):
    """The state of a device that refuses to leave RESUMING."""

    ERROR = "error"
    KEEP = "keep"


class ResetWay(StrEnum):
    """What a reset of a device does while a request is running.

    It waits for the end of the request, or returns at once and takes effect
    then.
    """

    WAIT = "wait"
    DEFER = "defer"


class Peers(StrEnum):
    """The devices of its side that a device sends transactions to.

    With `pairs` the first device that says so sends to the second and back,
    the third to the fourth, and so on.  With `mesh` each device that says so
    sends to all others that do.
    """

    NONE = "none"
    PAIRS = "pairs"
    MESH = "mesh"


def check_properties(properties: Mapping[str, str]) -> None:
    """Check that properties of vfio-pci are for a scenario to set.

    :param properties: The properties.
    :raise ValueError: When one says which device it is, or where.
    """
    taken = [name for name in properties if name in _TAKEN]
    if taken:
        raise ValueError(
            f"properties: {taken[0]} says which device it is, or where, and "
            "is not for a scenario to set"
        )


class Device(Strict, frozen=True, kw_only=True):
    """Simulated devices of one kind; see images/p2psim/README.md.

    A device with `peers` sends a transaction in each period while it runs.
    What neither the device nor its profile says is as follows: state takes no
    time to read or write, `load_in` is `resuming_stop`, `on_bad_stream` is
    `error`, and `reset` is `wait`.

    :param count: The number of such devices.
    :param flags: The migration flags that the device offers.  Without any, it
        cannot migrate.
    :param size_bytes: The size of the device's memory.
    :param initial_bytes: The memory that is offered as initial data when
        precopy begins; at most `size_bytes`.
    :param dirty_bytes: The memory that becomes dirty again each time precopy
        was drained; at most `size_bytes`.
    :param profile: The name or file of a latency profile.  What the device
        itself says of `latency_us`, `read_ns_per_kib`, `write_ns_per_kib`,
        `load_in`, `on_bad_stream` and `reset` overrides the profile.
    :param latency_us: The time that an arc takes, by its name ``FROM>TO`` in
        the uAPI's names of states.  Other arcs take no time.
    :param read_ns_per_kib: The time that 1024 bytes of the device's state take
        while they are read from it.
    :param write_ns_per_kib: The time that 1024 bytes take while they are
        written to it.
    :param load_in: Where the device checks and takes over its state.
    :param on_bad_stream: The state of the device after it has refused, in
        RESUMING to STOP, what it was given.
    :param reset: What a reset of the device does while a request is running.
    :param dma_logging: Whether the device offers DMA logging.  QEMU then adds
        a migration blocker where it would refuse the device otherwise.
    :param iommufd: Whether QEMU reaches the device through its own file and an
        IOMMUFD, rather than through the file of its group and a container.
    :param dma_bytes: The guest memory that the device writes to while it runs,
        one page after another, around and around; 0 means that it does no DMA.
    :param dma_period_us: The time from one such write to the next.
    :param precopy_info_v2: Whether the device offers the feature
        VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 of Linux 7.1, with which it can
        announce new initial data.
    :param reinit_drain: With how many drains of precopy the device has new
        initial data: `initial_bytes` again; 0 means never.
    :param reinit_query: With how many queries of precopy info since the last
        read of its data the device has new initial data; 0 means never.
    :param root_port: Whether the device is behind a PCIe root port of its own,
        one level deeper in the qdev tree.  It can then be plugged and
        unplugged.
    :param peers: The devices of its side that the device sends to.
    :param peer_period_us: The time from one transaction to the next.
    :param peer_completion_us: The time until a transaction has arrived and is
        answered.
    :param faults: Lines of p2psim's attribute ``faults``.
    :param fault_side: The side whose device has the faults; required with
        `faults`.
    :param properties: Properties of QEMU's vfio-pci, which override those
        that the place or the course gives the device.
    """

    count: Count = 1
    flags: tuple[Flag, ...] = (Flag.STOP_COPY, Flag.P2P, Flag.PRE_COPY)
    size_bytes: Annotated[int, Meta(ge=4096, le=64 << 20)] = 65536
    initial_bytes: Bytes = 4096
    dirty_bytes: Bytes = 0
    profile: Annotated[str, Meta(max_length=1024)] = ""
    latency_us: dict[str, LatencyUs] = msgspec.field(default_factory=dict)
    read_ns_per_kib: NsPerKib | UnsetType = UNSET
    write_ns_per_kib: NsPerKib | UnsetType = UNSET
    load_in: LoadIn | UnsetType = UNSET
    on_bad_stream: OnBadStream | UnsetType = UNSET
    reset: ResetWay | UnsetType = UNSET
    dma_logging: bool = False
    iommufd: bool = False
    dma_bytes: Annotated[int, Meta(ge=0, le=64 << 20)] = 0
    dma_period_us: Annotated[int, Meta(ge=10, le=60_000_000)] = 1000
    precopy_info_v2: bool = False
    reinit_drain: Occasion = 0
    reinit_query: Occasion = 0
    root_port: bool = False
    peers: Peers = Peers.NONE
    peer_period_us: Annotated[int, Meta(ge=10, le=60_000_000)] = 500
    peer_completion_us: Annotated[int, Meta(ge=0, le=60_000_000)] = 10
    faults: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    fault_side: Side | None = None
    properties: dict[PropertyName, PropertyValue] = msgspec.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        if len(set(self.flags)) != len(self.flags):
            raise ValueError("flags: a flag is named twice")
        if self.flags and Flag.STOP_COPY not in self.flags:
            raise ValueError("flags: the uAPI requires stop_copy")
        for key in ("initial_bytes", "dirty_bytes"):
            if getattr(self, key) > self.size_bytes:
                raise ValueError(f"{key}: it is more than size_bytes")
        for arc in self.latency_us:
            check_arc("latency_us", arc)
        for fault in self.faults:
            try:
                check_fault(fault, self.migration_flags, self.size_bytes)
            except ValueError as err:
                raise ValueError(f"faults: {err}") from None
        if self.faults and self.fault_side is None:
            raise ValueError("faults: fault_side must say which side has them")
        if self.fault_side is not None and not self.faults:
            raise ValueError("fault_side: there are no faults")
        if self.dma_bytes % PAGE_BYTES:
            raise ValueError("dma_bytes: it is not a number of whole pages")
        check_properties(self.properties)
        self._check_precopy()

    def _check_precopy(self) -> None:
        for key in ("reinit_drain", "reinit_query"):
            if getattr(self, key) and not self.precopy_info_v2:
                raise ValueError(
                    f"{key}: it can be announced only with precopy_info_v2"
                )
        if self.precopy_info_v2 and not self.has_precopy:
            raise ValueError("precopy_info_v2: the flags lack pre_copy")

    @property
    def migration_flags(self) -> uapi.MigrationFlags:
        """The flags that the device offers, as the uAPI defines them."""
        flags = uapi.MigrationFlags(0)
        for flag in self.flags:
            flags |= uapi.MigrationFlags[flag.name]
        return flags

    @property
    def has_p2p(self) -> bool:
        """True if the device offers the P2P states."""
        return Flag.P2P in self.flags

    @property
    def has_precopy(self) -> bool:
        """True if the device offers PRE_COPY."""
        return Flag.PRE_COPY in self.flags


def dma_addresses(devices: Iterable[Device]) -> tuple[int, ...]:
    """Return where in the guest's memory each device writes.

    :param devices: All single devices of a side, in order.
    :return: An address for each, also for one that does no DMA.
    """
    found = []
    address = DMA_BASE
    for device in devices:
        found.append(address)
        address += device.dma_bytes
    return tuple(found)


# Keys of devices that the format did not have at first.
LATER: dict[str, object] = {
    "properties": {},
    "iommufd": False,
    "dma_bytes": 0,
    "dma_period_us": 1000,
    "precopy_info_v2": False,
    "reinit_drain": 0,
    "reinit_query": 0,
}
