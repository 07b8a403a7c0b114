# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs, places and programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fake_outer import GOOD, FakeTestbed, outer_vm
from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.provenance import AttachedProvenance
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.devices import Driver
from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.places import PLACES, CachedPlace, Job, open_place
from vfio_p2p.places.job import FORMAT, from_json
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.load import load

SCENARIO = load("two-devices")


def program(name: str, variant: str = "patched") -> Program:
    """Return a program of this machine."""
    return Program.at(Path(name), variant=variant, version="10.0.99")


@pytest.fixture
def vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], FakeTestbed]:
    """A testbed whose outer VM does what a script says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return outer_vm(tmp_path)


def test_a_job_can_be_written_down() -> None:
    job = Job.of(program("/bin/true").what, SCENARIO, 42)
    assert job.destination == job.source
    again = from_json(job.to_json())
    assert again == job
    assert again.digest == job.digest
    assert b"/bin" not in job.to_json()


def test_whatever_is_in_a_job_is_in_its_digest() -> None:
    true, false = program("/bin/true").what, program("/bin/false").what
    jobs = [
        Job.of(true, SCENARIO, 42),
        Job.of(true, SCENARIO, 43),
        Job.of(true, load("one-device"), 42),
        Job.of(false, SCENARIO, 42),
        Job.of(true, SCENARIO, 42, destination=false),
        Job.of(false, SCENARIO, 42, destination=true),
    ]
    assert len({job.digest for job in jobs}) == len(jobs)
    place = AttachedProvenance()
    inputs = {msgspec.json.encode(job.inputs(place)) for job in jobs}
    assert len(inputs) == len(jobs)


def test_a_job_of_later() -> None:
    job = json.loads(Job.of(program("/bin/true").what, SCENARIO, 1).to_json())
    job["format"] = FORMAT + 1
    job["source"] = "something that we cannot know"
    with pytest.raises(UsageError, match=f"the format {FORMAT + 1}") as err:
        from_json(json.dumps(job).encode())
    assert "newer" in err.value.hint


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"format": 1}', b"\xff", b"[" * 100_000]
)
def test_what_is_not_a_job(text: bytes) -> None:
    with pytest.raises(UsageError, match="not a job"):
        from_json(text)


def test_a_place_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="no place 'moon'") as err:
        open_place(PlaceChoice("moon"), KnownPrograms())
    assert all(name in err.value.hint for name in PLACES)


def test_what_only_the_testbed_has(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.toml"
    for where in (
        PlaceChoice("box", hosts=hosts, boot=True),
        PlaceChoice("box", Driver.MTTY, hosts),
    ):
        with pytest.raises(UsageError, match="is for the testbed"):
            open_place(where, KnownPrograms())


def test_only_an_exact_place_has_a_cache(
    vm: Callable[[str], FakeTestbed], tmp_path: Path
) -> None:
    CachedPlace(vm(GOOD).place())
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(
        "format = 1\n[host.box]\ndriver = 'mlx5'\n"
        "source = {vfs = ['0000:01:00.2']}\n"
        "destination = {vfs = ['0000:01:00.3']}\n"
    )
    measured = open_place(PlaceChoice("box", hosts=hosts), KnownPrograms())
    with pytest.raises(ValueError, match="may differ"):
        CachedPlace(measured)


def test_a_program_is_known_by_its_content() -> None:
    true = program("/bin/true")
    known = KnownPrograms([true])
    renamed = msgspec.structs.replace(true.what, variant="mine", build="x")
    assert known.find(renamed) is true
    for other in (
        msgspec.structs.replace(true.what, sha256="0" * 64),
        msgspec.structs.replace(true.what, libraries={}),
    ):
        with pytest.raises(SourceError, match="does not have the QEMU"):
            known.find(other)


def test_a_program_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_bytes(Path("/bin/true").read_bytes())
    path.chmod(0o755)
    found = program(str(path))
    assert found.files()["qemu"] == path.read_bytes()
    path.write_bytes(Path("/bin/false").read_bytes())
    with pytest.raises(SourceError, match="has changed"):
        found.files()
    assert program(str(path)).what.sha256 != found.what.sha256


async def test_two_programs_are_two_inputs(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    programs = program("/bin/true", "base"), program("/bin/false")
    place = CachedPlace(vm(GOOD).place(*programs))
    old, new = (each.what for each in programs)

    async def run(source: ProgramInput, destination: ProgramInput) -> str:
        job = Job.of(source, SCENARIO, 42, destination=destination)
        bundle = await place.run(job, tmp_path / "b" / "one")
        assert bundle.manifest.inputs.source == source
        assert bundle.manifest.inputs.destination == destination
        return bundle.digest

    digests = [
        await run(*each)
        for each in ((old, new), (new, old), (old, old), (new, new))
    ]
    assert len(set(digests)) == len(digests)


async def test_the_cache_serves_nobody_elses_result(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    """A whole bundle of another run lies where the one asked for was."""
    programs = program("/bin/true", "base"), program("/bin/false")
    place = CachedPlace(vm(GOOD).place(*programs))
    jobs = [Job.of(x.what, SCENARIO, 42) for x in programs]
    for job in jobs:
        await place.run(job, tmp_path / "first")
    one, two = (tmp_path / "cache/vfio-p2p/results").glob("*/*/")
    shutil.rmtree(two)
    shutil.copytree(one, two)
    for job in jobs:
        bundle = await place.run(job, tmp_path / "again")
        assert bundle.manifest.inputs.source == job.source
    assert open_bundle(one).digest != open_bundle(two).digest


async def test_a_program_that_is_not_known_is_not_run(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    place = vm(GOOD).place(program("/bin/true"))
    job = Job.of(
        program("/bin/true").what,
        SCENARIO,
        42,
        destination=program("/bin/false").what,
    )
    with pytest.raises(SourceError):
        await place.run(job, tmp_path / "b" / "one")
    assert not (tmp_path / "b").exists()
