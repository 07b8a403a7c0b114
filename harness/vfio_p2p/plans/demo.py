# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment that explains the series.

Devices that send to one another are migrated by the series, and by the series
without its barrier across devices, which loses transactions.
"""

from __future__ import annotations

from dataclasses import dataclass

from vfio_p2p.errors import UsageError
from vfio_p2p.machine.files import write_whole
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.judging import demo as judging
from vfio_p2p.plans.runs import judge_trees
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import choose, choose_variants
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report import picture
from vfio_p2p.report.document import Document
from vfio_p2p.scenario.model import Peers

SCENARIO = "two-devices-with-traffic"
PICTURE = "demo.svg"

_KEPT = "patched"
# This mutant prepares and stops one device, and then the next.
_BROKEN = "patched+one-pass"


@dataclass(frozen=True)
class DemoRequest:
    """A request for the experiment: its source, place and devices.

    :param origin: The source.
    :param setting: Where and how the runs are made.
    :param scenario: The name or file of a scenario whose devices have peers.
    """

    origin: Origin = Origin()
    setting: Setting = Setting()
    scenario: str = SCENARIO


def demonstrate(
    request: DemoRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Make both runs, and draw what happened.

    The picture is left in the folder of the setting.

    :return: A report on both runs.  Its verdict is PASS if nothing was lost
        with the barrier, and something was lost without it, which the rules
        caught.
    :raise UsageError: When the scenario's devices have no peers.
    :raise InputError: When an option or the source is wrong.
    """
    setting = request.setting
    scenario = load_for(request.scenario, setting, reporter)
    if all(device.peers is Peers.NONE for device in scenario.devices):
        raise UsageError(
            f"{scenario.name}: its devices do not send to one another",
            f"Give a scenario with peers, such as {SCENARIO}.",
        )
    setting.check()
    if setting.seeds > 1:
        raise UsageError(
            "the experiment has one seed",
            "Make it once for each seed.",
        )
    workshop.check(setting)
    chosen = choose(request.origin, reporter, workshop)
    variants = choose_variants(chosen, [_KEPT, _BROKEN], workshop)
    path = setting.out / PICTURE
    # If this fails, an older picture must not look like that of this run.
    path.unlink(missing_ok=True)
    made = judge_trees(
        chosen,
        [(tree, scenario) for tree in variants],
        setting,
        reporter,
        workshop,
    )
    kept, broken = (result.run for result in made.results)

    document = judging.document(
        kept,
        broken,
        qemu=made.version,
        base=chosen.base.name,
        origin=chosen.source.origin,
        picture=str(path),
    )
    if document.picture:
        write_whole(path, picture.draw(document).encode())
    return document
