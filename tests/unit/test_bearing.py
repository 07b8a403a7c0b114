# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios a change of some files bears on."""

from __future__ import annotations

import pytest
from vfio_p2p.plans.bearing import BEARINGS, bearing_of, scenarios_for
from vfio_p2p.plans.validate import SCENARIOS
from vfio_p2p.scenario.load import load, names
from vfio_p2p.scenario.step import Migrate

PLAIN = set(SCENARIOS)
FAULT = "source-fault-prepare-fails"
BOOT = "boot-and-quit"
AFTER = "loaded-state-refused"


@pytest.mark.parametrize(
    ("path", "has", "lacks"),
    [
        ("hw/vfio/migration.c", {FAULT, AFTER}, {BOOT}),
        ("hw/vfio/migration-multifd.c", {FAULT, "multifd"}, {BOOT}),
        ("hw/vfio/vfio-migration-internal.h", {FAULT}, {BOOT}),
        ("include/hw/vfio/vfio-migration.h", {FAULT}, {BOOT}),
        ("hw/vfio/trace-events", {FAULT}, {BOOT}),
        ("hw/vfio/pci.c", {"eight-devices"}, {FAULT, AFTER, BOOT}),
        ("migration/savevm.c", {"switchover-ack"}, {FAULT, BOOT}),
        ("system/runstate.c", {FAULT, BOOT}, set()),
        ("softmmu/runstate.c", {FAULT, BOOT}, set()),
        ("hw/core/vm-change-state-handler.c", {BOOT}, set()),
        ("hw/net/e1000.c", PLAIN, {FAULT, BOOT, "eight-devices"}),
    ],
)
def test_a_file_bears_on(path: str, has: set[str], lacks: set[str]) -> None:
    found = set(scenarios_for([path]))
    assert has | PLAIN <= found
    assert not lacks & found


def test_all_that_migrate() -> None:
    wanted = [
        name
        for name in names()
        if any(isinstance(x, Migrate) for x in load(name).steps)
    ]
    assert list(scenarios_for(["hw/vfio/migration.c"])) == wanted
    assert len(wanted) < len(names())


@pytest.mark.parametrize("path", ["docs/a.rst", "MAINTAINERS", "tests/x.c"])
def test_words_and_tests_bear_on_nothing(path: str) -> None:
    assert scenarios_for([path]) == ()


def test_several_files_bear_on_the_scenarios_of_all() -> None:
    both = scenarios_for(["docs/a.rst", "hw/net/e1000.c", "hw/vfio/pci.c"])
    assert both == scenarios_for(["hw/vfio/pci.c"])


def test_the_table_has_a_line_for_every_file() -> None:
    assert bearing_of("whatever") is BEARINGS[-1]
    assert len({x.what for x in BEARINGS}) == len(BEARINGS)
