# SPDX-License-Identifier: GPL-2.0-or-later
"""The uAPI's states against its documentation."""

from __future__ import annotations

import pytest
from vfio_p2p.uapi import ALL_FLAGS, DeviceState, MigrationFlags, arcs, path
from vfio_p2p.uapi import DeviceState as S

STOP_COPY = MigrationFlags.STOP_COPY
P2P = STOP_COPY | MigrationFlags.P2P
PRE_COPY = STOP_COPY | MigrationFlags.PRE_COPY


def test_numbers() -> None:
    assert [(s.name, s.value) for s in DeviceState] == [
        ("ERROR", 0),
        ("STOP", 1),
        ("RUNNING", 2),
        ("STOP_COPY", 3),
        ("RESUMING", 4),
        ("RUNNING_P2P", 5),
        ("PRE_COPY", 6),
        ("PRE_COPY_P2P", 7),
    ]


@pytest.mark.parametrize(
    ("before", "after", "flags", "way"),
    [
        (S.PRE_COPY, S.STOP_COPY, ALL_FLAGS, (S.PRE_COPY_P2P, S.STOP_COPY)),
        (S.PRE_COPY, S.STOP_COPY, PRE_COPY, (S.STOP_COPY,)),
        (
            S.PRE_COPY,
            S.STOP,
            ALL_FLAGS,
            (S.RUNNING, S.RUNNING_P2P, S.STOP),
        ),
        (
            S.RUNNING,
            S.RESUMING,
            ALL_FLAGS,
            (S.RUNNING_P2P, S.STOP, S.RESUMING),
        ),
        (S.RUNNING, S.RESUMING, STOP_COPY, (S.STOP, S.RESUMING)),
        (
            S.RESUMING,
            S.RUNNING,
            P2P,
            (S.STOP, S.RUNNING_P2P, S.RUNNING),
        ),
        (
            S.STOP_COPY,
            S.RUNNING,
            ALL_FLAGS,
            (S.STOP, S.RUNNING_P2P, S.RUNNING),
        ),
        (S.STOP_COPY, S.RUNNING_P2P, P2P, (S.STOP, S.RUNNING_P2P)),
        (
            S.RUNNING,
            S.STOP_COPY,
            ALL_FLAGS,
            (S.RUNNING_P2P, S.STOP, S.STOP_COPY),
        ),
        (S.STOP, S.STOP, STOP_COPY, ()),
        (S.STOP_COPY, S.PRE_COPY, ALL_FLAGS, None),
        (S.STOP_COPY, S.PRE_COPY_P2P, ALL_FLAGS, None),
        (S.RUNNING, S.ERROR, ALL_FLAGS, None),
        (S.ERROR, S.RUNNING, ALL_FLAGS, None),
        (S.RUNNING, S.RUNNING_P2P, PRE_COPY, None),
        (S.RUNNING, S.PRE_COPY, P2P, None),
        (S.PRE_COPY, S.PRE_COPY_P2P, PRE_COPY, None),
    ],
)
def test_path(
    before: S, after: S, flags: MigrationFlags, way: tuple[S, ...] | None
) -> None:
    assert path(before, after, flags) == way


@pytest.mark.parametrize(
    "flags", [STOP_COPY, P2P, PRE_COPY, ALL_FLAGS], ids=str
)
def test_path_walks_on_arcs(flags: MigrationFlags) -> None:
    legal = arcs(flags)
    for before in S:
        for after in S:
            way = path(before, after, flags)
            for arc in zip((before, *(way or ())), way or (), strict=False):
                assert arc in legal
