# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU can tell of its migrations, beside its QMP answers."""

from __future__ import annotations

from enum import StrEnum


class Tells(StrEnum):
    """The way in which a QEMU tells of its migrations.

    With `LOG` and `SIMPLE` it writes trace events, as text or in the binary
    form of its backend ``simple``.  With `EVENTS` it has neither backend, and
    QMP's event VFIO_MIGRATION (9.1 and later) is all that there is.
    """

    LOG = "log"
    SIMPLE = "simple"
    EVENTS = "events"
