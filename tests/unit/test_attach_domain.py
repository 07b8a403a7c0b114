# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of libvirt, as far as no libvirt is needed."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from vfio_p2p.attach import domain
from vfio_p2p.attach.domain import DomainMonitor, with_trace_events
from vfio_p2p.attach.process import Log, Process, find_process
from vfio_p2p.attach.recorder import Attachment
from vfio_p2p.attach.second import best_monitor
from vfio_p2p.attach.target import Target, TargetKind
from vfio_p2p.cli import main
from vfio_p2p.errors import CommandError, SkipError, VMError
from vfio_p2p.side import Side

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
OWN = """<domain type='kvm'>
  <name>web1</name>
  <metadata><a:x xmlns:a='http://a.example/1'>text</a:x></metadata>
</domain>"""
WITH_LINE = """<domain type='kvm'
    xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <qemu:commandline><qemu:arg value='-s'/></qemu:commandline>
</domain>"""


@pytest.mark.parametrize(
    ("text", "before"), [(OWN, []), (WITH_LINE, ["-s"])]
)
def test_the_xml_of_a_destination(text: str, before: list[str]) -> None:
    found = with_trace_events(text, ["vfio_*", "vm_state_notify"])
    assert found.startswith("<domain ")
    (line,) = ElementTree.fromstring(found).findall(f"{QEMU}commandline")
    assert [x.get("value") for x in line] == [
        *before, "-trace", "enable=vfio_*", "-trace", "enable=vm_state_notify",
    ]
    assert "<qemu:commandline>" in found


def test_the_rest_of_the_xml_stays() -> None:
    found = with_trace_events(OWN, ["vfio_*"])
    assert "<a:x" in found
    assert "xmlns:a=" in found
    assert "<name>web1</name>" in found


def test_only_a_domain_has_an_xml(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in ([], ["pid:1"]):
        assert main(["watch", *words, "--destination-xml"]) == 2
        assert "domain:NAME" in capsys.readouterr().err


def test_the_binding_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said how to get it from PyPI, and how from Debian."""
    monkeypatch.setattr(domain, "libvirt", None)
    # Waiting does not help.
    for words in ([], ["--follow"]):
        assert main(["record", "domain:web1", *words]) == 2
        error = capsys.readouterr().err
        assert "vfio-p2p[libvirt]" in error
        assert "python3-libvirt" in error


class FakeError(Exception):
    """An error of libvirt."""

    def __init__(self, code: int, number: int = 0) -> None:
        super().__init__("it failed")
        self.code = code
        self.number = number

    def get_error_code(self) -> int:
        """Return libvirt's number of the error."""
        return self.code

    def get_error_message(self) -> str:
        """Return what went wrong."""
        return str(self)

    def get_int1(self) -> int:
        """Return the system's number of the error."""
        return self.number


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the binding, with the values of libvirt's headers."""
    found = SimpleNamespace(
        libvirtError=FakeError,
        VIR_DOMAIN_PAUSED=3,
        VIR_DOMAIN_PAUSED_MIGRATION=2,
        VIR_DOMAIN_PAUSED_STARTING_UP=11,
        VIR_DOMAIN_EVENT_STARTED=2,
        VIR_DOMAIN_EVENT_STARTED_BOOTED=0,
        VIR_DOMAIN_EVENT_STARTED_MIGRATED=1,
        VIR_DOMAIN_EVENT_STOPPED=5,
        VIR_ERR_INTERNAL_ERROR=1,
        VIR_ERR_NO_SUPPORT=3,
        VIR_ERR_NO_CONNECT=5,
        VIR_ERR_INVALID_ARG=8,
        VIR_ERR_OPERATION_DENIED=29,
        VIR_ERR_SYSTEM_ERROR=38,
        VIR_ERR_RPC=39,
        VIR_ERR_NO_DOMAIN=42,
        VIR_ERR_AUTH_FAILED=45,
        VIR_ERR_AUTH_CANCELLED=79,
        VIR_ERR_ACCESS_DENIED=88,
        VIR_ERR_AUTH_UNAVAILABLE=94,
        registerErrorHandler=lambda *_: None,
        virEventRegisterDefaultImpl=lambda: None,
    )
    monkeypatch.setattr(domain, "libvirt", found)
    monkeypatch.setattr(domain, "_run_events", lambda: None)
    return found


@pytest.mark.parametrize(
    ("code", "number", "status", "hint"),
    [
        (38, errno.ENOENT, 4, "Start libvirt's daemon"),
        (38, errno.ECONNREFUSED, 4, "Start libvirt's daemon"),
        (38, errno.EACCES, 2, "permits writing"),
        (38, errno.ECONNRESET, 5, "Check the URI"),
        (45, 0, 2, "permits writing"),
        (94, 0, 2, "permits writing"),
        (5, 0, 2, "qemu:///system"),
        (1, 0, 2, "qemu:///system"),
        (39, 0, 5, "Check the URI"),
    ],
)
def test_a_libvirt_that_cannot_be_reached(
    fake: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    code: int,
    number: int,
    status: int,
    hint: str,
) -> None:
    def refuse(uri: str) -> None:
        raise FakeError(code, number)

    fake.open = refuse
    words = ["record", "domain:web1", "--libvirt", "qemu:///x"]
    assert main(words) == status
    what, how = capsys.readouterr().err.splitlines()
    assert "qemu:///x: it failed" in what
    assert hint in how


class FakeDomain:
    """A domain in a certain state.

    :param states: Its states, one after the other.
    """

    def __init__(self, *states: tuple[int, int]) -> None:
        self.states = list(states)

    def state(self) -> tuple[int, int]:
        """Return the state and the reason, as libvirt does."""
        return self.states.pop(0) if self.states[1:] else self.states[0]

    def isActive(self) -> bool:
        """Return whether it runs."""
        return self.states[0][0] != 5

    def UUIDString(self) -> str:
        """Return its UUID."""
        return "uuid"


def monitor(found: FakeDomain | None) -> DomainMonitor:
    """Return the monitor of a domain, or of one that is not there."""

    def lookup(name: str) -> FakeDomain:
        if found is None:
            raise FakeError(42)
        return found

    return DomainMonitor("source", SimpleNamespace(lookupByName=lookup), "a")


RUNNING, SHUT_OFF, ARRIVING = (1, 2), (5, 4), (3, 2)


async def test_the_domain_of_a_source(fake: SimpleNamespace) -> None:
    assert await monitor(FakeDomain(RUNNING)).running() == "uuid"
    for found, said in (
        (None, "it failed"),
        (FakeDomain(SHUT_OFF), "is shut off"),
        (FakeDomain(ARRIVING), "is being migrated to"),
    ):
        with pytest.raises(SkipError, match=said):
            await monitor(found).running()


async def test_the_domain_of_a_destination(fake: SimpleNamespace) -> None:
    """One that runs already is not the one that is waited for."""
    domain = FakeDomain(RUNNING, RUNNING, ARRIVING)
    found = monitor(domain)
    # Each look is followed by a change, until it arrives.
    wait = found._changed.wait

    async def change() -> Any:
        assert not found.pending
        found.changed(
            domain,
            fake.VIR_DOMAIN_EVENT_STARTED,
            fake.VIR_DOMAIN_EVENT_STARTED_BOOTED,
        )
        return await wait()

    found._changed.wait = change  # type: ignore[method-assign]
    assert await found.arriving() == "uuid"
    assert not domain.states[1:]
    assert found.pending


async def test_a_migration_that_is_short(fake: SimpleNamespace) -> None:
    """The domain runs by the time at which libvirt is asked."""
    domain = FakeDomain(RUNNING)
    found = monitor(domain)
    found.changed(
        domain,
        fake.VIR_DOMAIN_EVENT_STARTED,
        fake.VIR_DOMAIN_EVENT_STARTED_MIGRATED,
    )
    assert found.pending
    assert await found.arriving() == "uuid"
    # Until its QEMU is listened to.
    assert found.pending
    found.taken()
    found.changed(domain, fake.VIR_DOMAIN_EVENT_STOPPED, 0)
    assert not found.pending
    assert await found.active()


async def test_libvirt_is_gone(fake: SimpleNamespace) -> None:
    found = monitor(None)
    found.close()
    with pytest.raises(VMError, match="is gone"):
        await found.arriving()


class FakeMonitor(DomainMonitor):
    """The monitor of a QEMU that refuses a command.

    :param types: Its types of monitors.
    :param refused: The command.
    """

    def __init__(self, types: list[str], refused: str) -> None:
        super().__init__("source", None, "a")
        self.types = types
        self.refused = refused
        self.executed: list[str] = []

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = 0,
        files: Sequence[int] = (),
    ) -> Any:
        """Answer as QEMU does."""
        self.executed.append(command)
        if command == self.refused:
            raise CommandError(self.name, "refused")
        assert bool(files) == (command == "getfd")
        return [{"name": x} for x in self.types]


@pytest.mark.parametrize(
    ("types", "refused", "executed"),
    [
        ([], "", []),
        (["monitor-qmp"], "getfd", ["getfd"]),
        (["monitor-qmp"], "chardev-add",
         ["getfd", "chardev-add", "closefd"]),
        (["monitor-qmp"], "object-add",
         ["getfd", "chardev-add", "object-add", "chardev-remove"]),
    ],
)  # fmt: skip
async def test_no_second_monitor(
    types: list[str], refused: str, executed: list[str]
) -> None:
    """libvirt's is taken instead, and nothing is left in QEMU."""
    found = FakeMonitor(types, refused)
    async with best_monitor(found, print) as best:
        assert best is found
        assert not found.muted
    assert found.executed == ["qom-list-types", *executed]


def process(pid: int, started: int, *threads: int) -> Process:
    """Return a QEMU of a domain."""
    return Process(
        pid=pid, name="qemu", user="root", argv=["qemu", "-uuid", "uuid"],
        started=started, threads=[*threads], guest="a", devices=[],
        incoming="", log=Log("", ""), timestamps=True, monitors=[],
        complete=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("thread", "pid"), [(None, 8), (71, 7), (81, 8), (99, 8)]
)
async def test_two_qemus_of_one_uuid(
    monkeypatch: pytest.MonkeyPatch, thread: int | None, pid: int
) -> None:
    """As when a domain migrates within a host."""

    async def both(host: object) -> list[Process]:
        return [process(8, 200, 81), process(7, 100, 71)]

    monkeypatch.setattr("vfio_p2p.attach.process.qemus_of", both)
    host: Any = SimpleNamespace(name="host")
    target = Target(TargetKind.DOMAIN, "a")
    assert (await find_process(host, target, "uuid", thread)).pid == pid
    with pytest.raises(SkipError):
        await find_process(host, target, "another")
    with pytest.raises(SkipError):
        await find_process(host, target, "uuid", others={7, 8})


def test_who_arrives() -> None:
    """A destination of libvirt, and nobody else."""
    for target, side, arrives in (
        (Target(TargetKind.DOMAIN, "a"), Side.DESTINATION, True),
        (Target(TargetKind.DOMAIN, "a"), Side.SOURCE, False),
        (Target(TargetKind.PID, "1"), Side.DESTINATION, False),
    ):
        assert Attachment(target).arrives(side) is arrives
