# SPDX-License-Identifier: GPL-2.0-or-later
"""How runs were made, and the commands that make them again."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

from vfio_p2p.report import change
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run
from vfio_p2p.report.setup import (
    P2PSIM,
    can_be_reproduced,
    driver_of,
    measured_at,
)
from vfio_p2p.scenario.profile import MODEL
from vfio_p2p.side import Side
from vfio_p2p.variant import INSTALLED, is_as_it_is


def commands(document: Document) -> tuple[str, ...]:
    """The commands that run everything again, one for each group.

    A command uses the QEMU that its base is for; `exact_command` uses the
    QEMU of the run itself.

    :param document: The document.
    :return: Lines for a shell.
    """
    if document.change is not None:
        # The tree has no other name that a command understands.
        return (change.command(document),)
    bases = {tree.name: tree.base for tree in document.trees}
    found: dict[str, list[int]] = {}
    for run in document.runs:
        if run.seed is None:
            found.setdefault(_check(run), [])
            continue
        base = _base(run.qemu) or bases.get(run.tree, document.base)
        place = measured_at(run)
        qemus = _qemus(run, base)
        if not qemus:
            continue
        command = shlex.join(
            [
                "vfio-p2p", "run", *_scenario(run), *qemus,
                *(("--machine", run.machine) if run.machine else ()),
                *(("--at", place) if place else ()), "--seed",
            ]
        )  # fmt: skip
        found.setdefault(command, []).append(run.seed)
    return tuple(_for_each(command, seeds) for command, seeds in found.items())


def exact_command(document: Document) -> str:
    """The command that makes a run again, to the byte.

    :param document: The document.
    :return: A line for a shell; empty if no run can be repeated exactly.
    """
    bundles = [
        run.bundle
        for run in document.runs
        if run.exact and can_be_reproduced(run)
    ]
    if not bundles:
        return ""
    bundle = shlex.quote(bundles[0]) if len(bundles) == 1 else "BUNDLE"
    return f"vfio-p2p reproduce {bundle}"


def _check(run: Run) -> str:
    """The command that judges the logs of a run again."""
    source, destination = (
        str(PurePath(run.bundle, side, "trace.log")) for side in Side
    )
    return shlex.join(
        ["vfio-p2p", "check", source, "--destination", destination]
    )


def _qemus(run: Run, base: str) -> tuple[str, ...]:
    """The arguments that name the QEMU, or that of each side.

    :return: Nothing if a QEMU was built elsewhere: its path is not known.
    """
    first = second = run.variant
    of_base = base
    if run.inputs and run.variant != run.inputs.source.variant:
        destination = run.inputs.destination
        first, second = run.inputs.source.variant, destination.variant
        of_base = _base(destination.version) or base
    if any(is_as_it_is(x) and x != INSTALLED for x in (first, second)):
        return ()
    found = ("--variant", first, *(("--base", base) if base else ()))
    if (first, base) == (second, of_base):
        return found
    if of_base != base and second != INSTALLED:
        second = f"{of_base}:{second}"
    return (*found, "--to", second)


def _base(version: str) -> str:
    """The base for the release of a QEMU; empty if not known."""
    found = re.search(r"[0-9]+\.[0-9]+", version)
    return f"v{found[0]}" if found else ""


def _scenario(run: Run) -> tuple[str, ...]:
    """The scenario's arguments.

    With other devices or other latencies, the run's scenario had another
    name.
    """
    driver = driver_of(run)
    if driver not in ("", P2PSIM) and not measured_at(run):
        name = run.scenario.removesuffix(f"-{driver}")
        return (name, "--device", driver)
    found = re.fullmatch(rf"profile (\S+), {MODEL}", run.latencies)
    if found is None or not run.scenario.endswith(f"-{found[1]}"):
        return (run.scenario,)
    name = run.scenario.removesuffix(f"-{found[1]}")
    return (name, "--profile", found[1])


def latencies(document: Document) -> tuple[str, ...]:
    """The models that latencies are taken from, and in which scenarios.

    :param document: The document.
    """
    found: dict[str, dict[str, None]] = {}
    for run in document.runs:
        if run.latencies:
            found.setdefault(run.latencies, {})[run.scenario] = None
    return tuple(
        f"{text}, in {', '.join(names)}" for text, names in found.items()
    )


def _for_each(command: str, found: list[int]) -> str:
    seeds = sorted(set(found))
    if not seeds:
        return command
    if len(seeds) == 1:
        return f"{command} {seeds[0]}"
    words = " ".join(map(str, seeds))
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        words = f"$(seq {seeds[0]} {seeds[-1]})"
    return f"for n in {words}; do {command} $n; done"


