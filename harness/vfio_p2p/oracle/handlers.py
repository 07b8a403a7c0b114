# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about run-state handlers that are not VFIO's.

The witness is a virtio device.  Its handler, virtio_vmstate_change(), sets
the status that the device has already, and has no prepare callback.  A guest
or a reset also sets the status, so the witness is only heard in a VM whose
guest leaves it alone, and only until the thread that changes the run state
does something else.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import Epoch, Pass, Timeline
from vfio_p2p.trace import Record

EVENT = "virtio_set_status"


def handlers(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that each pass calls the handler of the witness as it must.

    The prepare pass leaves it alone, and the main pass calls it once.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    heard = [x for x in side.others if x.event == EVENT]
    if not heard and side.epochs:
        yield Unclear(f"there is no {EVENT} in the log")
        return
    for epoch in side.epochs:
        if epoch.notify is None:
            yield Unclear(f"{epoch}: vm_state_notify was not traced")
            continue
        end = _end(side, epoch)
        calls = tuple(
            x
            for x in heard
            if epoch.notify.line < x.line < end
            and x.thread == epoch.notify.thread
        )
        yield from _early(epoch, calls)
        if len(calls) != 1:
            yield Violation(
                f"{epoch}: the handler of a virtio device ran "
                f"{len(calls)} times, 1 expected",
                (),
                (epoch.notify, *calls),
            )


def _early(epoch: Epoch, calls: tuple[Record, ...]) -> Iterator[Objection]:
    prepares = [step.record for step in epoch.of(Pass.PREPARE)]
    last = max((x.line for x in prepares), default=0)
    early = tuple(x for x in calls if x.line < last)
    if early:
        yield Violation(
            f"{epoch}: the handler of a virtio device ran before the last "
            "prepare callback",
            (),
            (*early, *(x for x in prepares if x.line == last)),
        )


def _end(side: Timeline, epoch: Epoch) -> float:
    """Return the line with which its thread goes on after the change."""
    last = epoch.steps[-1].record
    after = [
        *(x for x in side.others if x.event != EVENT),
        *side.marks,
        *(x for arc in side.arcs for x in arc.records),
        *(x.notify for x in side.epochs if x.notify),
    ]
    return min(
        (
            x.line
            for x in after
            if x.line > last.line and x.thread == last.thread
        ),
        default=float("inf"),
    )
