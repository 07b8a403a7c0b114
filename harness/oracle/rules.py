# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules: what the series promises, all of it in one table.

The checks are in modules by subject.  Whether there is enough to check at
all is for `evidence`.
"""

from __future__ import annotations

from harness.oracle.flow import destination, left, stop_late
from harness.oracle.model import Rule
from harness.oracle.order import barrier, count, order
from harness.oracle.requests import named, once, recover
from harness.oracle.states import (
    legal,
    main_target,
    p2p,
    prepare_target,
    reached,
)
from harness.timeline import Side

_BOTH = (Side.SOURCE, Side.DESTINATION)

RULES: tuple[Rule, ...] = (
    Rule(
        "p2p",
        "With the series every P2P device passes a P2P state when the VM "
        "starts or stops; without it none does.",
        "patch 5, vfio_vmstate_change_prepare()",
        _BOTH,
        p2p,
    ),
    Rule(
        "count",
        "A device that is left out of a pass sends to, or is sent to by, "
        "devices that are stopped.",
        "patch 2, vm_state_notify(): each callback once per change",
        _BOTH,
        count,
    ),
    Rule(
        "barrier",
        "A device that still sends to one that is already stopped loses "
        "its transaction.",
        "patch 2, vm_state_notify(): every prepare before every main",
        _BOTH,
        barrier,
    ),
    Rule(
        "order",
        "What a device depends on has to start before it and to stop "
        "after it.",
        "patch 2, vm_state_notify(): both passes are reversed on stop",
        _BOTH,
        order,
    ),
    Rule(
        "prepare-target",
        "PRE_COPY must go on to PRE_COPY_P2P: any other state would end "
        "the device's data stream.",
        "patch 5, vfio_vmstate_change_prepare()",
        _BOTH,
        prepare_target,
    ),
    Rule(
        "main-target",
        "Only STOP_COPY after precopy, STOP otherwise and RUNNING at a "
        "start keep device and VM in the same state.",
        "hw/vfio/migration.c, vfio_vmstate_change()",
        _BOTH,
        main_target,
    ),
    Rule(
        "arcs",
        "A request that the uAPI forbids fails, or hangs an unfixed kernel.",
        "<linux/vfio.h>, enum vfio_device_mig_state",
        _BOTH,
        legal,
    ),
    Rule(
        "reached",
        "A device that is not where it was sent breaks the barrier for all "
        "others.",
        "hw/vfio/migration.c, vfio_migration_set_state()",
        _BOTH,
        reached,
    ),
    Rule(
        "once",
        "The second of two equal requests in a row was meant for another "
        "state, or is one too many.",
        "hw/vfio/migration.c: one request for each change of state",
        _BOTH,
        once,
    ),
    Rule(
        "recover",
        "A device that fails half way may be in any state: without a reset, "
        "or the right way back, it does not do what the VM does.",
        "hw/vfio/migration.c, recover states of vfio_migration_set_state()",
        _BOTH,
        recover,
    ),
    Rule(
        "named",
        "Whoever reads a trace or an error message has nothing else to "
        "tell states by.",
        "patch 5, mig_state_to_str()",
        _BOTH,
        named,
    ),
    Rule(
        "stop-copy",
        "Leaving STOP_COPY takes time, which must not be part of the "
        "downtime, and ends the stream, which must be complete.",
        "patch 1, vfio_save_cleanup()",
        (Side.SOURCE,),
        stop_late,
    ),
    Rule(
        "destination",
        "A device that runs before all are in RUNNING_P2P may send to one "
        "that is still loading.",
        "patch 5; docs/devel/vfio-migration.rst, resume flow",
        (Side.DESTINATION,),
        destination,
    ),
    Rule(
        "left",
        "A device left in such a state does no work and cannot be migrated "
        "again.",
        "docs/devel/vfio-migration.rst, save and resume flows",
        _BOTH,
        left,
    ),
)
