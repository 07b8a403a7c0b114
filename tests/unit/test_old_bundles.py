# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundles of release 0.1 (be555e3) are still read, and judged alike."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from vfio_p2p.bundle.manifest import inputs_from
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.cli import main
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Outcome, Scenario
from vfio_p2p.verdict.assess import assess

FOLDER = Path(__file__).with_name("data") / "be555e3"
DIGESTS = {
    "base": "161d26b691eeea9f2781ec3d827d23c30d80114a3258cc7853bd95df0ce58331",
    "patched":
        "68934edefaca192e6ec9ec1c61fe466b95d2079e4fa03232aabd2eae0470dc6b",
}  # fmt: skip
_OTHER_MESSAGE = ("stream-cut-in-precopy", "destination-killed-in-precopy")


def path_of(variant: str) -> Path:
    return FOLDER / f"{variant}-two-devices-s42.zip"


@pytest.fixture(params=DIGESTS)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """A bundle of format 1."""
    return open_bundle(path_of(request.param))


def test_one_program_is_that_of_both_sides(bundle: Bundle) -> None:
    inputs = bundle.manifest.inputs
    assert bundle.manifest.format == 1
    assert bundle.digest == DIGESTS[inputs.source.variant]
    assert inputs.destination == inputs.source
    assert inputs.source.version.startswith("QEMU emulator version 10.0.13")
    assert inputs.source.made_of is not None
    assert len(inputs.source.made_of.patches) == (
        12 if inputs.source.variant == "patched" else 6
    )
    assert inputs.scenario == bundle.scenario.digest
    assert inputs.seed == 42


def test_their_place_is_the_testbed(bundle: Bundle) -> None:
    place = bundle.manifest.inputs.place
    assert isinstance(place, SealedProvenance)
    assert place.exact
    assert place.driver == "p2psim"
    assert "-icount" in place.arguments
    assert set(place.image) > {"vmlinuz", "initramfs.cpio"}


@pytest.mark.parametrize(
    ("variant", "outcome", "blackout_ns"),
    [
        ("base", Outcome.REFUSED, None),
        ("patched", Outcome.MIGRATED, 57_868_000),
    ],
)
def test_they_are_judged_as_they_were(
    variant: str,
    outcome: Outcome,
    blackout_ns: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = open_bundle(path_of(variant))
    found = assess(bundle)
    assert bundle.manifest.result.outcome is outcome
    assert found.verdict is Verdict.PASS
    assert found.findings == ()
    assert found.blackout_ns == blackout_ns
    assert main(["check", str(bundle.path)]) == 0
    assert "verdict: pass (1 passed, 0 failed)" in capsys.readouterr().out


def test_inputs_of_either_format_are_the_same(bundle: Bundle) -> None:
    raw = json.loads(bundle.files["manifest.json"])["inputs"]
    inputs = bundle.manifest.inputs
    assert set(raw) == {"qemu", "testbed", "scenario", "seed"}
    assert inputs_from(raw) == inputs
    assert inputs_from(msgspec.to_builtins(inputs)) == inputs


@pytest.mark.parametrize("missing", ["qemu", "testbed", "scenario", "seed"])
def test_inputs_that_are_not_whole(missing: str) -> None:
    bundle = open_bundle(path_of("base"))
    raw = json.loads(bundle.files["manifest.json"])["inputs"]
    del raw[missing]
    with pytest.raises(msgspec.ValidationError):
        inputs_from(raw)


def as_it_was(name: str) -> Scenario:
    """Load a scenario, without what was changed on purpose.

    The summaries were reworded, and what QEMU 11.1 does otherwise is new.
    Two scenarios look for another message of a broken connection, and some
    for one of several.
    """
    scenario = load(name)
    expect = msgspec.structs.replace(scenario.expect, since={})
    for tree in ("base", "patched"):
        wanted = getattr(expect, tree)
        if name in _OTHER_MESSAGE or isinstance(wanted.message, tuple):
            wanted = msgspec.structs.replace(
                wanted, message="Channel error: Input/output error"
            )
            expect = msgspec.structs.replace(expect, **{tree: wanted})
    return msgspec.structs.replace(scenario, summary="", expect=expect)


def test_digests_of_all_scenarios_are_what_they_were() -> None:
    path = FOLDER.with_name("scenarios-be555e3.json")
    recorded = json.loads(path.read_bytes())
    assert len(recorded) == 141
    assert {x: as_it_was(x).digest for x in recorded} == recorded
