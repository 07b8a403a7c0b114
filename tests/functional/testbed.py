# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by the functional tests: builds and sealed runs of real parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.devices import Driver
from vfio_p2p.places.sealed.image import get_image
from vfio_p2p.places.sealed.load import Program
from vfio_p2p.places.sealed.outer import find_outer
from vfio_p2p.places.sealed.sealed import LIMIT_S, Testbed
from vfio_p2p.qemu import build, find_source
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import default_base, parse_variant
from vfio_p2p.verdict.assess import Assessment, assess

SEED = 42


def program(variant: str) -> Program:
    """A QEMU from the store; it is built if it is not there."""
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
    """One sealed run; returns its bundle, checked."""
    what = load(scenario) if isinstance(scenario, str) else scenario
    testbed = Testbed(find_outer(), get_image(driver=driver))
    asyncio.run(
        testbed.run(qemu, what, seed, path, limit_s, rerun=rerun)
    )
    return open_bundle(path)


def judged(variant: str, scenario: str | Scenario, path: Path) -> Assessment:
    """One sealed run of a variant, and what came of it."""
    return assess(run(program(variant), scenario, path))
