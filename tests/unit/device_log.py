# SPDX-License-Identifier: GPL-2.0-or-later
"""A p2psim device that only writes its log, of version 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vfio_p2p.uapi import SAVING_STATES, DeviceState, MigrationFlags, path

S = DeviceState
CRC = 0x34D3B846
_TICK_NS = 1_000


@dataclass
class FakeDevice:
    """One device, open from the beginning; each method logs an event.

    :param flags: What it offers.
    :param now_ns: Its clock; every line takes a microsecond.
    :param peer_id: Its number among its peers; None means version 1, without
        peers.
    :param peers: The counters for each peer, by the peer's number.
    :param heartbeat: The figures of its guest's beats, in version 3.
    """

    flags: MigrationFlags
    now_ns: int
    peer_id: int | None = None
    peers: dict[int, dict[str, int]] = field(default_factory=dict)
    heartbeat: Mapping[str, int] = field(default_factory=dict)
    state: DeviceState = S.RUNNING
    complete: bool = True
    crc32: int = CRC
    checksum: str = ""
    lines: list[str] = field(default_factory=list)
    live_ns: int = field(init=False)

    def __post_init__(self) -> None:
        # QEMU opens it before QEMU's first line, whenever that is.
        self.live_ns = self.now_ns - 150_000_000

    def say(self, text: str) -> None:
        """Log one line."""
        self.lines.append(f"{self.now_ns} {text}")
        self.now_ns += _TICK_NS

    def ask(self, state: DeviceState, errno: int = 0) -> None:
        """Log a request, which fails in its first arc with `errno`."""
        self.say(f"request from={self.state.name} to={state.name}")
        way = path(self.state, state, self.flags)
        for target in way or ():
            begin_ns = self.now_ns
            if not errno:
                self._session(target)
            self.say(
                f"arc from={self.state.name} to={target.name} "
                f"ret={-errno} start_ns={begin_ns} end_ns={self.now_ns}"
            )
            if errno:
                break
            self.state = target
        self.say(
            f"result to={state.name} state={self.state.name} ret={-errno}"
        )

    def _session(self, target: DeviceState | None) -> None:
        """End a session, if there is one."""
        saving = self.state in SAVING_STATES
        if self.state is S.RESUMING and target is not None:
            self.say(self.checksum or f"checksum ok crc32={self.crc32:08x}")
            self.count("loaded")
            self.say("loaded bytes=65616 complete=1")
        elif saving and target not in SAVING_STATES:
            whole = self.complete and self.state is S.STOP_COPY
            if whole:
                self.count("saved")
            crc32 = self.crc32 if whole else 0
            self.say(
                f"saved bytes=65616 complete={whole:d} crc32={crc32:08x}"
            )

    def reset(self) -> None:
        """Log VFIO_DEVICE_RESET."""
        self.say(f"reset state={self.state.name}")
        self.state = S.RUNNING

    def count(self, when: str, peers: Mapping[int, object] = {}) -> None:
        """Log a line for each peer."""
        for number, counters in self.peers.items():
            keys = ("sent", "received", "lost", "doubled", "missed")
            counts = " ".join(f"{key}={counters.get(key, 0)}" for key in keys)
            self.say(f"peer id={number} when={when} {counts}")

    def log(self, version: int | None = None) -> bytes:
        """Return the whole log with its end."""
        if version is None:
            version = 1 if self.peer_id is None else 2
            version = 3 if self.heartbeat else version
        flags = ",".join(
            flag.name.lower() for flag in self.flags if flag.name
        )
        live = (
            "live size_bytes=65536 initial_bytes=4096 dirty_bytes=0 seed=1 "
            f"flags={flags}"
        )
        if self.peer_id is not None:
            peers = ",".join(map(str, self.peers))
            live += f" peer_group=g peer_id={self.peer_id} peers={peers}"
        first = FakeDevice(self.flags, self.live_ns)
        first.say(live)
        first.say("open")
        last = replace(self, lines=[])
        last._session(None)
        last.count("close")
        if self.heartbeat:
            beats = " ".join(f"{k}={v}" for k, v in self.heartbeat.items())
            last.say(f"heartbeat when=close {beats}")
        last.say(f"close state={self.state.name}")
        last.say("gone")
        lines = [
            f"p2psim-log version={version} clock=CLOCK_REALTIME",
            *(*first.lines, *self.lines, *last.lines),
        ]
        return "".join(f"{line}\n" for line in lines).encode()
