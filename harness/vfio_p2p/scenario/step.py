# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a scenario, as data.

In a scenario file they are inline tables, told apart by `do`::

    steps = [
        {do = "migrate"},
        {do = "wait", status = "active"},
        {do = "stop"},
        {do = "wait", status = "completed"},
    ]

Where a step is about one QEMU, `on` says which: the source or the
destination of the current, or else the coming, migration.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p.side import Side


class Status(StrEnum):
    """A migration's state, as QMP's event MIGRATION names it."""

    SETUP = "setup"
    ACTIVE = "active"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    COMPLETED = "completed"


# No other follows, until the next migration.
FINAL = (Status.CANCELLED, Status.FAILED, Status.COMPLETED)


class _Step(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="do",
):
    def __str__(self) -> str:
        values = msgspec.to_builtins(self).values()
        return " ".join(str(x) for x in values if x not in ("", None))


class _OnOne(_Step, frozen=True, kw_only=True):
    on: Side = Side.SOURCE


class Migrate(_Step, frozen=True, kw_only=True, tag="migrate"):
    """Start a migration from the source to the destination.

    With `cut_bytes` it goes through a proxy that breaks both ways off when
    the source has sent so many bytes.
    """

    cut_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] | None = None


class Wait(_OnOne, frozen=True, kw_only=True, tag="wait"):
    """Wait until the migration has, or has had, a status.

    Any other final status is an error, which ends the run.  A final one of
    the source includes the source's cleanup, and `completed` that of the
    source the destination's, unless a step killed it.

    Or wait for a text in the trace log; it may be there already.
    """

    status: Status | None = None
    trace: str = ""

    def __post_init__(self) -> None:
        if (self.status is None) != bool(self.trace):
            raise ValueError("status: give either it or trace")


class Stop(_OnOne, frozen=True, kw_only=True, tag="stop"):
    """Pause the VM."""


class Cont(_OnOne, frozen=True, kw_only=True, tag="cont"):
    """Let the VM run."""


class Reset(_OnOne, frozen=True, kw_only=True, tag="reset"):
    """Reset the VM, as when its guest reboots."""


class Cancel(_Step, frozen=True, kw_only=True, tag="cancel"):
    """Cancel the migration."""


class Continue(_Step, frozen=True, kw_only=True, tag="continue"):
    """Go on from `pre-switchover`."""


class Kill(_OnOne, frozen=True, kw_only=True, tag="kill"):
    """End QEMU with SIGKILL."""


class Unplug(_Step, frozen=True, kw_only=True, tag="unplug"):
    """Take a device out of both VMs; it needs a `root_port`.

    `device` counts single devices, from 0.
    """

    device: Annotated[int, Meta(ge=0)]


class SaveVM(_Step, frozen=True, kw_only=True, tag="savevm"):
    """Save the source's VM into a disk image of its own."""


class LoadVM(_Step, frozen=True, kw_only=True, tag="loadvm"):
    """Load what `savevm` saved, into the same VM."""


class Turn(_Step, frozen=True, kw_only=True, tag="turn"):
    """Swap the roles: the way back is next.

    The source ends.  Its devices get a fresh QEMU, which is the next
    destination, and the destination is the next source.
    """


Step = (
    Migrate
    | Wait
    | Stop
    | Cont
    | Reset
    | Cancel
    | Continue
    | Kill
    | Unplug
    | SaveVM
    | LoadVM
    | Turn
)

PLAIN: tuple[Step, ...] = (Migrate(), Wait(status=Status.COMPLETED))
