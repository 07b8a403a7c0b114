# SPDX-License-Identifier: GPL-2.0-or-later
"""A run is read only once, and the phases of its blackout must add up."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from bundles import make_bundle
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.downtime import Breakdown
from vfio_p2p.errors import UnevenError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import RunReading, read_run


class Altered(RunReading):
    """A reading with another breakdown, or with none that can be made."""

    def __init__(self, bundle: Bundle, found: Breakdown | str) -> None:
        super().__init__(bundle)
        self.found = found

    @functools.cached_property
    def breakdown(self) -> Breakdown:
        if isinstance(self.found, str):
            raise UnevenError(self.bundle.path, self.found)
        return self.found


def test_a_blackout_whose_phases_do_not_add_up_is_withdrawn(
    tmp_path: Path,
) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    good = assess(bundle)
    assert good.verdict is Verdict.PASS
    parts = read_run(bundle).breakdown
    last = parts.phases[-1]
    longer = dataclasses.replace(last, end_ns=last.end_ns + 1)
    whole = dataclasses.replace(
        parts.blackout, duration_ns=(parts.blackout.duration_ns or 0) + 1
    )
    one_more = dataclasses.replace(
        parts,
        blackout=whole,
        phases=(*parts.phases[:-1], longer),
        critical_path=(),
    )
    for broken, why in (
        (one_more, f"the blackout itself {good.blackout_ns} ns"),
        ("there is a gap", "there is a gap"),
    ):
        found = assess(bundle, run=Altered(bundle, broken))
        assert found.verdict is Verdict.ERROR
        assert found.blackout_ns is None
        assert why in found.notes[0]


def test_a_reading_is_used_and_not_made_again(tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    run = read_run(bundle)
    first = assess(bundle, run=run)
    sides, parts = run.timelines, run.breakdown
    assert assess(bundle, run=run) == first
    assert run.timelines is sides
    assert run.breakdown is parts
