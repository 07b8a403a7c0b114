# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules: what the series promises, all of it in one table.

The checks are in modules by subject.  Whether there is enough to check at
all is for `evidence`.
"""

from __future__ import annotations

from vfio_p2p.oracle.failure import cancelled, run_state, swallowed
from vfio_p2p.oracle.flow import destination, left, stop_late
from vfio_p2p.oracle.guest import heartbeat
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
            "With the series every P2P device passes a P2P state when the VM "
            "starts or stops; without it none does."
        ),
        source="patch 5, vfio_vmstate_change_prepare()",
        check=p2p,
    ),
    Rule(
        name="count",
        reason=(
            "A device that is left out of a pass sends to, or is sent to by, "
            "devices that are stopped."
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
            "What a device depends on has to start before it and to stop "
            "after it."
        ),
        source="patch 2, vm_state_notify(): both passes are reversed on stop",
        check=order,
    ),
    Rule(
        name="prepare-target",
        reason=(
            "PRE_COPY must go on to PRE_COPY_P2P: any other state would end "
            "the device's data stream."
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
            "start keep device and VM in the same state."
        ),
        source="hw/vfio/migration.c, vfio_vmstate_change()",
        check=main_target,
    ),
    Rule(
        name="arcs",
        reason=(
            "A request that the uAPI forbids fails, or hangs an unfixed "
            "kernel."
        ),
        source="<linux/vfio.h>, enum vfio_device_mig_state",
        check=legal,
    ),
    Rule(
        name="reached",
        reason=(
            "A device that is not where it was sent breaks the barrier for "
            "all others."
        ),
        source="hw/vfio/migration.c, vfio_migration_set_state()",
        check=reached,
    ),
    Rule(
        name="once",
        reason=(
            "The second of two equal requests in a row was meant for another "
            "state, or is one too many."
        ),
        source="hw/vfio/migration.c: one request for each change of state",
        check=once,
    ),
    Rule(
        name="sequence",
        reason=(
            "Each path of a migration has one sequence of states; any other "
            "is a request too many, too few, or elsewhere."
        ),
        source="docs/devel/migration/vfio.rst; the scenario, by version",
        check=sequence,
    ),
    Rule(
        name="recover",
        reason=(
            "A device that fails half way may be in any state: without a "
            "reset, or the right way back, it does not do what the VM does."
        ),
        source="hw/vfio/migration.c, callers of vfio_migration_set_state()",
        since="9.1",
        check=recover,
    ),
    Rule(
        name="named",
        reason=(
            "Whoever reads a trace or an error message has nothing else to "
            "tell states by."
        ),
        source="patch 5, mig_state_to_str()",
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
            "A device that runs before all are in RUNNING_P2P may send to one "
            "that is still loading."
        ),
        source="patch 5; docs/devel/vfio-migration.rst, resume flow",
        sides=(Side.DESTINATION,),
        check=destination,
    ),
    Rule(
        name="left",
        reason=(
            "A device left in such a state does no work and cannot be "
            "migrated again."
        ),
        source="docs/devel/vfio-migration.rst, save and resume flows",
        check=left,
    ),
    Rule(
        name="agreement",
        reason=(
            "A trace tells what QEMU believes; what the devices did, in "
            "which order and when, only they know."
        ),
        source="two witnesses: trace events and p2psim's log",
        logs=True,
        check=agreement,
    ),
    Rule(
        name="stream-end",
        reason=(
            "What nobody has read of a device's data when its stream ends "
            "is missing at the destination."
        ),
        source="<linux/vfio.h>, STOP_COPY: the stream ends with read() = 0",
        sides=(Side.SOURCE,),
        logs=True,
        check=stream_end,
    ),
    PairRule(
        name="checksum",
        reason=(
            "A device that goes on with other data than it was saved with "
            "is another device."
        ),
        source="<linux/vfio.h>, RESUMING: data as STOP_COPY gave them",
        sides=(Side.DESTINATION,),
        logs=True,
        check=checksum,
    ),
    Rule(
        name="conservation",
        reason=(
            "A transaction that is lost, or comes twice, between two "
            "devices is what the order is there to prevent."
        ),
        source="cover letter of the series; <linux/vfio.h>, P2P states",
        needs=_P2P,
        logs=True,
        check=conservation,
    ),
    PairRule(
        name="heartbeat",
        reason=(
            "A guest that runs when its device does not, or that is not "
            "the one which was stopped, is what migration must never leave."
        ),
        source="docs/devel/vfio-migration.rst, states of VM and device",
        sides=(Side.DESTINATION,),
        logs=True,
        check=heartbeat,
    ),
    Rule(
        name="cancelled",
        reason=(
            "A device that does not run when its VM does is lost to it, "
            "though the migration only had to leave it alone."
        ),
        source="hw/vfio/migration.c, vfio_migration_state_notifier()",
        sides=(Side.SOURCE,),
        check=cancelled,
    ),
    Rule(
        name="run-state",
        reason=(
            "A device that runs when its VM is stopped changes what was "
            "migrated; one that is stopped when it runs is missed."
        ),
        source="docs/devel/vfio-migration.rst, states of VM and device",
        check=run_state,
    ),
    Rule(
        name="swallowed",
        reason=(
            "Whoever is told that a migration succeeded lets go of the "
            "only VM whose devices are in order."
        ),
        source="hw/vfio/migration.c, migration_file_set_error()",
        logs=True,
        check=swallowed,
    ),
)
