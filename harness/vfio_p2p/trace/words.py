# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU and libvirt say in their own words, between the events of a log.

`ERRORS` is a list of patterns, to which more can be added; the
texts are those of hw/vfio, migration, monitor and util/error.  Whatever else
is an error of QEMU's, or a line of libvirt's, is kept to be quoted.
"""

from __future__ import annotations

import re

# Texts of `MESSAGES` in `formats` are errors, too.
ERRORS: tuple[str, ...] = (
    # migration/savevm.c, migration/vmstate.c
    r"error while loading state",
    r"[Ee]rror -?\d+ while loading VM state",
    r"Failed to load \S+:",
    r"Missing section footer|Section footer error",
    r"Unknown (?:ramblock|savevm section)|Unknown savevm section",
    r"Not a migration stream",
    # The device, the kernel's driver, or their firmware refused data.
    r"(?:save|load)[\w ]{0,32} (?:state|config\w*|buffer) ?failed",
    # Blockers: migration/migration.c, hw/vfio/migration.c
    r"[Mm]igration is (?:disabled|blocked|not supported)",
    r"does(?:n't| not) support migration",
    r"[Dd]isallowing migration blocker",
    r"State blocked by non-migratable device",
    r"[Mm]igration (?:has )?failed",
    # glibc, GLib, util/error.c
    r"Assertion .{1,512} failed",
    r"[Aa]ssertion failed:",
    r"Unexpected error in .{1,256} at ",
    r"code should not be reached",
)
# The program is dead if it says this.
CRASHES: tuple[str, ...] = ERRORS[-4:]

# One pattern after another is ten times as fast as all of them at once.
_ERRORS = tuple(map(re.compile, ERRORS))
_CRASHES = tuple(map(re.compile, CRASHES))
_ISO = r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z )?"
_SAID = re.compile(
    # error_report(): the time with -msg timestamp=on, guest, program.
    rf"{_ISO}(?:[^\s:]{{1,128}} )?(?:[^\s:]{{0,256}}/)?"
    r"qemu(?:[\w.+-]{0,64}|-kvm)(?:\[\d{1,10}\])?: ?(?P<qemu>.+)"
    # The monitor for humans, and GLib.
    r"|(?P<hmp>Error: .+)|(?P<glib>(?:\*\* ?)?\(?.{0,64}?ERROR.{0,8}:.+)"
)
# libvirt's lines in its log of a domain.
_LIBVIRT = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000: (?P<said>.+)"
)
_STARTS = "starting up libvirt version"
SIGNAL = "terminating on signal"


def is_error(text: str) -> bool:
    """Return whether a line is an error that bears on a verdict.

    :param text: The line.
    """
    return ": warning: " not in text and any(
        error.search(text) for error in _ERRORS
    )


def is_crash(text: str) -> bool:
    """Return whether the program died right after it printed a line.

    :param text: The line.
    """
    return any(crash.search(text) for crash in _CRASHES)


def is_said(text: str) -> bool:
    """Return whether a line is any other of QEMU's or of libvirt's.

    :param text: The line.
    """
    return (
        _SAID.fullmatch(text) is not None
        or _LIBVIRT.fullmatch(text) is not None
    )


def is_start(text: str) -> bool:
    """Return whether libvirt says here that it starts another QEMU.

    :param text: The line.
    """
    found = _LIBVIRT.fullmatch(text)
    return found is not None and found["said"].startswith(_STARTS)


def without_prefix(text: str) -> str:
    """Return what QEMU said, without the time and the program's name.

    :param text: The line.
    """
    found = _SAID.fullmatch(text)
    if found is None:
        return text.partition("migrate_error error=")[2] or text
    return found["qemu"] or found["hmp"] or found["glib"]
