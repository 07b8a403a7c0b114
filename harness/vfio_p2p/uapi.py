# SPDX-License-Identifier: GPL-2.0-or-later
"""The VFIO migration uAPI (version 2): states, flags and legal arcs.

The facts are those of <linux/vfio.h> and of the state table in
drivers/vfio/vfio_main.c.  An *arc* is one step that a driver implements.  User
space may also ask for a *combination*, which the kernel walks arc by arc (see
`path`).
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum, IntFlag


class DeviceState(IntEnum):
    """enum vfio_device_mig_state, without VFIO_DEVICE_STATE_."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5
    PRE_COPY = 6
    PRE_COPY_P2P = 7


class MigrationFlags(IntFlag):
    """Flags of VFIO_DEVICE_FEATURE_MIGRATION, without VFIO_MIGRATION_."""

    STOP_COPY = 1
    P2P = 2
    PRE_COPY = 4


ALL_FLAGS = (
    MigrationFlags.STOP_COPY | MigrationFlags.P2P | MigrationFlags.PRE_COPY
)

P2P_STATES = frozenset({DeviceState.RUNNING_P2P, DeviceState.PRE_COPY_P2P})

# One data stream stays open within this group.
SAVING_STATES = frozenset(
    {DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P, DeviceState.STOP_COPY}
)

_S = DeviceState
_Arc = tuple[DeviceState, DeviceState]

_STOP_COPY_ARCS: frozenset[_Arc] = frozenset(
    {
        (_S.STOP, _S.STOP_COPY),
        (_S.STOP_COPY, _S.STOP),
        (_S.STOP, _S.RESUMING),
        (_S.RESUMING, _S.STOP),
    }
)
_PRE_COPY_ARCS: frozenset[_Arc] = frozenset(
    {(_S.RUNNING, _S.PRE_COPY), (_S.PRE_COPY, _S.RUNNING)}
)
_P2P_ARCS: frozenset[_Arc] = frozenset(
    {
        (_S.RUNNING, _S.RUNNING_P2P),
        (_S.RUNNING_P2P, _S.RUNNING),
        (_S.RUNNING_P2P, _S.STOP),
        (_S.STOP, _S.RUNNING_P2P),
    }
)
_PRE_COPY_P2P_ARCS: frozenset[_Arc] = frozenset(
    {
        (_S.PRE_COPY, _S.PRE_COPY_P2P),
        (_S.PRE_COPY_P2P, _S.PRE_COPY),
        (_S.RUNNING_P2P, _S.PRE_COPY_P2P),
        (_S.PRE_COPY_P2P, _S.RUNNING_P2P),
        (_S.PRE_COPY_P2P, _S.STOP_COPY),
    }
)
# Without P2P these arcs bypass the states that do not exist.
_NO_P2P_ARCS: frozenset[_Arc] = frozenset(
    {(_S.RUNNING, _S.STOP), (_S.STOP, _S.RUNNING)}
)
_PRE_COPY_NO_P2P_ARCS: frozenset[_Arc] = frozenset(
    {(_S.PRE_COPY, _S.STOP_COPY)}
)


def states(flags: MigrationFlags) -> frozenset[DeviceState]:
    """Return the states that a device with these flags has.

    :param flags: What the device offers; STOP_COPY is mandatory.
    """
    found = {_S.ERROR, _S.RUNNING, _S.STOP, _S.STOP_COPY, _S.RESUMING}
    if flags & MigrationFlags.P2P:
        found.add(_S.RUNNING_P2P)
    if flags & MigrationFlags.PRE_COPY:
        found.add(_S.PRE_COPY)
        if flags & MigrationFlags.P2P:
            found.add(_S.PRE_COPY_P2P)
    return frozenset(found)


def arcs(flags: MigrationFlags) -> frozenset[_Arc]:
    """Return the single arcs that a driver with these flags implements.

    :param flags: What the device offers.
    """
    p2p = bool(flags & MigrationFlags.P2P)
    found = _STOP_COPY_ARCS | (_P2P_ARCS if p2p else _NO_P2P_ARCS)
    if flags & MigrationFlags.PRE_COPY:
        found |= _PRE_COPY_ARCS
        found |= _PRE_COPY_P2P_ARCS if p2p else _PRE_COPY_NO_P2P_ARCS
    return found


def path(
    before: DeviceState,
    after: DeviceState,
    flags: MigrationFlags = ALL_FLAGS,
) -> tuple[DeviceState, ...] | None:
    """Return the states that the kernel walks through up to `after`.

    The path is the shortest one on which a saving state is interior only if
    both ends are saving states, too: a stream must not open and close unseen.

    :param before: The state that the device is in.
    :param after: The requested state, which is the last one of the path.
    :param flags: What the device offers.
    :return: Empty if the device is in `after` already.  None if the request
        is illegal: the device has no such state, ERROR is involved, or the
        arc is blocked (STOP_COPY to PRE_COPY or PRE_COPY_P2P).
    """
    if DeviceState.ERROR in (before, after):
        return None
    if not {before, after} <= states(flags):
        return None
    if before == after:
        return ()
    within = {before, after} <= SAVING_STATES
    legal = arcs(flags)
    queue: deque[tuple[DeviceState, ...]] = deque([(before,)])
    seen = {before}
    while queue:
        way = queue.popleft()
        for state in DeviceState:
            if state in seen or (way[-1], state) not in legal:
                continue
            if state == after:
                return (*way[1:], state)
            if within == (state in SAVING_STATES):
                seen.add(state)
                queue.append((*way, state))
    return None
