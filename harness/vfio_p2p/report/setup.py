# SPDX-License-Identifier: GPL-2.0-or-later
"""Describe the inputs and the place of a run in words.

No other module of this package looks into a run's inputs.
"""

from __future__ import annotations

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.report.run import Run

P2PSIM = "p2psim"


def build_of(run: Run) -> str:
    """The key of the build under test; empty if it is not known.

    :param run: The run.
    """
    return run.inputs.source.build if run.inputs else ""


def driver_of(run: Run) -> str:
    """The kernel module whose devices the run had.

    :param run: The run.
    """
    return run.inputs.place.driver if run.inputs else P2PSIM


def can_be_reproduced(run: Run) -> bool:
    """Whether the bundle tells how its QEMU was built.

    :param run: The run.
    """
    return bool(
        run.bundle and run.inputs and run.inputs.source.made_of is not None
    )


def place_of(run: Run) -> str:
    """Name the place of the run; empty if it is not known.

    :param run: The run.
    """
    if not run.exact:
        return "not sealed: times are measured, not exact"
    if run.inputs is None:
        return ""
    place = run.inputs.place
    if not isinstance(place, SealedProvenance):
        return ""
    return f"nested, outer {place.outer}"


def setup_of(run: Run) -> list[tuple[str, str]]:
    """All that determined the run, as pairs of a name and its value.

    :param run: The run.
    """
    inputs = run.inputs
    if inputs is None:
        if run.exact:
            return [("inputs", "not known, since the bundle is missing")]
        return [
            ("QEMU", run.qemu or "not known"),
            ("logs", run.bundle),
            ("place", place_of(run)),
        ]
    found = _program("QEMU", inputs.source)
    if inputs.destination != inputs.source:
        found += _program("destination's QEMU", inputs.destination)
    if isinstance(inputs.place, SealedProvenance):
        found += [
            ("testbed", inputs.place.outer),
            ("its arguments", " ".join(inputs.place.arguments)),
            *sorted(inputs.place.image.items()),
        ]
    return found


def _program(name: str, program: ProgramInput) -> list[tuple[str, str]]:
    return [
        (name, f"{program.version}, tree {program.variant}"),
        ("build", program.build),
        ("binary, SHA-256", program.sha256),
    ]
