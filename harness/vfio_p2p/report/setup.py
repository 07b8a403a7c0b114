# SPDX-License-Identifier: GPL-2.0-or-later
"""Describe the inputs and the place of a run in words.

No other module of this package looks into a run's inputs.
"""

from __future__ import annotations

import msgspec

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.provenance import (
    GuestProvenance,
    HostProvenance,
    MachineProvenance,
    SealedProvenance,
)
from vfio_p2p.report.run import Run
from vfio_p2p.variant import INSTALLED, is_as_it_is

P2PSIM = "p2psim"

_TRANSPORTS = {
    "unix": "a Unix socket",
    "tcp": "TCP, not encrypted",
    "tls": "TLS, encrypted",
}


def build_of(run: Run, length: int = 32) -> str:
    """The key of the build under test; empty if it is not known.

    :param run: The run.
    :param length: How much of the key is wanted, or of both sides' keys.
    """
    if not run.inputs:
        return ""
    builds = (run.inputs.source.build, run.inputs.destination.build)
    return "+".join(dict.fromkeys(x[:length] for x in builds if x))


def driver_of(run: Run) -> str:
    """The kernel module whose devices the run had.

    :param run: The run.
    """
    return run.inputs.place.driver if run.inputs else P2PSIM


def measured_at(run: Run) -> str:
    """The name of the place with real devices; empty for any other run.

    :param run: The run.
    """
    if run.inputs and isinstance(run.inputs.place, HostProvenance):
        return run.inputs.place.name
    return ""


def remarks_of(run: Run) -> tuple[str, ...]:
    """Say what was special about the run at its place, and why.

    That is the encryption of the migration, and the properties that the
    devices had to have.

    :param run: The run.
    """
    if not (run.inputs and isinstance(run.inputs.place, HostProvenance)):
        return ()
    place = run.inputs.place
    encrypted = f"{place.name}: the migration was encrypted with TLS."
    return (
        *([encrypted] if place.transport == "tls" else []),
        *dict.fromkeys(
            f"{machine.name}: vfio-pci has {name}={value}. {reason}"
            for machine in (place.source, place.destination)
            for name, value in _properties(machine)
            if (reason := machine.reasons.get(name))
        ),
    )


def _properties(machine: MachineProvenance) -> list[tuple[str, str]]:
    pairs = (x.partition("=") for x in machine.properties.split(",") if x)
    return [(name, value) for name, _, value in pairs]


def can_be_reproduced(run: Run) -> bool:
    """Whether the bundle tells how its QEMU was built.

    :param run: The run.
    """
    return bool(
        run.bundle
        and run.inputs
        and run.inputs.source.made_of is not None
        and run.inputs.destination.made_of is not None
    )


def place_of(run: Run) -> str:
    """Name the place of the run; empty if it is not known.

    :param run: The run.
    """
    if not run.exact:
        where = measured_at(run)
        said = "not sealed: times are measured, not exact"
        return f"{where}, {said}" if where else said
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
    if run.machine:
        found.append(("machine type", run.machine))
    if isinstance(inputs.place, SealedProvenance):
        found += [
            ("testbed", inputs.place.outer),
            ("its arguments", " ".join(inputs.place.arguments)),
            *sorted(inputs.place.image.items()),
        ]
    if isinstance(inputs.place, HostProvenance):
        found += _hosts(inputs.place)
    return found


def _hosts(place: HostProvenance) -> list[tuple[str, str]]:
    carried = _TRANSPORTS.get(place.transport, place.transport)
    found = [("place", place.name), ("migration over", carried)]
    if place.destination.name == place.source.name:
        found += _machine("host", place.source)
    else:
        found += _machine("source's host", place.source)
        found += _machine("destination's host", place.destination)
    if clock := place.clock:
        found.append(
            (
                "destination's clock",
                f"{clock.offset_ns / 1e6:+.3f} ms from the source's, "
                f"\N{PLUS-MINUS SIGN}{clock.bound_ns / 1e6:.3f} ms "
                f"({clock.via}, {clock.exchanges} exchanges)",
            )
        )
    return found


def _machine(name: str, machine: MachineProvenance) -> list[tuple[str, str]]:
    functions = ", ".join(
        " ".join(
            filter(
                None,
                (
                    x.address,
                    x.ids,
                    x.firmware and f"firmware {x.firmware}",
                    x.psid and f"PSID {x.psid}",
                    ""
                    if x.numa_node is None
                    else f"NUMA node {x.numa_node}",
                ),
            )
        )
        for x in machine.functions
    )
    return [
        (
            name,
            f"{machine.name} ({machine.hostname}), Linux {machine.kernel}, "
            f"{machine.cores} x {machine.cpu}, {machine.accelerator}, load "
            + " ".join(f"{x:.2f}" for x in machine.load),
        ),
        (f"{name}, devices", f"{functions}; driver {machine.driver}"),
        *(
            (f"{name}, {key}", _with_reason(value, machine.reasons.get(key)))
            for key, value in _properties(machine)
        ),
        *_guest(f"{name}, guest", machine.guest),
    ]


def _guest(
    name: str, guest: GuestProvenance | msgspec.UnsetType
) -> list[tuple[str, str]]:
    """Describe a guest of the user, if there is one."""
    if isinstance(guest, msgspec.UnsetType):
        return []
    found = [
        (
            name,
            f"{guest.memory_mib} MiB, {guest.smp} x {guest.cpu or 'CPU'}"
            + (f", image {guest.image_mode}" if guest.image_mode else ""),
        )
    ]
    if guest.append:
        found.append((f"{name}, append", guest.append))
    found += [(f"{name}, {x}", y) for x, y in guest.files.items()]
    return found


def _with_reason(value: str, reason: str | None) -> str:
    return f"{value}: {reason}" if reason else value


def _program(name: str, program: ProgramInput) -> list[tuple[str, str]]:
    if is_as_it_is(program.variant):
        where = "as it is"
        if program.variant == INSTALLED:
            where = "installed on the host"
        return [
            (name, f"{program.version}, {where}"),
            ("binary, SHA-256", program.sha256),
        ]
    return [
        (name, f"{program.version}, tree {program.variant}"),
        ("build", program.build),
        ("binary, SHA-256", program.sha256),
    ]
