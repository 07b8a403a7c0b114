# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by the functional tests: builds and sealed runs of real parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vfio_p2p.bundle.read import Bundle
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.devices import Driver
from vfio_p2p.places import LIMIT_S, CachedPlace, Job, open_place
from vfio_p2p.progress import silent
from vfio_p2p.qemu import build, find_source
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import default_base, parse_variant
from vfio_p2p.verdict.assess import Assessment, assess

SEED = 42


def program(variant: str) -> Program:
    """Return a QEMU from the store, and build it if it is missing."""
    base = default_base()
    source = find_source(None, base.qemu)
    return Program.of(build(source, parse_variant(base, variant)))


def run(
    qemu: Program,
    scenario: str | Scenario,
    path: Path,
    seed: int = SEED,
    limit_s: float = LIMIT_S,
    *,
    driver: Driver = Driver.P2PSIM,
    rerun: bool = False,
) -> Bundle:
    """Make one sealed run, and return its checked bundle."""
    what = load(scenario) if isinstance(scenario, str) else scenario
    place = CachedPlace(
        open_place(PlaceChoice(driver=driver), KnownPrograms([qemu])),
        rerun=rerun,
    )
    place.prepare(silent, [what])
    job = Job.of(qemu.what, what, seed)
    return asyncio.run(place.run(job, path, limit_s=limit_s))


def judged(variant: str, scenario: str | Scenario, path: Path) -> Assessment:
    """Make one sealed run of a variant, and judge it."""
    return assess(run(program(variant), scenario, path))
