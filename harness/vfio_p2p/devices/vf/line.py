# SPDX-License-Identifier: GPL-2.0-or-later
"""One line of the preflight."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckLine:
    """One thing that a migration needs of a host.

    :param host: The host's name.
    :param subject: What the line is about.
    :param ok: Whether it is as wanted; None if that is not known.
    :param is_: What is.
    :param wanted: What is wanted.
    :param mend: What to do, a whole sentence with a command; empty if
        nothing has to be done.
    """

    host: str
    subject: str
    ok: bool | None
    is_: str
    wanted: str
    mend: str = ""
