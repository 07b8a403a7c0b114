# SPDX-License-Identifier: GPL-2.0-or-later
"""One defect of QEMU, and all that is known about it."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vfio_p2p.errors import UsageError
from vfio_p2p.resources import resource

FORMAT: Literal[1] = 1

_Line = Annotated[str, Meta(pattern=r"\A[^\n]+\Z")]
_Text = Annotated[str, Meta(min_length=1)]
_Release = Annotated[str, Meta(pattern=r"\A\d+\.\d+\.\d+\Z")]


class Severity(StrEnum):
    """How bad a defect is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Evidence(StrEnum):
    """What is known of a defect in a release."""

    SHOWN = "shown"  # a run shows it
    READ = "read"  # the source has it, and it was not run
    ABSENT = "absent"  # the same run does not show it


class Defect(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A defect of QEMU; its texts are Markdown, without a heading.

    :param number: Its number, by which users name it.
    :param title: Its title.
    :param short: The title in a few words.
    :param severity: How bad it is.
    :param subject: The subject of a mail about it, without ``[BUG]``.
    :param command: The command that shows it.
    :param scenarios: The scenarios that show it.
    :param what: What happens.
    :param why: Why it happens.
    :param expected: What should happen.
    :param reproduce: How to see it.
    :param affected: What is known of it, by the releases of QEMU.
    :param drivers: What holds for drivers of real devices; may be empty.
    :param known: What others know of it; may be empty.
    :param workaround: How to live with it; may be empty.
    :param followup: The name of the patch that repairs it; may be empty.
    :param repair: What that patch does, or what a repair takes; may be empty.
    """

    format: Literal[1] = FORMAT
    number: Annotated[int, Meta(ge=1)]
    title: _Line
    short: _Line
    severity: Severity
    subject: _Line
    command: _Line
    scenarios: Annotated[tuple[str, ...], Meta(min_length=1)]
    what: _Text
    why: _Text
    expected: _Text
    reproduce: _Text
    affected: Annotated[dict[_Release, Evidence], Meta(min_length=1)]
    drivers: str = ""
    known: str = ""
    workaround: str = ""
    followup: str = ""
    repair: str = ""

    def having(self, evidence: Evidence) -> tuple[str, ...]:
        """The releases of which this is known.

        :param evidence: What is known.
        """
        return tuple(x for x, y in self.affected.items() if y is evidence)


@cache
def load_defects() -> tuple[Defect, ...]:
    """Read all defects, sorted by their numbers."""
    return tuple(
        sorted(
            (
                msgspec.toml.decode(path.read_bytes(), type=Defect)
                for path in resource("defects", "library").glob("*.toml")
            ),
            key=lambda x: x.number,
        )
    )


def find_defect(number: int) -> Defect:
    """Return the defect with a number.

    :param number: The number.
    :raise UsageError: When there is none.
    """
    found = load_defects()
    for each in found:
        if each.number == number:
            return each
    raise UsageError(
        f"there is no finding {number}",
        f"They have the numbers 1 to {found[-1].number}; 'vfio-p2p findings "
        "list' lists them.",
    )
