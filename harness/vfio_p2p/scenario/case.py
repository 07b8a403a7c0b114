# SPDX-License-Identifier: GPL-2.0-or-later
"""Many scenarios in one file, that differ in a fault and what comes of it.

Beside the keys of a scenario such a file has a table for each case, which
makes a scenario of its own, named after both, with a digest of its own::

    name = "source-fault"
    ...
    [[cases]]
    name = "prepare-fails"
    side = "source"
    faults = ["arc PRE_COPY PRE_COPY_P2P 1 fail EIO"]
    expect.patched = {outcome = "migration-failed", message = "..."}
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p.scenario.model import (
    Expectation,
    Name,
    Scenario,
)
from vfio_p2p.scenario.step import Step
from vfio_p2p.side import Side


class _Strict(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    pass


class CaseExpect(_Strict, frozen=True, kw_only=True):
    """What to expect in place of what the file does, by tree."""

    base: Expectation | None = None
    patched: Expectation | None = None


class Case(_Strict, frozen=True, kw_only=True):
    """One case; what it leaves out is as the file has it.

    `faults` are those of the table number `device` of [[devices]], on the
    side `side`.
    """

    name: Name
    summary: str = ""
    side: Side | None = None
    device: Annotated[int, Meta(ge=0)] = 0
    faults: tuple[str, ...] = ()
    steps: tuple[Step, ...] | None = None
    expect: CaseExpect = CaseExpect()

    def __post_init__(self) -> None:
        if bool(self.faults) != (self.side is not None):
            raise ValueError("side: it goes with faults, and they with it")

    def of(self, common: Scenario) -> Scenario:
        """The scenario that it makes.

        :param common: What the file says of all.
        :raise ValueError: When they do not fit.
        """
        devices = list(common.devices)
        if self.device >= len(devices):
            raise ValueError(f"device: there are {len(devices)} tables")
        if self.faults:
            devices[self.device] = msgspec.structs.replace(
                devices[self.device],
                faults=self.faults,
                fault_side=self.side,
            )
        return msgspec.structs.replace(
            common,
            name=f"{common.name}-{self.name}",
            summary=self.summary or common.summary,
            devices=tuple(devices),
            steps=common.steps if self.steps is None else self.steps,
            expect=msgspec.structs.replace(
                common.expect,
                base=self.expect.base or common.expect.base,
                patched=self.expect.patched or common.expect.patched,
            ),
        )


class Cases(_Strict, frozen=True, kw_only=True):
    """What such a file has beside a scenario."""

    cases: Annotated[tuple[Case, ...], Meta(min_length=1)]
