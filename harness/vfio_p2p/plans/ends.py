# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs of the two ends of a migration, which can be different ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.errors import UsageError
from vfio_p2p.names import suggest
from vfio_p2p.places import Job
from vfio_p2p.plans.devices import check_qemu
from vfio_p2p.plans.installed import AsItIs, choose_subject
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import Chosen, build_all
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Reporter
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Variant, load_bases
from vfio_p2p.side import Side
from vfio_p2p.variant import (
    DEBIAN,
    INSTALLED,
    QEMU,
    is_built,
    is_named_binary,
    is_tree,
    tree_names,
)


@dataclass(frozen=True)
class End:
    """A QEMU, as a request names it.

    :param origin: The source, if it is built.
    :param name: The name of its variant, or of a QEMU as it is.
    """

    origin: Origin
    name: str

    @property
    def built(self) -> bool:
        """Whether it is built."""
        return is_built(self.name)


@dataclass(frozen=True)
class ChosenEnd:
    """A QEMU that was found, and that can be built if it has to be.

    :param end: Its name in the request.
    :param variant: The variant.
    :param chosen: Its source; None if it is not built.
    :param as_it_is: The QEMU that is run as it is; None if it is built.
    """

    end: End
    variant: Variant
    chosen: Chosen | None
    as_it_is: AsItIs | None

    @property
    def name(self) -> str:
        """A name that tells it from other QEMUs, e.g. ``v10.0 base``."""
        if self.chosen:
            return f"{self.chosen.base.name} {self.variant.name}"
        if self.end.name.startswith(DEBIAN):
            return self.end.name
        return self.variant.name

    @property
    def prefix(self) -> str:
        """The beginning of the names of its bundles, before the variant."""
        return f"{self.chosen.base.name}-" if self.chosen else ""

    @property
    def base(self) -> str:
        """The name of the base whose expectations apply."""
        if self.chosen:
            return self.chosen.base.name
        return self.as_it_is.base.name if self.as_it_is else ""

    @property
    def origin(self) -> str:
        """Where it is from, for reports."""
        if self.chosen:
            return self.chosen.source.origin
        return self.as_it_is.origin if self.as_it_is else ""


@dataclass(frozen=True)
class ReadyEnd:
    """A QEMU that is ready to run.

    :param what: What was chosen.
    :param programs: The QEMU for each side, which differ only if hosts have
        their own.
    """

    what: ChosenEnd
    programs: dict[Side, ProgramInput]


def parse_end(text: str, origin: Origin, source: Path | None = None) -> End:
    """Read the name of a QEMU that can have a source of its own.

    :param text: ``VARIANT``, ``BASE:VARIANT``, ``debian:VERSION`` or the
        path of a QEMU.
    :param origin: The source of variants that name no base.
    :param source: The source of this QEMU, if it is another one.
    :raise UsageError: When it is none of these.
    """
    base, colon, variant = text.partition(":")
    if colon and base in [x.name for x in load_bases()]:
        if not is_tree(variant) or is_named_binary(variant):
            raise UsageError(
                f"unknown variant {variant!r}",
                suggest(variant, tree_names()),
            )
        own = Origin(base, source, origin.refresh)
        return End(own, variant)
    if is_tree(text) and not is_named_binary(text):
        if source:
            origin = Origin(None, source, origin.refresh)
        return End(Origin() if text == INSTALLED else origin, text)
    if source:
        raise UsageError(
            f"--to-source has no effect on {text}, which is not built",
            "Leave it out, or name a variant to be built.",
        )
    if is_named_binary(text):
        return End(Origin(), text)
    if "/" in text or Path(text).exists():
        return End(Origin(), f"{QEMU}{text}")
    raise UsageError(
        f"{text!r} is no variant, and there is no such file",
        suggest(text, tree_names()),
    )


def choose_ends(
    ends: Sequence[End],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> list[ChosenEnd]:
    """Find QEMUs, and see that they can be run; nothing is built yet.

    :param ends: The QEMUs.
    :param setting: Where they run.
    :param reporter: Told of downloads.
    :param workshop: Finds them.
    :raise UsageError: When a name is unknown, or a QEMU cannot be used.
    :raise InputError: When the place cannot be used.
    """
    found: dict[End, ChosenEnd] = {}
    for origin in dict.fromkeys(x.origin for x in ends):
        mine = [x for x in ends if x.origin == origin]
        subject = choose_subject(
            origin, [x.name for x in mine], setting, reporter, workshop
        )
        if subject.chosen:
            check_qemu(setting.driver, subject.chosen.source.version)
        for end in mine:
            variant = subject.named[end.name]
            as_it_is = subject.as_they_are.get(variant.name)
            chosen = None if as_it_is else subject.chosen
            found[end] = ChosenEnd(end, variant, chosen, as_it_is)
    return [found[x] for x in ends]


def ready_ends(
    chosen: Sequence[ChosenEnd], reporter: Reporter, workshop: Workshop
) -> list[ReadyEnd]:
    """Build the QEMUs that have to be built.

    :param chosen: The QEMUs.
    :param reporter: Told how far each build is.
    :param workshop: Builds.
    :raise BuildError: When one does not build.
    """
    found: dict[End, ReadyEnd] = {}
    for what in chosen:
        if what.end in found:
            continue
        if what.as_it_is:
            programs = dict(what.as_it_is.programs)
        else:
            assert what.chosen
            (build,) = build_all(
                what.chosen.source, [what.variant], reporter, workshop
            )
            programs = dict.fromkeys(Side, workshop.program(build))
        found[what.end] = ReadyEnd(what, programs)
    return [found[x.end] for x in chosen]


def job_between(
    source: ReadyEnd, destination: ReadyEnd, scenario: Scenario, seed: int
) -> Job:
    """Make the job of a migration from one QEMU to another.

    :param source: The QEMU of the source.
    :param destination: The QEMU of the destination.
    :param scenario: What happens in the run.
    :param seed: Its seed.
    """
    return Job.of(
        source.programs[Side.SOURCE],
        scenario,
        seed,
        destination=destination.programs[Side.DESTINATION],
    )
