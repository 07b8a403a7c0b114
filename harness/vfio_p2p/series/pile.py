# SPDX-License-Identifier: GPL-2.0-or-later
"""The patches of a file: one patch, or an mbox with a series of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from vfio_p2p.errors import PatchError
from vfio_p2p.series.apply import NO_DIFF
from vfio_p2p.series.diff import read_diff
from vfio_p2p.series.mail import Mail
from vfio_p2p.series.patch import Patch

_TITLE = 60


@dataclass(frozen=True)
class MailedPatch(Patch):
    """One patch of a file that may have several mails.

    :param mail: The mail that has it.
    """

    mail: Mail

    @cached_property
    def mails(self) -> tuple[Mail, ...]:
        """The mail alone, as it was read from the file."""
        return (self.mail,)


def patches_of_file(file: Patch) -> tuple[Patch, ...]:
    """Return the patches of a file in the order in which they apply.

    If all of them are numbered, as in ``[PATCH 2/6]``, their numbers are the
    order; in a thread, mails are in the order of their arrival.  Otherwise
    they are in the order of the file.  Cover letters are left out, and so
    are replies, unless there is nothing but replies: a reviewer may have
    suggested a diff.

    :param file: The file.
    :raise PatchError: When there is no patch, when a mail is hard to read, or
                       when a series is not complete.
    """
    mails = [
        x
        for x in file.mails
        if x.has_diff and (x.subject.position or (1, 1))[0] != 0
    ]
    mails = [x for x in mails if not x.subject.reply] or mails
    if not mails:
        raise PatchError(
            file.name, None, None, NO_DIFF,
            "Give a patch, or an mbox with the patches of one series.",
        )
    if all(x.subject.position for x in mails):
        mails.sort(key=_position)
        _check_whole(file.name, mails)
    if len(mails) == 1:
        return (MailedPatch(file.name, mails[0].texts[0], mails[0]),)
    return tuple(
        MailedPatch(f"{file.name}: {_title(x, number)}", x.texts[0], x)
        for number, x in enumerate(mails, 1)
    )


def changed_files(patches: Iterable[Patch]) -> tuple[str, ...]:
    """Return the paths that patches change, sorted.

    :param patches: The patches.
    :raise PatchError: When one is malformed.
    """
    found = {
        file.path
        for patch in patches
        for diff in patch.readings[:1]
        for file in read_diff(patch.name, diff.decode(errors="replace"))
    }
    return tuple(sorted(found))


def _position(mail: Mail) -> tuple[int, int]:
    return mail.subject.position or (1, 1)


def _title(mail: Mail, number: int) -> str:
    title = mail.subject.title
    if len(title) > _TITLE:
        title = f"{title[:_TITLE]}..."
    return title or f"patch {number}"


def _check_whole(name: str, mails: list[Mail]) -> None:
    """Refuse a series with a gap, and two series in one file."""
    numbers = [_position(x)[0] for x in mails]
    lengths = {_position(x)[1] for x in mails}
    if len(mails) == 1:
        # One patch of a series may be meant alone.
        return
    why = ""
    if len(lengths) > 1:
        why = "it has patches of several series"
    elif twice := {x for x in numbers if numbers.count(x) > 1}:
        why = f"it has patch {min(twice)} twice"
    elif missing := set(range(1, max(lengths) + 1)) - set(numbers):
        why = f"patch {min(missing)} of {max(lengths)} is missing"
    if why:
        raise PatchError(
            name, None, None, why,
            "Give the mails of one version of a series, all of them.",
        )
