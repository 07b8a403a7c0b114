# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about the guest's memory, one mistake at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qemu_log import FakeQemu, devices, migrate, receive
from qemu_log import with_logs as logged
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Side

AB = devices("a", "b")
SERIES = replace(
    Criteria.of_patches(6, devices=2), dma=frozenset({"a", "b"}), logs=True
)
WROTE = "dma when=stop seq=20 failed=0 error=0"
FOUND = "dma memory last=20 pages=8 stale=0 empty=0 error=0"


def with_lines(log: bytes, side: Side, *lines: str) -> bytes:
    """Add lines to a log: what a source wrote, or a destination found."""
    header, *rest = log.decode().splitlines()
    assert "version=1" in header
    at = 0 if side is Side.SOURCE else -1
    time = rest[at].partition(" ")[0]
    rest[at:at] = [f"{time} {line}" for line in lines]
    header = header.replace("version=1", "version=6")
    return "\n".join((header, *rest, "")).encode()


def migrated(
    wrote: str | None = WROTE,
    found: str | None = FOUND,
    criteria: Criteria = SERIES,
    before: tuple[str, ...] = (),
) -> Judgement:
    """Make a migration in which device `a` says this of its DMA."""
    source = migrate(FakeQemu(AB))
    destination = receive(FakeQemu(AB))
    sides = []
    for side, qemu, said in (
        (Side.SOURCE, source, [*before, *([wrote] if wrote else [])]),
        (Side.DESTINATION, destination, [found] if found else []),
    ):
        usual = WROTE if side is Side.SOURCE else FOUND
        logs = qemu.device_logs()
        logs = {
            "a": with_lines(logs["a"], side, *said),
            "b": with_lines(logs["b"], side, usual),
        }
        sides.append(logged(qemu.timeline(side), logs))
    return judge(sides[0], sides[1], criteria)


def test_all_of_it_is_there() -> None:
    judgement = migrated()
    assert judgement.verdict is Verdict.PASS, judgement.as_json()
    # Only the last stop before the destination looks counts.
    early = "dma when=stop seq=5 failed=0 error=0"
    assert migrated(before=(early,)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ("last=20 pages=8 stale=3 empty=1", "3 of 8 pages are older"),
        ("last=19 pages=8 stale=0 empty=0", "the newest record is 19 of 20"),
        ("last=0 pages=8 stale=0 empty=8", "the newest record is 0 of 20"),
        ("last=21 pages=8 stale=0 empty=0", "the newest record is 21 of 20"),
    ],
)
def test_memory_that_lacks_something(found: str, why: str) -> None:
    judgement = migrated(found=f"dma memory {found} error=0")
    (finding,) = judgement.findings
    assert (finding.rule, finding.side) == ("dma-memory", Side.DESTINATION)
    assert finding.message == (
        f"the guest's memory lacks what a wrote to it: {why}"
    )
    assert finding.devices == ("a", "a")
    assert "dma memory" in finding.lines()[1]


@pytest.mark.parametrize(
    ("wrote", "found", "why"),
    [
        (WROTE, None, "a has not looked at the guest's memory"),
        (None, FOUND, "a has written nothing"),
        (WROTE.replace("=20", "=0"), FOUND, "a has written nothing"),
        (
            WROTE.replace("failed=0 error=0", "failed=2 error=-14"),
            FOUND,
            "the kernel has refused DMA of a or a: -14",
        ),
        (WROTE, FOUND.replace("error=0", "error=-14"), "refused DMA"),
    ],
)
def test_what_cannot_be_told(
    wrote: str | None, found: str | None, why: str
) -> None:
    judgement = migrated(wrote, found)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert why in judgement.notes[0].message


def test_devices_without_dma_need_not_look() -> None:
    only_b = replace(SERIES, dma=frozenset({"b"}))
    assert migrated(None, None, only_b).verdict is Verdict.PASS
    none = replace(SERIES, dma=frozenset())
    assert migrated(None, None, none).verdict is Verdict.PASS
    assert migrated(None, None).verdict is Verdict.INCONCLUSIVE


def test_a_migration_that_failed() -> None:
    source = FakeQemu(AB)
    source.status("setup")
    source.status("failed")
    criteria = replace(SERIES, migrates=False)
    found = judge(
        source.witnessed(), receive(FakeQemu(AB)).witnessed(), criteria
    )
    assert "dma-memory" not in {x.rule for x in found.findings}
    assert not any("memory" in x.message for x in found.notes)
