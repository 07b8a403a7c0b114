# SPDX-License-Identifier: GPL-2.0-or-later
"""The titles that the patches of the series have had on QEMU's list.

The series was posted three times: on 16 July 2023 (the first version, whose
titles the project's own patches have), on 31 July 2023 (v2) and on 2 August
2023 (v3).  QEMU has v3, which came with the pull request of 11 September 2023.
Only the second patch was renamed, in v2.
"""

from __future__ import annotations

# By number, the newest title last.
TITLES: tuple[tuple[str, ...], ...] = (
    ("vfio/migration: Move from STOP_COPY to STOP in vfio_save_cleanup()",),
    (
        "sysemu: Add pre VM state change callback",
        "sysemu: Add prepare callback to struct VMChangeStateEntry",
    ),
    ("qdev: Add qdev_add_vm_change_state_handler_full()",),
    ("vfio/migration: Refactor PRE_COPY and RUNNING state checks",),
    ("vfio/migration: Add P2P support for VFIO migration",),
    ("vfio/migration: Allow migration of multiple P2P supporting devices",),
)


def _key(title: str) -> str:
    """Return a title without what mailers change: blanks, upper case."""
    return "".join(title.split()).casefold()


_NUMBERS = {
    _key(title): number
    for number, titles in enumerate(TITLES, 1)
    for title in titles
}


def number_of(title: str) -> int | None:
    """Return the number of the patch that has, or once had, a title.

    :param title: The subject of its mail, without the prefix.
    :return: A number from 1 on; None if no patch had this title.
    """
    return _NUMBERS.get(_key(title))
