# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job: build trees, migrate them, and judge every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vfio_p2p.errors import UsageError
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.installed import choose_subject
from vfio_p2p.plans.runs import (
    document_of,
    forget_reports,
    judge_trees,
    write_reports,
)
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document
from vfio_p2p.scenario.model import Scenario

SCENARIOS = ("one-device", "two-devices", "four-devices")


@dataclass(frozen=True)
class ValidateRequest:
    """A request to run scenarios on trees.

    :param origin: The source.
    :param setting: Where and how the runs are made.
    :param variants: The names of the trees; empty means base and patched.
    :param scenarios: The names or files of the scenarios.
    :param most_p2p_ms: How long an arc into a P2P state may take, in
        milliseconds; None allows any time.
    """

    origin: Origin = Origin()
    setting: Setting = Setting()
    variants: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = SCENARIOS
    most_p2p_ms: float | None = None


def validate(
    request: ValidateRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Build every tree, run every scenario with every seed, judge the runs.

    The bundles, ``report.json`` and ``junit.xml`` are left in the folder of
    the setting.

    :return: The report.
    :raise InputError: When a name, an option or a file is wrong.  All of
        that is found out before anything is built.
    :raise BuildError: When a tree does not build.
    """
    setting = request.setting
    scenarios = load_scenarios(request.scenarios, setting, reporter)
    setting.check()
    subject = choose_subject(
        request.origin, request.variants, setting, reporter, workshop
    )
    forget_reports(setting.out)
    made = judge_trees(
        subject.chosen,
        [
            (tree, scenario)
            for tree in subject.variants
            for scenario in scenarios
        ],
        setting,
        reporter,
        workshop,
        subject.as_they_are,
        {
            scenario.name: text
            for scenario, text in zip(
                scenarios, dict.fromkeys(request.scenarios), strict=True
            )
        },
    )
    made = made.gated(request.most_p2p_ms)
    document = document_of(subject, made)
    write_reports(setting.out, document)
    return document


def load_scenarios(
    wanted: Sequence[str], setting: Setting, reporter: Reporter
) -> list[Scenario]:
    """Read scenarios, whose names have to differ.

    :param wanted: Their names or files.
    :param setting: Names the devices that they run on.
    :param reporter: Told what the devices leave out.
    :raise UsageError: When one does not exist, or two share a name.
    :raise ScenarioError: When a file is not a scenario.
    """
    scenarios = [
        load_for(text, setting, reporter) for text in dict.fromkeys(wanted)
    ]
    names = [scenario.name for scenario in scenarios]
    for name in names:
        # Bundles are named after them.
        if names.count(name) > 1:
            raise UsageError(
                f"two scenarios are named {name!r}",
                "Give each file a name of its own.",
            )
    return scenarios
