# SPDX-License-Identifier: GPL-2.0-or-later
"""Several scenarios in one file that differ in a fault and its outcome.

Such a file contains the keys of a scenario and a table for each case.  Each
case is a scenario with a digest of its own; its name is the name of the file's
scenario followed by that of the case::

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

from vfio_p2p.scenario.course import Name, Strict
from vfio_p2p.scenario.expect import Expectation
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.step import Step
from vfio_p2p.side import Side


class CaseExpect(Strict, frozen=True, kw_only=True):
    """The expectations that replace those of the file, by tree.

    :param base: What is expected without the series; by default as in the
        file.
    :param patched: What is expected with the series; by default as in the
        file.
    """

    base: Expectation | None = None
    patched: Expectation | None = None


class Case(Strict, frozen=True, kw_only=True):
    """One case; keys that it leaves out keep the values of the file.

    :param name: The name of the case.  The scenario is named after the file's
        scenario and the case.
    :param summary: What the case is for, in one line.
    :param side: The side whose devices have the faults; required with
        `faults`.
    :param device: The number of the table [[devices]] that gets the faults,
        from 0.
    :param faults: The faults, which replace those of that table.
    :param steps: The steps.
    :param expect: The expectations that replace those of the file.
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
            raise ValueError(
                "side: a case has both a side and faults, or neither"
            )

    def of(self, common: Scenario) -> Scenario:
        """Return the scenario that this case makes.

        :param common: The scenario of the file, without any case.
        :raise ValueError: When the case does not fit it.
        """
        devices = list(common.devices)
        if self.device >= len(devices):
            raise ValueError(
                f"device: [[devices]] has only {len(devices)} tables"
            )
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


class Cases(Strict, frozen=True, kw_only=True):
    """The key that a file with cases has besides those of a scenario.

    :param cases: The cases, with names that differ.
    """

    cases: Annotated[tuple[Case, ...], Meta(min_length=1)]
