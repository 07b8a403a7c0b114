# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in which devices send to one another, and lose transactions."""

from __future__ import annotations

from pathlib import Path

from bundles import MIGRATED, make_bundle
from msgspec.structs import replace
from qemu_log import FakeQemu, boot, devices, receive
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Expect
from vfio_p2p.timeline import Pass

SENT = 100
NAMES = (("src0", "src1"), ("dst0", "dst1"))


def with_peers(qemu: FakeQemu, sent: int = SENT) -> FakeQemu:
    """Let each of two devices send a number of transactions."""
    for number, name in enumerate(qemu.devices):
        device = qemu.device(name)
        device.peer_id = number
        device.peers = {1 - number: {"sent": sent, "received": sent}}
    return qemu


def lose(qemu: FakeQemu, count: int, states: tuple[str, str]) -> None:
    """Let the first device lose what it now sends to the second one."""
    first = next(iter(qemu.devices))
    device = qemu.device(first)
    device.now_ns = qemu.next_ns
    counts = device.peers[1]
    for _ in range(count):
        counts["sent"] += 1
        counts["lost"] = counts.get("lost", 0) + 1
        device.say(
            f"lost from=0 to=1 seq={counts['sent']} from_state={states[0]} "
            f"to_state={states[1]}"
        )


def source(names: tuple[str, str] = NAMES[0], *, lost: int = 0) -> FakeQemu:
    """Make a source; with losses, it stops device by device."""
    qemu = with_peers(FakeQemu(devices(*names)))
    first, second = names
    boot(qemu)
    qemu.setup()
    if lost:
        qemu.begin(False, "finish-migrate")
        for name in (second, first):
            for phase in Pass:
                qemu.call(name, phase, False, "finish-migrate")
            if name == second:
                lose(qemu, lost, ("PRE_COPY", "STOP_COPY"))
    else:
        qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.begin_ns += 2_000_000_000
    qemu.status("completed")
    qemu.cleanup()
    return qemu


def destination(
    names: tuple[str, str] = NAMES[1], *, lost: int = 0
) -> FakeQemu:
    """Make a destination, after a number of losses on the way."""
    qemu = with_peers(FakeQemu(devices(*names)))
    if lost:
        qemu.device(names[0]).peers[1] |= {"sent": SENT + lost, "lost": lost}
    return receive(qemu)


def traffic_bundle(
    path: Path, variant: str = "patched", *, lost: int = 0
) -> Path:
    """Write a run of two devices that send to one another."""
    return make_bundle(
        path,
        variant=variant,
        scenario=load("two-devices-with-traffic"),
        source=source(lost=lost),
        destination=destination(lost=lost),
    )


def to_and_fro(path: Path, *, lost: int = 0) -> Path:
    """Write a run of two migrations; the one back may lose some."""
    there = with_peers(FakeQemu(devices(*NAMES[1])))
    begin_ns = there.begin_ns + 100_000_000
    there.begin_ns = begin_ns
    there.load()
    there.vm(True, "running")
    there.status("completed")
    there.setup()
    there.vm(False, "finish-migrate")
    there.complete()
    there.begin_ns += 2_000_000_000
    there.status("completed")
    there.cleanup()
    back = FakeQemu(devices(*NAMES[0]), begin_ns=begin_ns + 100_000_000)
    receive(with_peers(back))
    if lost:
        counts = back.device(NAMES[0][0]).peers[1]
        counts |= {"sent": SENT + lost, "lost": lost}
    return make_bundle(
        path,
        scenario=replace(load("two-devices-with-traffic"), expect=Expect()),
        source=source(),
        destination=there,
        qemus={"source-2": back},
        result=replace(
            MIGRATED,
            exit_states=dict.fromkeys(
                ("source", "destination", "source-2"), 0
            ),
            migration=dict.fromkeys(
                ("source", "destination", "source-2"), ("completed",)
            ),
            legs=(("source", "destination"), ("destination", "source-2")),
        ),
    )
