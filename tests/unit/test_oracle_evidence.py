# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs that cannot show that the order was kept never pass.

Nor do they accuse QEMU of anything that only the log lacks.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_log import (
    P2P,
    FakeQemu,
    boot,
    devices,
    machines,
    migrate,
    receive,
    timeline,
)
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Side, Timeline
from vfio_p2p.trace import VERSIONS, Kind
from vfio_p2p.uapi import ALL_FLAGS, MigrationFlags
from vfio_p2p.uapi import DeviceState as S

PASS, FAIL, UNCLEAR = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
AB = devices("a", "b")
SERIES = Criteria.of_patches(6, devices=2)

# The lines without which nobody can tell whether the order was kept.
NEEDED = {
    Kind.SUCCEEDED,
    Kind.ATTEMPT,
    Kind.CHANGED,
    Kind.PREPARE,
    Kind.MAIN,
    Kind.COMPLETE,
    Kind.SAVE_CLEANUP,
}


def source(qemu: FakeQemu, expect: Criteria = SERIES) -> Judgement:
    return judge(qemu.timeline(), None, expect)


@pytest.mark.parametrize("data", [b"", b"root:x:0:0::/root:/bin/sh\n" * 9])
def test_empty_and_foreign_logs(data: bytes) -> None:
    for expect in (Criteria(), SERIES, Criteria(p2p=True)):
        assert judge(timeline(data), None, expect).verdict is UNCLEAR


@pytest.mark.parametrize("version", ["8.1", "9.0", "9.1", "11.1"])
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("doubled", [True, False])
def test_no_line_can_be_missing_or_doubled(
    version: str, side: Side, doubled: bool
) -> None:
    machine = {"x": P2P, "y": ALL_FLAGS}
    good = {
        Side.SOURCE: migrate(FakeQemu(machine, version)),
        Side.DESTINATION: receive(FakeQemu(machine, version)),
    }
    qemu = good[side]
    needed = [i for i, kind in enumerate(qemu.kinds) if kind in NEEDED]
    for place in needed:
        times = 2 if doubled else 0
        lines = list(qemu.lines)
        lines[place : place + 1] = [lines[place]] * times
        sides = {name: fake.timeline(name) for name, fake in good.items()}
        sides[side] = timeline(qemu.log(lines), side)
        for expect in (Criteria(), SERIES):
            judgement = judge(
                sides[Side.SOURCE], sides[Side.DESTINATION], expect
            )
            assert judgement.verdict is not PASS, qemu.lines[place]
            # Up to 9.0 a missing line can look like a missing request.
            if doubled or qemu.kinds[place] is not Kind.SUCCEEDED:
                assert judgement.verdict is UNCLEAR, judgement.as_json()


def test_a_callback_without_its_request_accuses_nobody() -> None:
    qemu = boot(FakeQemu(AB, "9.0"))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    lost = [
        line
        for line in qemu.lines
        if not line.endswith("(a) state PRE_COPY_P2P")
    ]
    judgement = judge(timeline(qemu.log(lost)), None, SERIES)
    assert judgement.verdict is UNCLEAR


@given(machines(), st.sampled_from(VERSIONS), st.data())
def test_a_truncated_log_never_passes(
    machine: dict[str, MigrationFlags], version: str, data: st.DataObject
) -> None:
    log = migrate(FakeQemu(machine, version)).log()
    size = data.draw(st.integers(0, len(log) - 1))
    for expect in (
        Criteria(),
        Criteria.of_patches(6, devices=len(machine)),
    ):
        judgement = judge(timeline(log[:size]), None, expect)
        assert judgement.verdict is not PASS
        # The log alone is at fault, unless it contains an error message.
        if judgement.verdict is FAIL:
            assert [f.rule for f in judgement.findings] == ["p2p"]


@given(st.data())
def test_random_lines_never_pass(data: st.DataObject) -> None:
    lines = migrate(FakeQemu(AB)).lines
    some = data.draw(
        st.lists(
            st.sampled_from(lines)
            | st.text(
                st.characters(codec="utf-8", exclude_categories=["Cc"]),
                max_size=20,
            ),
            max_size=len(lines) - 1,
        )
    )
    log = "".join(f"{line}\n" for line in some).encode()
    judgement = judge(timeline(log), None, Criteria(devices=2))
    assert judgement.verdict is not PASS
    json.dumps(judgement.as_json())


def note_texts(judgement: Judgement) -> str:
    assert judgement.verdict is UNCLEAR
    return "\n".join(note.message for note in judgement.notes)


def _without(event: str) -> Timeline:
    lines = migrate(FakeQemu(AB)).lines
    lines = [line for line in lines if f":{event} " not in line]
    return timeline("".join(f"{line}\n" for line in lines).encode())


@pytest.mark.parametrize(
    ("unwanted", "advice"),
    [
        ("vfio_migration_set_state", "set_state was not traced"),
        ("vfio_migration_realize", "give --devices"),
        ("vfio_migration_set_device_state", "outcome"),
        ("vfio_vmstate_change_prepare", "trace vfio_vmstate_change_prepare"),
        ("vfio_save_complete_precopy", "to its end"),
        ("vfio_save_cleanup", "ends before vfio_save_cleanup"),
    ],
)
def test_events_that_were_not_traced(unwanted: str, advice: str) -> None:
    side = _without(unwanted)
    assert advice in note_texts(judge(side, None, Criteria()))


def test_logs_of_two_versions_in_one_file() -> None:
    data = (
        boot(FakeQemu(AB, "9.0", notify=False)).log()
        + migrate(FakeQemu(AB, "9.1")).log()
    )
    found = judge(timeline(data), None, Criteria())
    assert "more than one QEMU" in note_texts(found)


def test_wrong_number_of_devices() -> None:
    qemu = migrate(FakeQemu(AB))
    for count in (1, 3):
        assert f"{count} devices expected" in note_texts(
            source(qemu, Criteria(devices=count))
        )
    one = receive(FakeQemu(devices("a"))).timeline(Side.DESTINATION)
    assert "another number" in note_texts(
        judge(qemu.timeline(), one, Criteria())
    )


def test_a_log_without_migration() -> None:
    qemu = boot(FakeQemu(AB))
    qemu.vm(False, "shutdown")
    assert "to its end" in note_texts(source(qemu))
    assert source(
        qemu, Criteria.of_patches(6, devices=2, migrates=False)
    ).verdict is PASS
    receiver = receive(FakeQemu(AB))
    assert "destination" in note_texts(source(receiver))


def test_messages_of_qemu_are_shown() -> None:
    text = (
        b"qemu: -device vfio-pci: b: Multiple VFIO devices migration is "
        b"supported only if all of them support P2P migration\n"
    )
    judgement = judge(timeline(text), None, Criteria())
    assert judgement.verdict is UNCLEAR
    assert "Multiple VFIO" in judgement.notes[0].lines()[0]


def test_a_hot_plugged_device_is_not_expected_earlier() -> None:
    qemu = boot(FakeQemu(devices("a")))
    qemu.devices = AB
    qemu.state["b"] = S.RUNNING
    qemu.emit(Kind.REALIZE, "vfio_migration_realize", device="b")
    qemu.vm(False, "shutdown")
    expect = Criteria(devices=2, migrates=False)
    assert source(qemu, expect).verdict is PASS


