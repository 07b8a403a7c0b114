# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a scenario, as data.

In a scenario file they are inline tables, told apart by `do`::

    steps = [
        {do = "migrate"},
        {do = "wait", status = "active"},
        {do = "stop"},
        {do = "wait", status = "completed"},
    ]

If a step concerns one QEMU, `on` says which one: the source or the
destination of the current migration, or of the next one if none has begun.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p.side import Side


class Status(StrEnum):
    """The status of a migration, as QMP's event MIGRATION names it."""

    SETUP = "setup"
    ACTIVE = "active"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    # Since QEMU 10.2: the devices are loaded at the start of postcopy.
    POSTCOPY_DEVICE = "postcopy-device"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    # Since QEMU 11.0: it has failed, and the cleanup is under way.
    FAILING = "failing"
    FAILED = "failed"
    COMPLETED = "completed"


class Through(StrEnum):
    """What carries a migration, if it is not a socket."""

    FILE = "file"


# No other status follows these, until the next migration.
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
    """A step that concerns one QEMU.

    :param on: The QEMU that the step concerns.
    """

    on: Side = Side.SOURCE


class Migrate(_Step, frozen=True, kw_only=True, tag="migrate"):
    """Start a migration from the source to the destination.

    :param cut_bytes: The number of bytes after which the connection breaks.
        It then goes through a proxy, which breaks both directions when the
        source has sent that many bytes.
    :param through: With `file`, the source writes to a file, which the
        destination reads in the step `incoming`.  Such a migration has no
        blackout, since how long the file lies there is for the steps to say.
    """

    cut_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] | None = None
    through: Through | None = None

    def __post_init__(self) -> None:
        if self.through and self.cut_bytes is not None:
            raise ValueError("cut_bytes: only a connection can break")


class Incoming(_Step, frozen=True, kw_only=True, tag="incoming"):
    """Let the destination read the file of the last migration."""


class Wait(_OnOne, frozen=True, kw_only=True, tag="wait"):
    """Wait for a status of the migration, or for a line of the trace.

    The migration may have had that status before.  Any other final status is
    an error, which ends the run.  A final status of the source includes the
    source's cleanup, and `completed` of the source includes the destination's
    cleanup, unless a step killed the destination, or the migration goes
    through a file: then it means that the file is whole.

    :param status: The status to wait for; give either this or `trace`.
    :param trace: A text to wait for in the trace log; it may be there already.
    """

    status: Status | None = None
    trace: str = ""

    def __post_init__(self) -> None:
        if (self.status is None) != bool(self.trace):
            raise ValueError("status: give either status or trace")


class Stop(_OnOne, frozen=True, kw_only=True, tag="stop"):
    """Pause the VM."""


class Cont(_OnOne, frozen=True, kw_only=True, tag="cont"):
    """Let the VM run."""


class Reset(_OnOne, frozen=True, kw_only=True, tag="reset"):
    """Reset the VM, as when its guest reboots."""


class Cancel(_Step, frozen=True, kw_only=True, tag="cancel"):
    """Cancel the migration."""


class Continue(_Step, frozen=True, kw_only=True, tag="continue"):
    """Let the migration go on from `pre-switchover`."""


class Kill(_OnOne, frozen=True, kw_only=True, tag="kill"):
    """End QEMU with SIGKILL."""


class Unplug(_Step, frozen=True, kw_only=True, tag="unplug"):
    """Unplug a device from both VMs; the device needs a `root_port`.

    :param device: The number of the single device, from 0.
    """

    device: Annotated[int, Meta(ge=0)]


class Plug(_Step, frozen=True, kw_only=True, tag="plug"):
    """Plug a device into both VMs; the device needs a `root_port`.

    A device whose first such step is `plug` is not there when the VMs start.

    :param device: The number of the single device, from 0.
    """

    device: Annotated[int, Meta(ge=0)]


class SaveVM(_Step, frozen=True, kw_only=True, tag="savevm"):
    """Save the source's VM into a disk image of its own."""


class LoadVM(_Step, frozen=True, kw_only=True, tag="loadvm"):
    """Load the state that `savevm` saved into the same VM."""


class Turn(_Step, frozen=True, kw_only=True, tag="turn"):
    """Swap the roles, so that the next migration goes the other way.

    The source ends.  A fresh QEMU gets its devices and becomes the next
    destination, and the destination becomes the next source.
    """


Step = (
    Migrate
    | Incoming
    | Wait
    | Stop
    | Cont
    | Reset
    | Cancel
    | Continue
    | Kill
    | Unplug
    | Plug
    | SaveVM
    | LoadVM
    | Turn
)

PLAIN: tuple[Step, ...] = (Migrate(), Wait(status=Status.COMPLETED))
