# SPDX-License-Identifier: GPL-2.0-or-later
"""What is expected of a run whose two QEMUs may be of different trees.

Each side is judged by its own tree and release.  If their scenario's results
differ, one side governs how the run ends, and each side keeps what is said of
itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from vfio_p2p.bundle.manifest import Inputs, ProgramInput
from vfio_p2p.errors import BundleError, UsageError
from vfio_p2p.scenario.model import Expect, Expectation, Outcome, Scenario
from vfio_p2p.side import Side, side_of
from vfio_p2p.variant import (
    SERIES_LENGTH,
    has_series,
    is_as_it_is,
    parse_tree,
    release_of,
)

_T = TypeVar("_T")

# QEMU refuses at its start or, if migration is only blocked, at "migrate".
REFUSED = (Outcome.REFUSED, Outcome.REJECTED)


@dataclass(frozen=True)
class SideDue:
    """What the QEMU of one side is judged by.

    :param patches: How many patches of the series it has.
    :param release: Its version, from the first number on; empty if it is not
        known.
    :param expected: What the scenario expects of such a QEMU on both sides.
    """

    patches: int
    release: str
    expected: Expectation


@dataclass(frozen=True)
class RunDue:
    """What a run is judged by.

    :param sides: What each side is judged by.
    :param governing: The side whose tree decides how the run ends; None if
        the scenario expects the same of both.
    :param expected: The result that the scenario expects of the run.
    :param excused: The rules that a run may break and need not: the scenario
        expects only of one of the two trees that it breaks them.
    """

    sides: Mapping[Side, SideDue]
    governing: Side | None
    expected: Expectation
    excused: tuple[str, ...] = ()


def patches_of(program: ProgramInput) -> int:
    """Return how many patches of the series a QEMU has.

    A QEMU that is run as it is has all of them if its release has.

    :param program: The QEMU.
    :raise BundleError: When there is no such tree.
    """
    try:
        patches = parse_tree(program.variant).patches
    except UsageError:
        raise BundleError(
            f"a tree named {program.variant!r} is not known",
            "Use the vfio-p2p that wrote the bundle, or a newer one.",
        ) from None
    if is_as_it_is(program.variant) and not has_series(program.version):
        return 0
    return patches


def due_of(
    inputs: Inputs, scenario: Scenario, followup: str | None = None
) -> RunDue:
    """Return what a run is judged by.

    :param inputs: The inputs of the run.
    :param scenario: Its scenario.
    :param followup: The follow-up whose expectations apply; by default the
        one that a tree has, if any.
    :raise BundleError: When a tree is unknown.
    """
    sides = {
        Side.SOURCE: _side(inputs.source, scenario.expect, followup),
        Side.DESTINATION: _side(
            inputs.destination, scenario.expect, followup
        ),
    }
    first, second = (sides[side].expected for side in Side)
    if first == second:
        return RunDue(sides, None, first)
    governing = _governing(sides, scenario)
    breaks = {side: set(sides[side].expected.breaks) for side in Side}
    both = breaks[Side.SOURCE] & breaks[Side.DESTINATION]
    either = breaks[Side.SOURCE] | breaks[Side.DESTINATION]
    return RunDue(
        sides,
        governing,
        msgspec.structs.replace(
            _together(sides, governing), breaks=tuple(sorted(both))
        ),
        excused=tuple(sorted(either - both)),
    )


def _side(
    program: ProgramInput, expect: Expect, followup: str | None
) -> SideDue:
    patches = patches_of(program)
    expected = expect.base
    if patches >= SERIES_LENGTH:
        on_top = followup
        if on_top is None:
            on_top = parse_tree(program.variant).on_top
        expected = expect.followups.get(
            on_top, expect.upstream(release_of(program.version))
        )
    found = re.search(r"\d{1,4}\.\d{1,4}(?!\d).*", program.version)
    return SideDue(patches, found[0] if found else "", expected)


def _governing(sides: Mapping[Side, SideDue], scenario: Scenario) -> Side:
    """Return the side whose tree decides how a run ends.

    A QEMU that refuses its devices does so whatever the other one is.
    Otherwise the QEMU decides whose devices have the faults, or else the
    source, which drives the migration.
    """
    refusing = [x for x in Side if sides[x].expected.outcome in REFUSED]
    if len(refusing) == 1:
        return refusing[0]
    faulty = {x.fault_side for x in scenario.devices if x.faults}
    if faulty == {Side.DESTINATION}:
        return Side.DESTINATION
    return Side.SOURCE


def _together(
    sides: Mapping[Side, SideDue], governing: Side
) -> Expectation:
    """Join what is expected of each side."""
    expected = sides[governing].expected
    alike = len({x.expected.outcome for x in sides.values()}) == 1
    if not alike:
        # The other side has its part in an end that nobody wrote down for
        # its tree.
        return msgspec.structs.replace(
            expected,
            guest=_about(expected.guest, governing),
            migration=_about(expected.migration, governing),
            sequences=tuple(
                x for x in expected.sequences if side_of(x.on) is governing
            ),
            ends={},
        )
    return msgspec.structs.replace(
        expected,
        guest={
            name: value
            for side in Side
            for name, value in _about(sides[side].expected.guest, side).items()
        },
        migration={
            name: value
            for side in Side
            for name, value in _about(
                sides[side].expected.migration, side
            ).items()
        },
        sequences=tuple(
            x
            for side in Side
            for x in sides[side].expected.sequences
            if side_of(x.on) is side
        ),
        ends={
            name: state
            for side in Side
            for name, state in sides[side].expected.ends.items()
            if name.startswith(side.prefix)
        },
    )


def _about(values: Mapping[str, _T], side: Side) -> dict[str, _T]:
    """Return the values of the QEMUs that have the devices of a side."""
    return {x: y for x, y in values.items() if side_of(x) is side}
