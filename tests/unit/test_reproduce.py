# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p reproduce``, with an outer VM that is a script."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from builds import build_of
from bundles import make_bundle
from fake_outer import GOOD, FakeTestbed, outer_vm
from vfio_p2p.bundle.inputs import Difference, differences
from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.bundle.write import pack, seal
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.cli import main
from vfio_p2p.errors import HostError
from vfio_p2p.places import Job, Place
from vfio_p2p.places.cache import keep
from vfio_p2p.progress import Progress
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.load import load
from vfio_p2p.series import Patch, Variant, load_mutants
from workshops import FakeWorkshop

SCENARIO = load("two-devices")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def patch() -> Patch:
    return Patch.load(next(iter(load_mutants())).path)


class Machine(FakeWorkshop):
    """The inputs of a run, each of which can be replaced."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.script = outer_vm(folder)
        self.testbed: FakeTestbed = self.script(GOOD)
        self.source: Source | None = Source(
            "5" * 64, "debian", "10.0.99", "x", folder, {}
        )
        self.own: dict[str, Source | None] = {}
        self.binary = folder / "qemu"
        self.programs = KnownPrograms()
        found = shutil.which("true")
        assert found
        shutil.copy(found, self.binary)

    def find_source(
        self,
        path: Path | None,
        release: str,
        progress: Progress,
        *,
        refresh: bool = False,
    ) -> Source:
        assert release == "10.0"
        found = self.own[str(path)] if path else self.source
        if found is None:
            raise HostError("Debian has no QEMU 10.0.x")
        return found

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        self.built.append(("10.0", variant.name))
        return self._build(source, variant)

    def _build(self, source: Source, variant: Variant) -> Build:
        version = "QEMU emulator version 10.0.99"
        return build_of(source, variant, version, self.binary)

    def program(self, build: Build) -> ProgramInput:
        return self.programs.add(Program.of(build))

    def place(self, where: PlaceChoice) -> Place:
        assert where.driver is self.testbed.image.driver
        return self.testbed.with_programs(self.programs)

    async def bundle(self, path: Path, applied: Patch | None = None) -> Path:
        """Make the bundle of a run, and keep it in the cache, too."""
        assert self.source
        variant = Variant("patched", (applied or patch(),))
        build = self._build(self.source, variant)
        job = Job.of(self.program(build), SCENARIO, 42)
        place = self.place(PlaceChoice())
        keep(await place.run(job, path))
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
async def bundle(tmp_path: Path, machine: Machine) -> Path:
    return await machine.bundle(tmp_path / "bundles" / "one")


def call(machine: Machine, bundle: Path, *more: str) -> int:
    again = bundle.parent / "again" / "one"
    words = ["reproduce", str(bundle), "--out", str(again), *more]
    return main(words, machine)


def missing(
    machine: Machine, bundle: Path, capsys: Capture
) -> dict[str, tuple[str, str]]:
    """Return the recorded and the present value of each missing input."""
    assert call(machine, bundle, "--json") == 4
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "skip"
    assert document["again"] == ""
    assert not (bundle.parent / "again" / "one").exists()
    return {
        x["name"]: (x["recorded"], x["present"]) for x in document["missing"]
    }


def test_identical(machine: Machine, bundle: Path, capsys: Capture) -> None:
    assert call(machine, bundle) == 0
    out = capsys.readouterr().out
    assert "identical: 4 files, to the byte" in out
    again = bundle.parent / "again" / "one"
    assert open_bundle(again).files == open_bundle(bundle).files


def test_zip(machine: Machine, bundle: Path, capsys: Capture) -> None:
    zipped = bundle.with_name("one.zip")
    pack(open_bundle(bundle), zipped)
    assert call(machine, zipped, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["missing"]) == ("pass", [])


def test_it_is_really_run(
    machine: Machine, bundle: Path, capsys: Capture
) -> None:
    # The bundle is in the cache, which must not be used.
    machine.testbed = machine.script("")
    assert call(machine, bundle) == 5
    assert "without leaving a bundle" in capsys.readouterr().err


def test_run_that_differs(
    machine: Machine, tmp_path: Path, bundle: Path, capsys: Capture
) -> None:
    (tmp_path / "out" / "source" / "trace.log").write_text("trade")
    assert call(machine, bundle) == 5
    said = capsys.readouterr().err
    assert "source/trace.log:1 was 'trace', is 'trade'" in said


def test_source_of_another_version(
    machine: Machine, bundle: Path, capsys: Capture
) -> None:
    assert machine.source
    machine.source = replace(
        machine.source, key="6" * 64, version="10.0.100"
    )
    assert missing(machine, bundle, capsys) == {
        "source.made_of.source": (
            f"{'5' * 64} (QEMU 10.0.99)", f"{'6' * 64} (QEMU 10.0.100)"
        )
    }
    # A build would take minutes, for nothing.
    assert machine.built == []


def test_source_that_is_nowhere(
    machine: Machine, bundle: Path, capsys: Capture
) -> None:
    machine.source = None
    found = missing(machine, bundle, capsys)["source.made_of.source"]
    assert found[1] == "none: Debian has no QEMU 10.0.x"


def test_patch_that_is_another(
    machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    own = Patch("mine.patch", patch().data + b"more\n")
    name = f"source.made_of.patches.{own.name}"
    bundle = asyncio.run(machine.bundle(tmp_path / "b" / "one", own))
    assert missing(machine, bundle, capsys) == {name: (own.sha256, "none")}
    path = tmp_path / own.name
    path.write_bytes(own.data + b"and more\n")
    other = Patch.load(path)
    assert call(machine, bundle, "--patch", str(path)) == 4
    assert other.sha256 in capsys.readouterr().out
    assert machine.built == []
    path.write_bytes(own.data)
    assert call(machine, bundle, "--patch", str(path)) == 0


@pytest.fixture
async def mixed(tmp_path: Path, machine: Machine) -> Path:
    """A bundle whose destination is a build of another tree."""
    path = tmp_path / "bundles" / "one"
    other = Source("6" * 64, "folder", "10.0.99", "y", tmp_path, {})
    machine.own = {"tree": other}
    assert machine.source
    programs = [
        machine.program(machine._build(tree, Variant(name, (patch(),))))
        for tree, name in ((machine.source, "patched"), (other, "base"))
    ]
    job = Job.of(programs[0], SCENARIO, 42, destination=programs[1])
    await machine.place(PlaceChoice()).run(job, path)
    return path


def test_two_qemus(
    machine: Machine, mixed: Path, capsys: Capture
) -> None:
    # The sources are two: without the second, nothing is built.
    name = "destination.made_of.source"
    found = missing(machine, mixed, capsys)
    assert list(found) == [name]
    assert found[name][0].startswith("6" * 64)
    assert found[name][1].startswith("5" * 64)
    assert machine.built == []
    assert call(machine, mixed, "--to-source", "tree") == 0
    assert machine.built == [("10.0", "patched"), ("10.0", "base")]


def test_one_own_tree_of_two_qemus(
    machine: Machine, mixed: Path, capsys: Capture
) -> None:
    """The source's tree is not Debian's, so that it has to be named."""
    machine.own["debian"] = machine.source
    machine.source = machine.own["tree"]
    name = "source.made_of.source"
    assert list(missing(machine, mixed, capsys)) == [name]
    assert call(machine, mixed, "--source", "debian") == 0


def test_other_image_and_outer_qemu(
    machine: Machine, bundle: Path, capsys: Capture
) -> None:
    testbed = machine.testbed
    machine.testbed = FakeTestbed(
        replace(testbed.outer, version="QEMU 9", sha256="9" * 64),
        replace(testbed.image, files={"vmlinuz": "8" * 64}),
    )
    assert missing(machine, bundle, capsys) == {
        "place.image.vmlinuz": ("none", "8" * 64),
        "place.outer": ("QEMU 7.2", "QEMU 9"),
        "place.outer_sha256": ("none", "9" * 64),
    }
    assert machine.built == []


def test_build_that_is_another(
    machine: Machine, bundle: Path, capsys: Capture
) -> None:
    machine.binary.write_bytes(machine.binary.read_bytes() + b"\0")
    assert list(missing(machine, bundle, capsys)) == ["source.sha256"]
    assert machine.built == [("10.0", "patched")]


def test_what_only_explains_does_not_matter(
    bundle: Path, machine: Machine
) -> None:
    testbed = machine.testbed
    machine.testbed = replace(
        testbed, image=replace(testbed.image, compiler="gcc 13")
    )
    assert call(machine, bundle) == 0


def test_bundle_of_before(
    tmp_path: Path, machine: Machine, capsys: Capture
) -> None:
    old = make_bundle(tmp_path / "old" / "one")
    found = missing(machine, old, capsys)
    assert found["source.made_of.source"] == ("none", "none")


def test_the_bundle_is_not_replaced(
    machine: Machine,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    (tmp_path / "out" / "source" / "trace.log").write_text("trade")
    before = open_bundle(bundle)
    link = tmp_path / "link"
    link.symlink_to(bundle)
    for out in (bundle, link):
        words = ["reproduce", str(bundle), "--out", str(out)]
        assert main(words, machine) == 2
        assert "would replace the old one" in capsys.readouterr().err
    # The bundle is at the default place already.
    again = tmp_path / "out" / "again" / "one"
    shutil.copytree(bundle, again)
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", str(again)], machine) == 2
    assert open_bundle(bundle).files == before.files
    assert open_bundle(again).files == before.files


def test_what_is_no_bundle(
    machine: Machine, bundle: Path, capsys: Capture
) -> None:
    (bundle / "source" / "trace.log").write_text("forged")
    assert call(machine, bundle) == 2
    assert "damaged: source/trace.log" in capsys.readouterr().err
    assert call(machine, bundle.with_name("none")) == 2


def test_a_driver_of_later(
    machine: Machine, bundle: Path, capsys: Capture
) -> None:
    inputs = open_bundle(bundle).manifest.inputs
    assert isinstance(inputs.place, SealedProvenance)
    other = msgspec.structs.replace(
        inputs,
        place=msgspec.structs.replace(inputs.place, driver="later"),
    )
    seal(bundle, other)
    assert call(machine, bundle) == 2
    assert "there is no driver named 'later'" in capsys.readouterr().err


async def test_differences_are_named(bundle: Path) -> None:
    inputs = open_bundle(bundle).manifest.inputs
    assert isinstance(inputs.place, SealedProvenance)
    assert differences(inputs, inputs) == []
    other = msgspec.structs.replace(
        inputs,
        seed=43,
        place=msgspec.structs.replace(
            inputs.place, arguments=("-cpu", "max")
        ),
    )
    seed, arguments = differences(inputs, other)
    assert seed == Difference("seed", "42", "43")
    assert seed.matters
    assert arguments.name == "place.arguments"
    assert arguments.present == "-cpu max"
    assert "-cpu Nehalem-v1" in arguments.recorded
    assert not Difference("place.kernel", "a", "b").matters
    assert not Difference("source.made_of.compiler", "a", "b").matters
