# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge one patch that replaces a patch of the project's series.

b4 gives each mail of any series to such a check, so a mail that is no patch
of this series is no error: the check then says what the mail is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vfio_p2p.errors import BuildError, InputError, PatchError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.judging.patches import SCENARIOS
from vfio_p2p.plans.matrix import CellResult
from vfio_p2p.plans.runs import judge_trees
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import Chosen, choose
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Patch, Variant
from vfio_p2p.series.mail import Mail
from vfio_p2p.series.patch import MAX_PATCH_BYTES
from vfio_p2p.series.titles import TITLES, number_of
from vfio_p2p.trace import printable

Status = Literal["pass", "warn", "fail"]

_NAME = "standard input"
_HINT = "Give one patch: a mail, or what 'git format-patch' writes."
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")

_STATUS: dict[Verdict, Status] = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "fail",
}


@dataclass(frozen=True)
class PatchRequest:
    """The patch, and where it is tried.

    :param patch: The patch, as a mail, an mbox with one patch, or as ``git
                  format-patch`` writes it.
    :param origin: The source.
    :param setting: Where and how the runs are made.
    """

    patch: bytes
    origin: Origin = Origin()
    setting: Setting = Setting()


@dataclass(frozen=True)
class Check:
    """One result in the form that b4 reads.

    :param status: The status of the check.
    :param summary: One line.
    :param details: Lines that explain it; may be empty.
    """

    status: Status
    summary: str
    details: str = ""


def check_patch(
    request: PatchRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> tuple[Check, ...]:
    """Judge a patch that replaces the project's patch of the same title.

    The title may be any that the patch has had on QEMU's list.  The patch is
    applied on top of the project's patches that precede it.

    :raise InputError: When an option or the source is wrong, or when the
                       input is empty, larger than `MAX_PATCH_BYTES`, no
                       patch at all, or more than one.
    """
    # Wrong options are found before anything is built.
    request.setting.check()
    scenarios = [
        load_for(name, request.setting, reporter) for name in SCENARIOS
    ]
    patch = Patch(_NAME, request.patch)
    mail = _read(patch)
    number = number_of(mail.subject.title)
    if found := _no_patch(mail, number):
        return (found,)
    if number is None:
        return (_foreign(mail),)
    chosen = choose(request.origin, reporter, workshop)
    if not chosen.base.patches:
        return (
            Check(
                "warn",
                f"QEMU {chosen.source.version} has the series already: "
                "nothing to check",
                "'vfio-p2p series list' prints the QEMU versions that the "
                "series is for; --source and --base choose one.",
            ),
        )
    workshop.check(request.setting)
    before = chosen.base.pre + chosen.base.patches[: number - 1]
    # The patches before it are ours, so it is not to blame if they fail.
    workshop.check_patches(chosen.source, before)
    tree = Variant(f"patch-{number}", (*before, patch))
    judged = _judge(
        chosen, tree, scenarios, request.setting, reporter, workshop
    )
    return (*judged, *_unread(mail))


def _read(patch: Patch) -> Mail:
    """Return the one mail that has a patch; or else the first mail.

    Mails without a patch, such as the answers of a thread, do not matter.

    :raise InputError: When there is more than one patch, or no mail.
    """
    if len(patch.data) > MAX_PATCH_BYTES:
        raise InputError(
            f"{_NAME} is larger than {MAX_PATCH_BYTES >> 20} MiB; nothing "
            "of it was judged",
            f"{_HINT} The whole series has 40 KiB.",
        )
    if not patch.data.strip():
        raise InputError(f"{_NAME} is empty: there is no patch", _HINT)
    mails = patch.mails
    patches = [x for x in mails if x.has_diff]
    if len(patches) > 1:
        titles = "; ".join(
            printable(x.subject.text[:80]) or "(no subject)"
            for x in patches[:7]
        )
        raise InputError(
            f"{_NAME} has {_count(len(patches))} patches, and only one is "
            f"judged at a time: {titles}",
            "Give one patch at a time. 'git mailsplit' splits an mbox.",
        )
    if patches and not patches[0].subject.title:
        raise InputError(
            f"{_NAME} has a patch without a subject, so nothing says which "
            "patch of the series it is",
            _HINT,
        )
    if not patches and not any(x.whole for x in mails):
        raise InputError(f"{_NAME} is neither a mail nor a patch", _HINT)
    unread = tuple(name for mail in mails for name in mail.unread)
    return replace((patches or mails)[0], unread=unread)


def _count(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def _no_patch(mail: Mail, number: int | None) -> Check | None:
    """Say what a mail is that is not meant to be applied."""
    subject = printable(mail.subject.text)
    details = [f"Its subject is: {subject}"]
    if mail.unread:
        names = ", ".join(map(printable, mail.unread))
        details.append(f"These parts of the mail were not read: {names}")
    if mail.subject.position and mail.subject.position[0] == 0:
        what = "a reply to a" if mail.subject.reply else "the"
        if mail.has_diff:
            details.append("Its diff was not judged.")
        return Check(
            "warn",
            f"this is {what} cover letter: nothing to check",
            "\n".join([*details, "Give one of the patches that follow it."]),
        )
    if mail.has_diff:
        return None
    if mail.subject.reply:
        return Check(
            "warn",
            "this is a reply without a patch: nothing to check",
            "\n".join([*details, "Give the mail that has the patch itself."]),
        )
    if number is None:
        return None
    return Check(
        "fail",
        f"there is no patch in this mail, which has the title of patch "
        f"{number}",
        "\n".join(
            [
                *details,
                "Send the patch as plain text, as 'git send-email' does.",
            ]
        ),
    )


def _foreign(mail: Mail) -> Check:
    return Check(
        "warn",
        "not a patch of the series: nothing to check",
        "\n".join(
            [
                f"Its subject is: {printable(mail.subject.text)}",
                "The patches of the series are recognised by their titles:",
                *(
                    f"{number}. {' or: '.join(titles)}"
                    for number, titles in enumerate(TITLES, 1)
                ),
            ]
        ),
    )


def _unread(mail: Mail) -> tuple[Check, ...]:
    """Say what was not judged: it must not look as if it had passed."""
    if not mail.unread:
        return ()
    return (
        Check(
            "warn",
            "a part of the mail was not read",
            "Only its plain text was judged, without these: "
            + ", ".join(map(printable, mail.unread)),
        ),
    )


def _judge(
    chosen: Chosen,
    tree: Variant,
    scenarios: Sequence[Scenario],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> tuple[Check, ...]:
    try:
        workshop.check_patches(chosen.source, tree.patches)
        made = judge_trees(
            chosen,
            [(tree, scenario) for scenario in scenarios],
            setting,
            reporter,
            workshop,
        )
    except PatchError as err:
        number = len(tree.patches) - len(chosen.base.pre)
        return (
            Check(
                "fail",
                "does not apply",
                f"{printable(err.what)}\n"
                f"The patch was tried on QEMU {chosen.source.version} with "
                f"our patches before number {number} (base "
                f"{chosen.base.name}). If it is meant for another QEMU, "
                "choose that with --source or --base.",
            ),
        )
    except BuildError as err:
        return (Check("fail", err.what, err.tail),)
    return tuple(map(_of_run, made.results))


def _of_run(result: CellResult) -> Check:
    found = result.assessment
    details = [
        line
        for finding in found.findings
        for line in (
            f"{finding.rule}: {printable(finding.message)}",
            *finding.lines(),
        )
    ]
    return Check(
        # An unknown result is neither a reason to reject a patch nor a pass.
        _STATUS.get(found.verdict, "warn"),
        f"{result.cell.job.scenario.name}: {found.verdict}, {found.summary}",
        "\n".join([*details, *map(printable, found.notes)]),
    )
