# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that need the devices' own logs, one mistake at a time."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from device_log import CRC
from hypothesis import given
from hypothesis import strategies as st
from qemu_log import FakeQemu, boot, devices, machines, migrate, receive
from qemu_log import with_logs as logged
from vfio_p2p.oracle import RULES, Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Side, Timeline
from vfio_p2p.trace import VERSIONS, Kind
from vfio_p2p.uapi import DeviceState as S
from vfio_p2p.uapi import MigrationFlags

AB = devices("a", "b")
SERIES = Criteria.of_patches(6, devices=2)
ANYHOW = Criteria(devices=2, p2p=True, migrates=False)


def rules(judgement: Judgement) -> set[str]:
    return {finding.rule for finding in judgement.findings}


def of_source(side: Timeline, expect: Criteria = SERIES) -> Judgement:
    return judge(side, None, expect)


def with_log(
    qemu: FakeQemu, change: Callable[[bytes], bytes], device: str = "a"
) -> Timeline:
    """Return a source with a changed log of one device."""
    logs = qemu.device_logs()
    changed = change(logs[device])
    assert changed != logs[device]
    return logged(qemu.timeline(), {**logs, device: changed})


def lines_without(*patterns: str) -> Callable[[bytes], bytes]:
    """Return a change that removes the last line of each pattern."""

    def change(log: bytes) -> bytes:
        lines = log.decode().splitlines(keepends=True)
        for pattern in patterns:
            lines.remove(
                [x for x in lines if re.search(pattern, x)][-1]
            )
        return "".join(lines).encode()

    return change


@given(machines(), st.sampled_from(VERSIONS), st.booleans())
def test_right_sequences_agree(
    machine: dict[str, MigrationFlags], version: str, notify: bool
) -> None:
    sides = [
        make(FakeQemu(machine, version, notify=notify)).witnessed(side)
        for side, make in zip(Side, (migrate, receive), strict=True)
    ]
    expect = Criteria(devices=len(machine), flags=machine, logs=True)
    judgement = judge(sides[0], sides[1], expect)
    assert judgement.verdict is Verdict.PASS, judgement.as_json()
    assert judgement.unseen == ()


def test_missing_logs_break_no_rule() -> None:
    sides = [
        make(FakeQemu(AB)).timeline(side)
        for side, make in zip(Side, (migrate, receive), strict=True)
    ]
    judgement = judge(sides[0], sides[1], SERIES)
    assert judgement.verdict is Verdict.PASS
    assert judgement.unseen == tuple(
        x.name for x in RULES if x.logs and not x.dma
    )
    assert judgement.as_json()["unseen"] == list(judgement.unseen)


@pytest.mark.parametrize("version", ["8.2", "9.0", "9.1", "11.1"])
@pytest.mark.parametrize("state", [S.STOP, S.RESUMING])
def test_a_request_that_the_trace_lacks(version: str, state: S) -> None:
    qemu = migrate(FakeQemu(AB, version))
    qemu.device("b").ask(state)
    (finding,) = of_source(qemu.witnessed()).findings
    assert finding.rule == "agreement"
    assert "the trace shows no such request" in finding.message
    assert finding.lines()[0].startswith("b.log:")


@pytest.mark.parametrize("version", ["8.2", "9.0", "9.1", "11.1"])
def test_a_request_that_the_devices_log_lacks(version: str) -> None:
    side = with_log(
        migrate(FakeQemu(AB, version)),
        lines_without(
            "request from=STOP_COPY", "arc from=STOP_COPY", "result to=STOP "
        ),
    )
    (finding,) = of_source(side).findings
    assert finding.rule == "agreement"
    assert "shows a request for STOP that " in finding.message


@pytest.mark.parametrize("version", ["9.0", "9.1"])
@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            b"to=STOP_COPY state=STOP_COPY ret=0",
            b"to=STOP_COPY state=PRE_COPY_P2P ret=0",
            "log says PRE_COPY_P2P",
        ),
        (
            b"to=PRE_COPY_P2P state=PRE_COPY_P2P ret=0",
            b"to=PRE_COPY_P2P state=PRE_COPY ret=-5",
            # Up to 9.0 the recovery is a request of its own without a line.
            "log says PRE_COPY$|log says STOP_COPY$",
        ),
    ],
)
def test_a_different_result(
    version: str, old: bytes, new: bytes, why: str
) -> None:
    qemu = migrate(FakeQemu(AB, version))
    side = with_log(qemu, lambda log: log.replace(old, new))
    found = {x.rule: x.message for x in of_source(side).findings}
    assert re.search(why, found.pop("agreement"))
    # The migration completed, whatever the device logged.
    assert set(found) == ({"swallowed"} if b"-5" in new else set())


def test_a_different_state() -> None:
    side = with_log(
        migrate(FakeQemu(AB)),
        lambda log: log.replace(
            b"request from=RUNNING to=PRE_COPY",
            b"request from=RUNNING to=PRE_COPY_P2P",
        ).replace(b"result to=PRE_COPY ", b"result to=PRE_COPY_P2P "),
    )
    (finding,) = of_source(side).findings
    assert "for PRE_COPY, but the device's log says PRE_COPY_P2P" in (
        finding.message
    )


@pytest.mark.parametrize("shift_ns", [-10**6, 10**6])
def test_a_different_time(shift_ns: int) -> None:
    def shift(log: bytes) -> bytes:
        return re.sub(
            rb"^\d+(?= request)|(?<=end_ns=)\d+",
            lambda m: str(int(m[0]) + shift_ns).encode(),
            log,
            flags=re.MULTILINE,
        )

    judgement = of_source(with_log(migrate(FakeQemu(AB)), shift))
    assert rules(judgement) == {"agreement"}
    assert "outside of the time" in judgement.findings[0].message


@pytest.mark.parametrize("late", [False, True])
def test_microseconds_are_no_disagreement(late: bool) -> None:
    # The trace truncates times to microseconds, and the kernel does not.
    qemu = migrate(FakeQemu(AB))
    done = qemu.timeline().arcs_of("a")[-1].done
    assert done is not None
    assert done.time_ns is not None
    end_ns = done.time_ns + (1000 if late else 999)

    def later(log: bytes) -> bytes:
        at = log.rindex(b"end_ns=") + len(b"end_ns=")
        return log[:at] + str(end_ns).encode() + log[at + 19 :]

    judgement = of_source(with_log(qemu, later))
    assert rules(judgement) == ({"agreement"} if late else set())


@pytest.mark.parametrize("version", ["8.2", "9.0", "9.1", "11.1"])
@pytest.mark.parametrize("recover", [S.ERROR, S.RUNNING])
def test_recovery_is_no_disagreement(version: str, recover: S) -> None:
    qemu = boot(FakeQemu(AB, version))
    qemu.set_state("a", S.PRE_COPY, reached=S.RUNNING, recover=recover)
    assert "agreement" not in rules(of_source(qemu.witnessed(), ANYHOW))
    qemu.setup()
    assert "agreement" not in rules(of_source(qemu.witnessed(), ANYHOW))


def test_a_recovery_that_the_device_does_not_know_of() -> None:
    qemu = boot(FakeQemu(AB))
    qemu.set_state("a", S.STOP, reached=S.RUNNING)
    assert "agreement" not in rules(of_source(qemu.witnessed(), ANYHOW))
    side = with_log(qemu, lines_without("reset"))
    # The device logs RUNNING too, but only because it did not move.
    assert "agreement" not in rules(of_source(side, ANYHOW))
    side = with_log(
        qemu,
        lambda log: lines_without("reset")(log).replace(
            b"to=STOP state=RUNNING", b"to=STOP state=ERROR"
        ),
    )
    assert "agreement" in rules(of_source(side, ANYHOW))


@pytest.mark.parametrize("answered", [True, False])
def test_a_device_that_hangs(answered: bool) -> None:
    # QEMU was killed in its last request, which the device may have ended.
    qemu = migrate(FakeQemu(AB))
    while "set_state  (b) new state STOP," not in qemu.lines[-1]:
        qemu.lines.pop()
    logs = qemu.device_logs()
    if not answered:
        logs["b"] = logs["b"][: logs["b"].rindex(b"request")]
        logs["b"] = logs["b"][: logs["b"].rindex(b"\n") + 1]
    side = logged(qemu.timeline(), logs)
    assert of_source(side, ANYHOW).findings == ()
    # Everything before it is compared with the trace as usual.
    wrong = re.sub(
        rb"(request .*|result )to=PRE_COPY\b", rb"\1to=STOP", logs["b"]
    )
    side = logged(qemu.timeline(), {**logs, "b": wrong})
    assert rules(of_source(side, ANYHOW)) == {"agreement"}


def test_a_device_that_fails_until_qemu_dies() -> None:
    # Neither the recovery nor the reset succeeds, so QEMU calls hw_error().
    qemu = boot(FakeQemu(AB))
    qemu.emit(
        Kind.ATTEMPT, "vfio_migration_set_state", device="b",
        state="PRE_COPY", recover="RUNNING",
    )
    fake = qemu.device("b")
    fake.now_ns = qemu.next_ns
    fake.ask(S.PRE_COPY, errno=5)
    fake.say("request from=ERROR to=RUNNING")
    fake.say("result to=RUNNING state=ERROR ret=-22")
    assert "agreement" not in rules(of_source(qemu.witnessed(), ANYHOW))
    # No line tells that the other device was asked as well.
    qemu.device("a").ask(S.PRE_COPY)
    assert "agreement" in rules(of_source(qemu.witnessed(), ANYHOW))


def test_a_torn_trace_accuses_nobody() -> None:
    qemu = migrate(FakeQemu(AB))
    logs = qemu.device_logs()
    at = next(
        i for i, x in enumerate(qemu.lines) if "(a) state PRE_COPY_P2P" in x
    )
    del qemu.lines[at]
    judgement = of_source(logged(qemu.timeline(), logs))
    assert "agreement" not in rules(judgement)
    assert judgement.verdict is Verdict.INCONCLUSIVE


def test_data_that_nobody_read() -> None:
    qemu = migrate(FakeQemu(AB))
    side = with_log(qemu, lambda x: x.replace(b"complete=1", b"complete=0"))
    (finding,) = of_source(side).findings
    assert finding.rule == "stream-end"
    assert finding.devices == ("a",)
    assert [line.split()[2] for line in finding.lines()] == ["saved", "arc"]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_failed_migration_may_leave_data(status: str) -> None:
    qemu = boot(FakeQemu(AB))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.status(status)
    qemu.vm(True, "running")
    qemu.cleanup()
    side = with_log(qemu, lambda x: x.replace(b"complete=1", b"complete=0"))
    assert of_source(side, ANYHOW).findings == ()


def both(
    loader: Callable[[FakeQemu], None] = lambda qemu: None,
    change: Callable[[bytes], bytes] = lambda log: log,
) -> Judgement:
    """Make a migration with another destination."""
    receiver = FakeQemu(AB)
    loader(receiver)
    receive(receiver)
    logs = receiver.device_logs()
    return judge(
        migrate(FakeQemu(AB)).witnessed(),
        logged(
            receiver.timeline(Side.DESTINATION),
            {**logs, "a": change(logs["a"])},
        ),
        SERIES,
    )


def test_other_data() -> None:
    assert both().verdict is Verdict.PASS
    judgement = both(
        change=lambda log: log.replace(f"{CRC:08x}".encode(), b"00000001")
    )
    (finding,) = judgement.findings
    assert (finding.rule, finding.side) == ("checksum", Side.DESTINATION)
    assert [x.partition(":")[0] for x in finding.lines()] == [
        "a.log", "a.log",
    ]  # fmt: skip


def test_a_part_that_was_accepted_in_write() -> None:
    """Such a device does not look at the end, and says nothing of it."""

    def cut(log: bytes) -> bytes:
        kept = b"".join(
            x for x in log.splitlines(keepends=True) if b"checksum ok" not in x
        )
        return kept.replace(
            b"loaded bytes=65616 complete=1", b"loaded bytes=40000 complete=0"
        )

    (finding,) = both(lambda x: x.status("setup"), cut).findings
    assert (finding.rule, finding.side) == ("checksum", Side.DESTINATION)
    assert finding.devices == ("a",)


OTHER = CRC + 1


def to_and_fro(crc32: int) -> Judgement:
    """Make a migration from a QEMU that had itself received the VM."""
    source = FakeQemu(AB)
    for name in AB:
        # This is the checksum of the loaded data, which has changed since.
        source.device(name).checksum = f"checksum ok crc32={OTHER:08x}"
    source.load()
    source.vm(True, "running")
    for name in AB:
        source.device(name).checksum = ""
    source.setup()
    source.vm(False, "finish-migrate")
    source.complete()
    source.status("completed")
    source.cleanup()
    back = FakeQemu(AB)
    for name in AB:
        back.device(name).crc32 = crc32
    return judge(
        source.witnessed(),
        receive(back).witnessed(Side.DESTINATION),
        SERIES,
    )


def test_earlier_loads_of_a_source_do_not_count() -> None:
    assert "checksum" not in rules(to_and_fro(CRC))
    judgement = to_and_fro(OTHER)
    found = [x for x in judgement.findings if x.rule == "checksum"]
    assert [x.devices for x in found] == [("a",), ("b",)]


@pytest.mark.parametrize("crc32", [CRC, OTHER])
def test_a_snapshot_is_what_was_saved(crc32: int) -> None:
    source = migrate(FakeQemu(AB))
    for name in AB:
        source.device(name).checksum = f"checksum ok crc32={crc32:08x}"
    source.load()
    source.vm(True, "running")
    judgement = judge(
        source.witnessed(),
        receive(FakeQemu(AB)).witnessed(Side.DESTINATION),
        SERIES,
    )
    found = [x for x in judgement.findings if x.rule == "checksum"]
    assert [x.devices for x in found] == (
        [] if crc32 == CRC else [("a",), ("b",)]
    )


# The destination of 8.1 begins with "active".
@pytest.mark.parametrize("begin", [["setup", "active"], ["active"]])
def test_bad_data_that_were_accepted(begin: list[str]) -> None:
    def spoil(qemu: FakeQemu) -> None:
        for status in begin:
            qemu.status(status)
        qemu.device("a").checksum = "checksum bad reason=short"

    assert rules(both(spoil)) == {"checksum"}


def test_bad_data_that_were_refused() -> None:
    receiver = FakeQemu(AB)
    receiver.status("setup")
    receiver.device("a").checksum = "checksum bad reason=short"
    receiver.load()
    receiver.set_state("a", S.STOP)
    receiver.status("failed")
    judgement = judge(
        migrate(FakeQemu(AB)).witnessed(),
        receiver.witnessed(Side.DESTINATION),
        Criteria(devices=2, p2p=True, migrates=False, ends=False),
    )
    assert "checksum" not in rules(judgement)


def test_counters_that_did_not_migrate() -> None:
    sides = []
    for make, received in ((migrate, 5), (receive, 6)):
        qemu = FakeQemu(AB)
        for name, number in (("a", 0), ("b", 1)):
            device = qemu.device(name)
            device.peer_id = number
            device.peers = {1 - number: {"sent": 5, "received": 5}}
        make(qemu)
        qemu.device("a").peers[1]["received"] = received
        sides.append(qemu)
    # The rule compares what was loaded, not what happened to it later.
    logs = sides[1].device_logs()
    source = sides[0].witnessed()
    for text, found in (
        (b"when=loaded sent=4", {"checksum"}),
        (b"when=loaded sent=5", {"conservation"}),
    ):
        log = logs["a"].replace(b"when=loaded sent=5", text)
        destination = logged(
            sides[1].timeline(Side.DESTINATION), {**logs, "a": log}
        )
        assert found <= rules(judge(source, destination, SERIES))


def test_a_rule_is_for_some_sides_versions_and_devices() -> None:
    by_name = {rule.name: rule for rule in RULES}
    source = migrate(FakeQemu(AB)).timeline()
    destination = receive(FakeQemu(AB)).timeline(Side.DESTINATION)
    assert by_name["cancelled"].concerns(source, SERIES)
    assert not by_name["cancelled"].concerns(destination, SERIES)
    assert not by_name["checksum"].concerns(source, SERIES)
    barrier = by_name["barrier"]
    assert barrier.concerns(source, SERIES)
    assert barrier.concerns(source, Criteria())
    assert not barrier.concerns(source, Criteria.of_patches(0, devices=2))
    assert by_name["order"].concerns(
        source, Criteria.of_patches(0, devices=2)
    )
    without = MigrationFlags.STOP_COPY | MigrationFlags.PRE_COPY
    for flags, concerned in (
        ({"a": without}, True), ({"a": without, "b": without}, False),
    ):  # fmt: skip
        assert barrier.concerns(source, Criteria(flags=flags)) == concerned


def test_the_base_is_not_held_to_the_series() -> None:
    qemu = boot(FakeQemu(AB))
    calls = qemu.calls(False)
    qemu.vm(False, "paused", [calls[0], calls[2], calls[1], calls[3]])
    base = Criteria.of_patches(0, devices=2, migrates=False)
    assert "barrier" in rules(of_source(qemu.timeline(), ANYHOW))
    assert "barrier" not in rules(of_source(qemu.timeline(), base))
