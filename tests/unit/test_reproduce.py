# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p reproduce``, with an outer VM that is a script."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builds import build_of
from bundles import make_bundle
from fake_outer import GOOD, FakeTestbed, outer_vm
from vfio_p2p.bundle.inputs import Difference, differences
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.bundle.write import pack, seal
from vfio_p2p.cli import main, reproduce
from vfio_p2p.devices import Driver
from vfio_p2p.errors import HostError
from vfio_p2p.places import CachedPlace, Job
from vfio_p2p.places.sealed.place import SealedPlace
from vfio_p2p.qemu import Build, Source
from vfio_p2p.qemu.program import Program, Programs
from vfio_p2p.scenario.load import load
from vfio_p2p.series import Patch, Variant, load_mutants

SCENARIO = load("two-devices")


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def patch() -> Patch:
    return Patch.load(next(iter(load_mutants())).path)


class Machine:
    """What there is to make a run from; all of it can be another."""

    def __init__(self, folder: Path) -> None:
        self.make: Callable[[str], FakeTestbed] = outer_vm(folder)
        self.testbed = self.make(GOOD)
        self.source = Source("5" * 64, "debian", "10.0.99", "x", folder, {})
        self.binary = folder / "qemu"
        self.built: list[str] = []
        found = shutil.which("true")
        assert found
        shutil.copy(found, self.binary)

    def find_source(self, where: Path | None, qemu: str, _: Any) -> Source:
        assert qemu == "10.0"
        return self.source

    def build(self, source: Source, tree: Variant, _: Any) -> Build:
        self.built.append(tree.name)
        return build_of(
            source, tree, "QEMU emulator version 10.0.99", self.binary
        )

    async def bundle(self, path: Path) -> Path:
        """A bundle of a run that was made with all of it."""
        made = self.build(self.source, Variant("patched", (patch(),)), None)
        # Which keeps it as well, in the results' store.
        program = Program.of(made)
        place = CachedPlace(self.testbed.place(program))
        await place.run(Job.of(program.what, SCENARIO, 42), path)
        self.built.clear()
        return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)

    def opened(name: str, driver: Driver, programs: Programs) -> SealedPlace:
        assert name == "sealed"
        return found.testbed.with_programs(programs)

    monkeypatch.setattr(reproduce, "open_place", opened)
    monkeypatch.setattr(reproduce, "find_source", found.find_source)
    monkeypatch.setattr(reproduce, "build", found.build)
    return found


@pytest.fixture
async def bundle(tmp_path: Path, machine: Machine) -> Path:
    return await machine.bundle(tmp_path / "bundles" / "one")


def call(bundle: Path, *more: str) -> int:
    again = bundle.parent / "again" / "one"
    return main(["reproduce", str(bundle), "--out", str(again), *more])


def missing(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, tuple[str, str]]:
    """What cannot be had: recorded and present, by name."""
    assert call(bundle, "--json") == 4
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "skip"
    assert document["again"] == ""
    assert not (bundle.parent / "again" / "one").exists()
    return {
        x["name"]: (x["recorded"], x["present"]) for x in document["missing"]
    }


def test_identical(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(bundle) == 0
    out = capsys.readouterr().out
    assert "identical: 4 files, to the byte" in out
    again = bundle.parent / "again" / "one"
    assert open_bundle(again).files == open_bundle(bundle).files


def test_zip(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zipped = bundle.with_name("one.zip")
    pack(open_bundle(bundle), zipped)
    assert call(zipped, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["missing"]) == ("pass", [])


def test_it_is_really_run(
    bundle: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    # What is in the results' store is not asked for.
    machine.testbed = machine.make("")
    assert call(bundle) == 5
    assert "without leaving a bundle" in capsys.readouterr().err


def test_run_that_differs(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "source" / "trace.log").write_text("trade")
    assert call(bundle) == 5
    said = capsys.readouterr().err
    assert "source/trace.log:1 was 'trace', is 'trade'" in said


def test_source_of_another_version(
    bundle: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.source = replace(
        machine.source, key="6" * 64, version="10.0.100"
    )
    assert missing(bundle, capsys) == {
        "source.made_of.source": (
            f"{'5' * 64} (QEMU 10.0.99)", f"{'6' * 64} (QEMU 10.0.100)"
        )
    }
    # Minutes that would come to nothing.
    assert machine.built == []


def test_source_that_is_nowhere(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nowhere(*_: object) -> Source:
        raise HostError("Debian has no QEMU 10.0.x")

    monkeypatch.setattr(reproduce, "find_source", nowhere)
    found = missing(bundle, capsys)["source.made_of.source"]
    assert found[1] == "none: Debian has no QEMU 10.0.x"


def test_patch_that_is_another(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "patches"
    folder.mkdir()
    monkeypatch.setattr(reproduce, "patches_folder", lambda: folder)
    name = f"source.made_of.patches.{patch().name}"
    assert missing(bundle, capsys) == {name: (patch().sha256, "none")}
    other = Patch(patch().name, patch().data + b"more\n")
    (folder / other.name).write_bytes(other.data)
    assert missing(bundle, capsys) == {
        name: (patch().sha256, other.sha256)
    }
    assert machine.built == []
    own = tmp_path / "mine.patch"
    own.write_bytes(patch().data)
    assert call(bundle, "--patch", str(own)) == 0


def test_other_image_and_outer_qemu(
    bundle: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    testbed = machine.testbed
    machine.testbed = FakeTestbed(
        replace(testbed.outer, version="QEMU 9", sha256="9" * 64),
        replace(testbed.image, files={"vmlinuz": "8" * 64}),
    )
    assert missing(bundle, capsys) == {
        "place.image.vmlinuz": ("none", "8" * 64),
        "place.outer": ("QEMU 7.2", "QEMU 9"),
        "place.outer_sha256": ("none", "9" * 64),
    }
    assert machine.built == []


def test_build_that_is_another(
    bundle: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.binary.write_bytes(machine.binary.read_bytes() + b"\0")
    assert list(missing(bundle, capsys)) == [
        "source.sha256", "destination.sha256",
    ]
    assert machine.built == ["patched"]


def test_what_only_explains_does_not_matter(
    bundle: Path, machine: Machine
) -> None:
    testbed = machine.testbed
    machine.testbed = replace(
        testbed, image=replace(testbed.image, compiler="gcc 13")
    )
    assert call(bundle) == 0


def test_bundle_of_before(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    found = missing(make_bundle(tmp_path / "old" / "one"), capsys)
    assert found["source.made_of.source"] == ("none", "none")


def test_the_bundle_is_not_replaced(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "out" / "source" / "trace.log").write_text("trade")
    before = open_bundle(bundle)
    link = tmp_path / "link"
    link.symlink_to(bundle)
    for out in (bundle, link):
        assert main(["reproduce", str(bundle), "--out", str(out)]) == 2
        assert "replace the bundle itself" in capsys.readouterr().err
    # As one that is at the default already.
    again = tmp_path / "out" / "again" / "one"
    shutil.copytree(bundle, again)
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", str(again)]) == 2
    assert open_bundle(bundle).files == before.files
    assert open_bundle(again).files == before.files


def test_what_is_no_bundle(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "source" / "trace.log").write_text("forged")
    assert call(bundle) == 2
    assert "damaged: source/trace.log" in capsys.readouterr().err
    assert call(bundle.with_name("none")) == 2


def test_a_driver_of_later(
    bundle: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = open_bundle(bundle).manifest.inputs
    other = msgspec.structs.replace(
        inputs,
        place=msgspec.structs.replace(inputs.place, driver="later"),
    )
    seal(bundle, other)
    assert call(bundle) == 2
    assert "a driver named 'later' is not known" in capsys.readouterr().err


async def test_differences_are_named(bundle: Path) -> None:
    inputs = open_bundle(bundle).manifest.inputs
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
