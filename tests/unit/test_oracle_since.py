# SPDX-License-Identifier: GPL-2.0-or-later
"""The logs of an older QEMU are not held to a newer promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from qemu_log import FakeQemu, devices, migrate
from vfio_p2p.oracle import Criteria, Doubt, Finding, Rule
from vfio_p2p.oracle.judge import apply
from vfio_p2p.oracle.model import SERIES, Objection, Violation
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import VERSIONS
from vfio_p2p.trace.formats import release_number

UNKNOWN = Criteria(p2p=False)


def never_kept(_: Timeline, criteria: Criteria) -> Iterator[Objection]:
    yield Violation("it is broken", ("a",), ())


def rule(since: str) -> Rule:
    """Return a promise that every log breaks."""
    return Rule(
        name="x", reason="Why.", source="here", since=since, check=never_kept
    )


def side(version: str, *, versions: tuple[str, str] | None) -> Timeline:
    """Return the log of a release that shows these versions."""
    found = migrate(FakeQemu(devices("a"), version)).timeline()
    return replace(found, summary=replace(found.summary, versions=versions))


def kinds(since: str, log: Timeline, criteria: Criteria) -> list[type]:
    return [type(x) for x in apply(rule(since), log, criteria)]


@pytest.mark.parametrize("since", [x for x in VERSIONS if x != SERIES])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_release_that_is_known(version: str, since: str) -> None:
    held = release_number(version) >= release_number(since)
    wanted = [Finding] if held else []
    # The release is known from a bundle, or from the log alone.
    told = replace(UNKNOWN, release=f"{version}.1 (Debian 1:2+3)")
    assert kinds(since, side(version, versions=None), told) == wanted
    alone = side(version, versions=(version, version))
    assert kinds(since, alone, UNKNOWN) == wanted


def test_a_log_that_several_releases_could_have_written() -> None:
    log = side("9.2", versions=("9.0", "10.0"))
    assert kinds("9.0", log, UNKNOWN) == [Finding]
    assert kinds("10.1", log, UNKNOWN) == []
    (doubt,) = apply(rule("9.1"), log, UNKNOWN)
    assert isinstance(doubt, Doubt)
    assert doubt.message == "it is broken, if this is QEMU 9.1 or newer"


def test_a_log_that_tells_no_release_is_held_to_all() -> None:
    log = side("9.2", versions=None)
    assert kinds("11.1", log, UNKNOWN) == [Finding]


def test_the_bundle_knows_better_than_the_log() -> None:
    log = side("9.2", versions=("8.1", "9.2"))
    assert kinds("9.1", log, replace(UNKNOWN, release="9.2.4")) == [Finding]
    assert kinds("9.1", log, replace(UNKNOWN, release="9.0.1")) == []


def test_the_series_counts_by_itself() -> None:
    log = side("8.1", versions=("8.1", "8.1"))
    old = Criteria(release="8.1.0")
    assert kinds(SERIES, log, replace(old, p2p=True)) == [Finding]
    assert kinds(SERIES, log, replace(old, p2p=None)) == [Finding]
    assert kinds(SERIES, log, replace(old, p2p=False)) == []
    new = Criteria(release="10.0.13", p2p=False)
    assert kinds(SERIES, log, new) == []
    # A base with the series counts as 8.2, and no more.
    assert kinds("9.0", log, replace(old, p2p=True)) == []


@pytest.mark.parametrize("text", ["", "sid", "10", "10.", "x10.0"])
def test_a_release_has_two_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="not a release"):
        release_number(text)
