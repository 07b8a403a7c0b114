# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules: all that the series promises, in one table.

Each rule is data: its name, the reason for it, the source of the promise, and
the sides, releases and devices that it is about.  The checks are in modules
by subject.  `evidence` decides whether a log has enough to be checked at all.
"""

from __future__ import annotations

from vfio_p2p.oracle.ack import switchover_ack
from vfio_p2p.oracle.dma import dma_memory
from vfio_p2p.oracle.failure import cancelled, run_state, swallowed
from vfio_p2p.oracle.flow import destination, left, stop_late
from vfio_p2p.oracle.guest import heartbeat
from vfio_p2p.oracle.handlers import handlers
from vfio_p2p.oracle.model import SERIES, PairRule, Rule
from vfio_p2p.oracle.order import barrier, count, order
from vfio_p2p.oracle.requests import named, once, recover, sequence
from vfio_p2p.oracle.states import (
    legal,
    main_target,
    p2p,
    prepare_target,
    reached,
)
from vfio_p2p.oracle.traffic import conservation
from vfio_p2p.oracle.witness import agreement, checksum, stream_end
from vfio_p2p.timeline import Side
from vfio_p2p.uapi import MigrationFlags

_P2P = MigrationFlags.STOP_COPY | MigrationFlags.P2P

RULES: tuple[Rule | PairRule, ...] = (
    Rule(
        name="p2p",
        reason=(
            "With the series, every P2P device passes a P2P state when the "
            "VM starts or stops; without the series, none does."
        ),
        source="patch 5, vfio_vmstate_change_prepare()",
        check=p2p,
    ),
    Rule(
        name="count",
        reason=(
            "A device that is left out of a pass sends to devices that are "
            "stopped, or receives while it is stopped."
        ),
        source="patch 2, vm_state_notify(): each callback once per change",
        check=count,
    ),
    Rule(
        name="barrier",
        reason=(
            "A device that still sends to one that is already stopped loses "
            "its transaction."
        ),
        source="patch 2, vm_state_notify(): every prepare before every main",
        since=SERIES,
        needs=_P2P,
        check=barrier,
    ),
    Rule(
        name="order",
        reason=(
            "Whatever a device depends on has to start before the device "
            "and stop after it."
        ),
        source="patch 2, vm_state_notify(): both passes are reversed on stop",
        check=order,
    ),
    Rule(
        name="handlers",
        reason=(
            "A handler without a prepare callback knows nothing of the two "
            "passes, and stops or starts its device a second time, too "
            "early, or never."
        ),
        source="patch 2, vm_state_notify(): each main callback once",
        requests=True,
        witness=True,
        check=handlers,
    ),
    Rule(
        name="prepare-target",
        reason=(
            "PRE_COPY must go on to PRE_COPY_P2P, as any other state would "
            "end the device's data stream."
        ),
        source="patch 5, vfio_vmstate_change_prepare()",
        since=SERIES,
        needs=_P2P,
        check=prepare_target,
    ),
    Rule(
        name="main-target",
        reason=(
            "Only STOP_COPY after precopy, STOP otherwise and RUNNING at a "
            "start keep the device and its VM in the same state."
        ),
        source="hw/vfio/migration.c, vfio_vmstate_change()",
        check=main_target,
    ),
    Rule(
        name="arcs",
        reason=(
            "A request that the uAPI forbids fails, or hangs a kernel "
            "without the fix."
        ),
        source="<linux/vfio.h>, enum vfio_device_mig_state",
        shown="8.2",
        check=legal,
    ),
    Rule(
        name="reached",
        reason=(
            "A device that did not reach the requested state breaks the "
            "barrier for all others."
        ),
        source="hw/vfio/migration.c, vfio_migration_set_state()",
        shown="8.2",
        requests=True,
        check=reached,
    ),
    Rule(
        name="once",
        reason=(
            "The second of two equal requests in a row was meant for "
            "another state, or is superfluous."
        ),
        source="hw/vfio/migration.c: one request for each change of state",
        requests=True,
        check=once,
    ),
    Rule(
        name="sequence",
        reason=(
            "Each path of a migration has one sequence of states; any other "
            "has a request too many, too few, or in the wrong place."
        ),
        source="docs/devel/migration/vfio.rst; the scenario, by version",
        requests=True,
        check=sequence,
    ),
    Rule(
        name="recover",
        reason=(
            "A device that fails half way may be in any state; without a "
            "reset, or the right way back, it does not do what its VM does."
        ),
        source="hw/vfio/migration.c, callers of vfio_migration_set_state()",
        since="9.1",
        requests=True,
        check=recover,
    ),
    Rule(
        name="named",
        reason=(
            "Readers of a trace or an error message can only tell states "
            "apart by their names."
        ),
        source="patch 5, mig_state_to_str()",
        requests=True,
        check=named,
    ),
    Rule(
        name="stop-copy",
        reason=(
            "Leaving STOP_COPY takes time, which must not be part of the "
            "downtime, and ends the stream, which must be complete."
        ),
        source="patch 1, vfio_save_cleanup()",
        sides=(Side.SOURCE,),
        check=stop_late,
    ),
    Rule(
        name="destination",
        reason=(
            "A device that runs before all others are in RUNNING_P2P may "
            "send to one that is still loading."
        ),
        source="patch 5; docs/devel/vfio-migration.rst, resume flow",
        sides=(Side.DESTINATION,),
        check=destination,
    ),
    Rule(
        name="left",
        reason=(
            "A device that is left in such a state does not work and cannot "
            "be migrated again."
        ),
        source="docs/devel/vfio-migration.rst, save and resume flows",
        check=left,
    ),
    Rule(
        name="agreement",
        reason=(
            "A trace shows what QEMU believes; only the devices know what "
            "they did, in which order and when."
        ),
        source="two witnesses: trace events and p2psim's log",
        logs=True,
        check=agreement,
    ),
    Rule(
        name="stream-end",
        reason=(
            "Data that nobody has read when a device's stream ends is "
            "missing at the destination."
        ),
        source="<linux/vfio.h>, STOP_COPY: the stream ends with read() = 0",
        sides=(Side.SOURCE,),
        logs=True,
        check=stream_end,
    ),
    PairRule(
        name="checksum",
        reason=(
            "A device that continues with other data than it saved is "
            "another device."
        ),
        source="<linux/vfio.h>, RESUMING: data as STOP_COPY gave them",
        sides=(Side.DESTINATION,),
        logs=True,
        check=checksum,
    ),
    Rule(
        name="conservation",
        reason=(
            "A transaction between two devices that is lost, or that "
            "arrives twice, is what the order exists to prevent."
        ),
        source="cover letter of the series; <linux/vfio.h>, P2P states",
        needs=_P2P,
        logs=True,
        check=conservation,
    ),
    PairRule(
        name="dma-memory",
        reason=(
            "A page that a device has written to, and that is not sent "
            "again, is silent corruption of the guest."
        ),
        source="<linux/vfio.h>, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT; "
        "hw/vfio, dirty page tracking",
        sides=(Side.DESTINATION,),
        logs=True,
        dma=True,
        check=dma_memory,
    ),
    PairRule(
        name="heartbeat",
        reason=(
            "Migration must never leave a guest that runs while its device "
            "does not, or that is not the guest which was stopped."
        ),
        source="docs/devel/vfio-migration.rst, states of VM and device",
        sides=(Side.DESTINATION,),
        logs=True,
        check=heartbeat,
    ),
    PairRule(
        name="switchover-ack",
        reason=(
            "A device that is stopped before its counterpart has prepared "
            "itself, which initial data are for, adds that time to the "
            "downtime."
        ),
        source="hw/vfio/migration.c, vfio_switchover_ack_needed(); "
        "qapi/migration.json, switchover-ack",
        sides=(Side.DESTINATION,),
        needs=MigrationFlags.STOP_COPY | MigrationFlags.PRE_COPY,
        requests=True,
        check=switchover_ack,
    ),
    Rule(
        name="cancelled",
        reason=(
            "A device that does not run while its VM does is lost to the "
            "VM, though the migration only had to leave it alone."
        ),
        source="hw/vfio/migration.c, vfio_migration_state_notifier()",
        sides=(Side.SOURCE,),
        requests=True,
        check=cancelled,
    ),
    Rule(
        name="run-state",
        reason=(
            "A device that runs while its VM is stopped changes what was "
            "migrated; one that is stopped while its VM runs is missed."
        ),
        source="docs/devel/vfio-migration.rst, states of VM and device",
        check=run_state,
    ),
    Rule(
        name="swallowed",
        reason=(
            "Whoever is told that a migration succeeded lets go of the only "
            "VM whose devices are in order."
        ),
        source="hw/vfio/migration.c, migration_file_set_error()",
        logs=True,
        check=swallowed,
    ),
)
