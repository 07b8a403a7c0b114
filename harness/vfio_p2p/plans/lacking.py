# SPDX-License-Identifier: GPL-2.0-or-later
"""See that the QEMUs of runs know what the scenarios ask them for.

A misspelt property would otherwise be found when QEMU refuses to start, which
some scenarios expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vfio_p2p.errors import HarnessError, UsageError
from vfio_p2p.names import nearest
from vfio_p2p.places import Job
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.qemu.abilities import VFIO, Abilities
from vfio_p2p.scenario import load
from vfio_p2p.scenario.course import Course
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.positions import Key
from vfio_p2p.scenario.step import Wait

NO_FILES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Unheard:
    """A name in a scenario that a QEMU does not know.

    :param keys: The path of keys and indices that leads to it.
    :param what: What it is the name of, e.g. ``migration capability``.
    :param name: The name.
    :param known: The names that the QEMU knows.
    :param of: What it would belong to, e.g. `` of vfio-pci``.
    """

    keys: tuple[Key, ...]
    what: str
    name: str
    known: frozenset[str]
    of: str = ""


def check_abilities(
    jobs: Iterable[Job],
    workshop: Workshop,
    files: Mapping[str, str] = NO_FILES,
) -> None:
    """See that QEMUs know what scenarios ask them for, before anything runs.

    Jobs with a release that their scenario is not for are not looked at: they
    will be skipped.

    :param jobs: What is to be run.
    :param workshop: Asks the QEMUs.
    :param files: The name or file from which each scenario was read, by its
        name; those that are not in it come with the program.
    :raise ScenarioError: When a QEMU does not know a name in a file.
    :raise UsageError: When it does not, and there is no file.
    """
    seen = set()
    for job in jobs:
        for program in (job.source, job.destination):
            key = (program.sha256, program.version, job.scenario.digest)
            if key in seen or job.scenario.not_for(program.version):
                continue
            seen.add(key)
            types = _types(job.scenario)
            found = workshop.abilities(program, types)
            lack = next(lacks(job.scenario, found), None) if found else None
            if lack:
                raise _error(
                    lack,
                    job.scenario,
                    f"{program.version} ({program.variant})",
                    files.get(job.scenario.name, job.scenario.name),
                )


def lacks(course: Course, known: Abilities) -> Iterator[Unheard]:
    """Yield what a scenario names that a QEMU does not know.

    :param course: The scenario.
    :param known: What the QEMU knows.
    """
    keys: tuple[Key, ...]
    machine = course.guest.machine
    if machine not in known.machines:
        yield Unheard(
            ("guest", "machine"), "machine type", machine, known.machines
        )
    of_vfio = known.properties[VFIO]
    for name in course.properties:
        if name not in of_vfio:
            keys = ("properties", name)
            yield Unheard(keys, "property", name, of_vfio, f" of {VFIO}")
    for number, device in enumerate(course.devices):
        for name in device.properties:
            if name not in of_vfio:
                keys = ("devices", number, "properties", name)
                yield Unheard(keys, "property", name, of_vfio, f" of {VFIO}")
    for name in course.globals:
        kind, _, wanted = name.partition(".")
        of_kind = known.properties[kind]
        keys = ("globals", name)
        if not of_kind:
            yield Unheard(keys, "driver", kind, frozenset())
        elif wanted not in of_kind:
            yield Unheard(keys, "property", wanted, of_kind, f" of {kind}")
    for name in course.migration.capabilities:
        if name not in known.capabilities:
            keys = ("migration", "capabilities", name)
            yield Unheard(
                keys, "migration capability", name, known.capabilities
            )
    for name in course.migration.parameters:
        if name not in known.parameters:
            keys = ("migration", "parameters", name)
            yield Unheard(keys, "migration parameter", name, known.parameters)
    for number, step in enumerate(course.steps):
        status = (isinstance(step, Wait) and step.status) or ""
        if status and status not in known.statuses:
            keys = ("steps", number, "status")
            what = "status of a migration"
            yield Unheard(keys, what, str(status), known.statuses)


def _types(course: Course) -> frozenset[str]:
    """Return the types whose properties a scenario sets by ``-global``."""
    return frozenset(name.partition(".")[0] for name in course.globals)


def _error(
    lack: Unheard, scenario: Scenario, qemu: str, file: str
) -> HarnessError:
    why = f"{qemu} has no {lack.what} {lack.name!r}{lack.of}"
    # A QEMU has too many properties to print them all.
    near = nearest(lack.name, lack.known)
    hint = (
        "If other releases have it, say with 'since' and 'until' which ones "
        "the scenario is for."
    )
    if near:
        hint = f"Did you mean {' or '.join(map(repr, near))}?  {hint}"
    try:
        return load.wrong(file, lack.keys, why, hint)
    except UsageError:
        # It was made by a program, and has no file.
        where = ".".join(map(str, lack.keys))
        return UsageError(f"{scenario.name}: {where}: {why}", hint)
