# SPDX-License-Identifier: GPL-2.0-or-later
"""Several scenarios in one file that differ in a few keys and the outcome.

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

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vfio_p2p.scenario.expect import Expectation, Release
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.step import Step
from vfio_p2p.scenario.values import (
    Count,
    GlobalName,
    Integer,
    Name,
    Occasion,
    PropertyName,
    PropertyValue,
    Strict,
)
from vfio_p2p.side import Side


class CaseExpect(Strict, frozen=True, kw_only=True):
    """The expectations that replace those of the file, by tree.

    :param base: What is expected without the series; by default as in the
        file.
    :param patched: What is expected with the series; by default as in the
        file.
    :param since: What is expected of upstream's series from a release on; by
        default as in the file.
    """

    base: Expectation | None = None
    patched: Expectation | None = None
    since: dict[Release, Expectation] | None = None


class Case(Strict, frozen=True, kw_only=True):
    """One case; keys that it leaves out keep the values of the file.

    :param name: The name of the case.  The scenario is named after the file's
        scenario and the case.
    :param summary: What the case is for, in one line.
    :param side: The side whose devices have the faults; required with
        `faults`.
    :param device: The number of the table [[devices]] that gets the faults,
        the count and the settings of new initial data, from 0.
    :param faults: The faults, which replace those of that table.
    :param count: The number of the devices of that table.
    :param reinit_drain: See the key of [[devices]].
    :param reinit_query: See the key of [[devices]].
    :param properties: Properties of vfio-pci, added to those of the file.
    :param globals: Defaults of properties, added to those of the file.
    :param capabilities: Migration capabilities, added to those of the file.
    :param parameters: Migration parameters, added to those of the file.
    :param since: The first release of QEMU that the case is for.
    :param until: The last release of QEMU that the case is for.
    :param steps: The steps.
    :param expect: The expectations that replace those of the file.
    """

    name: Name
    summary: str = ""
    side: Side | None = None
    device: Annotated[int, Meta(ge=0)] = 0
    faults: tuple[str, ...] = ()
    count: Count | None = None
    reinit_drain: Occasion | None = None
    reinit_query: Occasion | None = None
    properties: dict[PropertyName, PropertyValue] = msgspec.field(
        default_factory=dict
    )
    globals: dict[GlobalName, PropertyValue] = msgspec.field(
        default_factory=dict
    )
    capabilities: dict[str, bool] = msgspec.field(default_factory=dict)
    parameters: dict[str, Integer | str | bool] = msgspec.field(
        default_factory=dict
    )
    since: str = ""
    until: str = ""
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
        changed: dict[str, Any] = {
            key: getattr(self, key)
            for key in ("count", "reinit_drain", "reinit_query")
            if getattr(self, key) is not None
        }
        if self.faults:
            changed |= {"faults": self.faults, "fault_side": self.side}
        if changed:
            # Its values are checked again.
            devices[self.device] = msgspec.convert(
                {
                    **msgspec.to_builtins(devices[self.device]),
                    **msgspec.to_builtins(changed),
                },
                type(devices[self.device]),
            )
        migration = common.migration
        return msgspec.structs.replace(
            common,
            name=f"{common.name}-{self.name}",
            summary=self.summary or common.summary,
            devices=tuple(devices),
            properties={**common.properties, **self.properties},
            globals={**common.globals, **self.globals},
            migration=msgspec.structs.replace(
                migration,
                capabilities={**migration.capabilities, **self.capabilities},
                parameters={**migration.parameters, **self.parameters},
            ),
            since=self.since or common.since,
            until=self.until or common.until,
            steps=common.steps if self.steps is None else self.steps,
            expect=msgspec.structs.replace(
                common.expect,
                base=self.expect.base or common.expect.base,
                patched=self.expect.patched or common.expect.patched,
                since=common.expect.since
                if self.expect.since is None
                else self.expect.since,
            ),
        )


class Cases(Strict, frozen=True, kw_only=True):
    """The key that a file with cases has besides those of a scenario.

    :param cases: The cases, with names that differ.
    """

    cases: Annotated[tuple[Case, ...], Meta(min_length=1)]
