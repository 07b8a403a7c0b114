# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by the functional tests: builds and sealed runs of real parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harness.assess import Assessment, assess
from harness.build import build, find_source
from harness.bundle.read import Bundle, open_bundle
from harness.device import Driver
from harness.scenario.load import load
from harness.scenario.model import Scenario
from harness.series import default_base, parse_variant
from harness.testbed.image import get_image
from harness.testbed.load import Program
from harness.testbed.outer import find_outer
from harness.testbed.sealed import LIMIT_S, Testbed

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
