# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that only prints: logs of any version, right or wrong on purpose.

It prints through the format tables of `vfio_p2p.trace`, in the sequences of
the series' documentation.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from device_log import FakeDevice
from hypothesis import strategies as st
from vfio_p2p.timeline import Pass, Side, Timeline, build
from vfio_p2p.trace import VERSIONS, Kind, TraceReader, read_device_log
from vfio_p2p.trace.formats import FORMATS
from vfio_p2p.uapi import ALL_FLAGS, DeviceState, MigrationFlags

S = DeviceState
P2P = MigrationFlags.STOP_COPY | MigrationFlags.P2P
PREFIXES = ("none", "thread", "iso", "context")
_STEP_NS = 250_000
_BEGIN_NS = 1_700_000_000_000_000_000


def prefix(kind: str, time_ns: int, thread: int = 4242) -> str:
    """Return the text before an event's name."""
    if kind == "none":
        return ""
    if kind == "thread":
        us = time_ns // 1000
        return f"{thread}@{us // 10**6}.{us % 10**6:06d}:"
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    iso = f"{moment:%Y-%m-%dT%H:%M:%S}"
    if time_ns % 10**9:
        iso += f".{time_ns % 10**9 // 1000:06d}"
    if kind == "iso":
        return f"{iso}Z "
    return f"{iso}Z [vm 1] qemu-system-x86_64: ({thread}:main): "


def prefixes_of(version: str) -> tuple[str, ...]:
    """Return the prefixes that a version can print."""
    at = VERSIONS.index(version)
    if at < VERSIONS.index("10.1"):
        return ("none", "thread")
    return ("none", "iso", "context") if at > 6 else ("none", "iso")


@dataclass
class FakeQemu:
    """One side; each method prints what QEMU prints for it."""

    devices: dict[str, MigrationFlags]
    version: str = "10.0"
    prefix: str = "thread"
    series: bool = True
    notify: bool = True
    lines: list[str] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    state: dict[str, DeviceState] = field(default_factory=dict)
    begin_ns: int = _BEGIN_NS
    said: dict[str, FakeDevice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for device in self.devices:
            self.state[device] = S.RUNNING
            self.emit(Kind.REALIZE, "vfio_migration_realize", device=device)

    def emit(self, kind: Kind, event: str, **fields: object) -> None:
        """Print one line."""
        at = VERSIONS.index(self.version)
        fmt = next(
            f
            for f in FORMATS
            if f.event == event
            and VERSIONS.index(f.since) <= at <= VERSIONS.index(f.versions[1])
            and (f.kind is kind or kind is Kind.OTHER)
        )
        before = prefix(self.prefix, self.next_ns)
        self.lines.append(before + fmt.text(fields))
        self.kinds.append(kind)

    @property
    def next_ns(self) -> int:
        """Return the time of the next line."""
        return self.begin_ns + len(self.lines) * _STEP_NS

    @property
    def entry_lines(self) -> bool:
        """Whether a request is announced before it is made."""
        return VERSIONS.index(self.version) >= VERSIONS.index("9.1")

    def set_state(
        self,
        device: str,
        state: DeviceState,
        reached: DeviceState | None = None,
        recover: DeviceState = DeviceState.ERROR,
    ) -> None:
        """Make a request; `reached` is the state after a failed one."""
        event = "vfio_migration_set_state"
        if self.entry_lines:
            self.emit(
                Kind.ATTEMPT, event, device=device, state=state.name,
                recover=recover.name,
            )
            if state is not self.state[device]:
                self.ask(device, state, reached, recover)
                self.state[device] = state if reached is None else reached
                self.emit(
                    Kind.CHANGED, "vfio_migration_set_device_state",
                    device=device, state=self.state[device].name,
                )
        elif reached is None:
            self.ask(device, state, reached, recover)
            self.state[device] = state
            self.emit(Kind.SUCCEEDED, event, device=device, state=state.name)
        else:
            self.ask(device, state, reached, recover)
            self.state[device] = reached

    def ask(
        self,
        device: str,
        state: DeviceState,
        reached: DeviceState | None,
        recover: DeviceState,
    ) -> None:
        """Tell the device of a request, before QEMU's next line."""
        fake = self.device(device)
        fake.now_ns = self.next_ns - _STEP_NS * 4 // 5
        if reached is None:
            fake.ask(state)
            return
        fake.ask(state, errno=5)
        if recover is S.ERROR:
            fake.reset()
        else:
            fake.ask(recover)

    def device(self, name: str) -> FakeDevice:
        """Return a device, for whatever it does by itself."""
        flags = self.devices.get(name, ALL_FLAGS)
        return self.said.setdefault(name, FakeDevice(flags, self.begin_ns))

    def begin(self, running: bool, reason: str) -> None:
        """Begin vm_state_notify()."""
        if self.notify:
            self.emit(
                Kind.NOTIFY, "vm_state_notify", running=int(running),
                number=9, reason=reason,
            )

    def call(
        self, device: str, phase: Pass, running: bool, reason: str
    ) -> None:
        """Make one callback of one device."""
        now = self.state[device]
        saving = now in (S.PRE_COPY, S.PRE_COPY_P2P)
        if phase is Pass.PREPARE:
            state = S.PRE_COPY_P2P if now is S.PRE_COPY else S.RUNNING_P2P
        elif running:
            state = S.RUNNING
        elif saving and reason in ("finish-migrate", "paused"):
            state = S.STOP_COPY
        else:
            state = S.STOP
        self.set_state(device, state)
        self.report(device, phase, running, reason, state)

    def report(
        self, device: str, phase: Pass, running: bool, reason: str,
        state: DeviceState,
    ) -> None:
        """Print the line at the end of a callback."""
        prepare = phase is Pass.PREPARE
        self.emit(
            Kind.PREPARE if prepare else Kind.MAIN,
            "vfio_vmstate_change" + ("_prepare" if prepare else ""),
            device=device, running=int(running), reason=reason,
            state=state.name,
        )

    def calls(self, running: bool) -> list[tuple[Pass, str]]:
        """Return the callbacks of a run-state change in the right order."""
        names = list(self.devices)
        if not running:
            names.reverse()
        p2p = [
            n for n in names
            if self.series and self.devices[n] & MigrationFlags.P2P
        ]
        return [(Pass.PREPARE, n) for n in p2p] + [
            (Pass.MAIN, n) for n in names
        ]

    def vm(
        self, running: bool, reason: str,
        calls: Iterable[tuple[Pass, str]] | None = None,
    ) -> None:
        """Change the run state."""
        self.begin(running, reason)
        for phase, device in self.calls(running) if calls is None else calls:
            self.call(device, phase, running, reason)

    def status(self, status: str) -> None:
        """Print the migration's own state."""
        self.emit(Kind.STATUS, "migrate_set_state", status=status)

    def setup(self) -> None:
        """Call vfio_save_setup() for all devices."""
        self.status("setup")
        for device, flags in self.devices.items():
            if self.state[device] is S.RUNNING and (
                flags & MigrationFlags.PRE_COPY
            ):
                self.set_state(device, S.PRE_COPY, recover=S.RUNNING)
            self.emit(
                Kind.SAVE_SETUP, "vfio_save_setup", device=device, size=1 << 20
            )
        self.status("active")

    def complete(self, stop: bool | None = None) -> None:
        """Call vfio_save_complete_precopy() for all devices."""
        for device in self.devices:
            self.set_state(device, S.STOP_COPY, recover=S.STOP)
            if not self.series if stop is None else stop:
                self.set_state(device, S.STOP)
            self.emit(
                Kind.COMPLETE, "vfio_save_complete_precopy", device=device,
                ret=0,
            )

    def cleanup(self, stop: bool = True) -> None:
        """Call vfio_save_cleanup() for all devices."""
        for device in self.devices:
            if stop and self.state[device] is S.STOP_COPY:
                self.set_state(device, S.STOP)
            self.emit(
                Kind.SAVE_CLEANUP, "vfio_save_cleanup", device=device
            )

    def load(self) -> None:
        """Call vfio_load_setup() for all devices."""
        for device in self.devices:
            self.set_state(device, S.RESUMING, recover=self.state[device])

    def log(self, lines: Sequence[str] | None = None) -> bytes:
        """Return what was printed, or other lines, as a file."""
        found = self.lines if lines is None else lines
        return "".join(f"{line}\n" for line in found).encode()

    def timeline(self, side: Side = Side.SOURCE) -> Timeline:
        """Return what was printed, as a timeline."""
        return timeline(self.log(), side)


    def device_logs(self) -> dict[str, bytes]:
        """Return the devices' own logs, as they are once QEMU is gone."""
        found = {}
        for name in self.devices:
            fake = self.device(name)
            fake.now_ns = self.next_ns
            found[name] = fake.log()
        return found

    def witnessed(self, side: Side = Side.SOURCE) -> Timeline:
        """Return the timeline with the devices' own logs."""
        return with_logs(self.timeline(side), self.device_logs())


def with_logs(side: Timeline, logs: Mapping[str, bytes]) -> Timeline:
    """Return a timeline with other logs."""
    return replace(
        side,
        logs={
            name: read_device_log(io.BytesIO(log), f"{name}.log")
            for name, log in logs.items()
        },
    )


def timeline(data: bytes, side: Side = Side.SOURCE) -> Timeline:
    """Return the timeline of a log."""
    return build(TraceReader(io.BytesIO(data), f"{side}.log"), side)


def boot(qemu: FakeQemu) -> FakeQemu:
    """Start a source."""
    qemu.vm(True, "running")
    return qemu


def migrate(qemu: FakeQemu) -> FakeQemu:
    """Migrate a source away."""
    boot(qemu)
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    # A source is told by the destination that this one has started.
    qemu.begin_ns += 2_000_000_000
    qemu.status("completed")
    qemu.cleanup()
    return qemu


def receive(qemu: FakeQemu) -> FakeQemu:
    """Receive a VM on a destination, up to its regular end."""
    qemu.begin_ns += 100_000_000
    qemu.load()
    qemu.vm(True, "running")
    qemu.status("completed")
    qemu.vm(False, "shutdown")
    return qemu


def devices(*names: str) -> dict[str, MigrationFlags]:
    """Return devices with all abilities."""
    return dict.fromkeys(names, ALL_FLAGS)


@st.composite
def machines(draw: st.DrawFn) -> dict[str, MigrationFlags]:
    """Draw one to four devices, with and without PRE_COPY."""
    flags = st.sampled_from([P2P, ALL_FLAGS])
    kinds = draw(st.lists(flags, min_size=1, max_size=4))
    return {f"0000:0{i}:00.0": kind for i, kind in enumerate(kinds)}
