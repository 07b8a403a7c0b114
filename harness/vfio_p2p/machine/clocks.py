# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure by how much the clocks of two hosts differ."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import msgspec

from vfio_p2p.clock import ClockOffset, Exchange, difference, estimate
from vfio_p2p.errors import HostError
from vfio_p2p.machine.agent_session import AgentSession
from vfio_p2p.machine.host_protocol import Host

# One kernel has one clock, whatever its hosts are called.
ONE_CLOCK = ClockOffset(
    offset_ns=0, bound_ns=0, round_trip_ns=0, exchanges=1, via="one clock"
)

_EXCHANGES = 50
_LIMIT_S = 60.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


async def measure(
    source: Host, destination: Host, link_address: str | None
) -> ClockOffset:
    """Measure the destination's clock against the source's.

    The source asks the destination over the link between the two. If that
    does not work, both are asked from here, which is less exact.

    :param source: The source's host.
    :param destination: The destination's host.
    :param link_address: The address of the destination on the link between
        the two; None if there is none.
    :raise UsageError: When the destination does not have that address.
    :raise HostError: When a host does not tell its time.
    """
    boots = await asyncio.gather(_boot_id(source), _boot_id(destination))
    if boots[0] == boots[1]:
        return ONE_CLOCK
    if link_address is not None:
        found = await measure_link(source, destination, link_address)
        if found:
            return found
    return await measure_from_here(source, destination)


async def measure_link(
    source: Host, destination: Host, address: str
) -> ClockOffset | None:
    """Let the source ask the destination over the link between the two.

    :param source: The source's host.
    :param destination: The destination's host.
    :param address: The destination's address on the link.
    :return: None if no answer comes through.
    :raise UsageError: When the destination does not have that address.
    :raise HostError: When a host does not do what it has to.
    """
    try:
        async with (
            asyncio.timeout(_LIMIT_S),
            destination.agent_session(
                ["clock", "answer", "--udp", address]
            ) as session,
        ):
            told = await session.receive()
            there = [address, str(told["port"]), told["token"]]
            answer = await source.agent(
                ["clock", "ask", *there, str(_EXCHANGES)], limit_s=_LIMIT_S
            )
    except TimeoutError:
        raise _too_long(source, destination) from None
    exchanges = [Exchange(*sample) for sample in answer["samples"]]
    if not exchanges:
        return None
    try:
        return estimate(exchanges, f"UDP, to {address}")
    except ValueError as err:
        raise _set_back(source) from err


async def measure_from_here(source: Host, destination: Host) -> ClockOffset:
    """Ask both hosts in turns, from this machine.

    :param source: The source's host.
    :param destination: The destination's host.
    :raise HostError: When a host does not tell its time.
    """
    pairs: list[ClockOffset] = []
    try:
        async with AsyncExitStack() as stack, asyncio.timeout(_LIMIT_S):
            sessions = [
                await stack.enter_async_context(
                    host.agent_session(["clock", "answer"])
                )
                for host in (source, destination)
            ]
            for _ in range(_EXCHANGES):
                # The two are asked one right after the other, since clocks
                # drift.
                one, two = [
                    estimate([await _ask(session)]) for session in sessions
                ]
                pairs.append(difference(one, two))
    except TimeoutError:
        raise _too_long(source, destination) from None
    except ValueError as err:
        raise HostError(
            "this machine's clock was set back while it was measured",
            "Check what sets it, and try again.",
        ) from err
    best = min(pairs, key=lambda pair: pair.bound_ns)
    return msgspec.structs.replace(
        best, exchanges=len(pairs), via="both hosts, from here"
    )


async def _ask(session: AgentSession) -> Exchange:
    asked_ns = time.time_ns()
    await session.send(None)
    told_ns = int(await session.receive())
    return Exchange(asked_ns, told_ns, time.time_ns())


async def _boot_id(host: Host) -> bytes:
    done = await host.run(["cat", _BOOT_ID], limit_s=_LIMIT_S)
    if done.status or not done.stdout:
        raise HostError(
            f"{host.name}: {_BOOT_ID} cannot be read",
            "Check that the host is a Linux with /proc.",
        )
    return done.stdout


def _too_long(source: Host, destination: Host) -> HostError:
    return HostError(
        f"{source.name}, {destination.name}: asking for the time took "
        f"longer than {_LIMIT_S:g} s",
        "Check the network to both hosts.",
    )


def _set_back(host: Host) -> HostError:
    return HostError(
        f"{host.name}: its clock was set back while it was measured",
        "Check what sets it, and try again.",
    )
