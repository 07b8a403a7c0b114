# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that are divided among machines, and judged together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import SEALED, make_bundle
from vfio_p2p.bundle.manifest import AppliedPatch, MadeOf, ProgramInput
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.plans.shards import Shard
from vfio_p2p.progress import Progress
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.report.shard import MOST
from vfio_p2p.series import Variant
from vfio_p2p.verdict.assess import Assessment
from workshops import FakeWorkshop

COUNT = 3


class Machine(FakeWorkshop):
    """A fake whose builds say what they are made of."""

    compiler = "cc 12"
    testbed: SealedProvenance = SEALED

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        """Return a build that prints a version as QEMU does."""
        made = super().build(source, variant, progress, checks)
        version = f"QEMU emulator version {source.version}"
        return replace(made, version=version)

    def program(self, build: Build) -> ProgramInput:
        """Return an invented identity of the build, and its parts."""
        return msgspec.structs.replace(
            super().program(build),
            made_of=MadeOf(
                source=build.job.source.key,
                version=build.job.source.version,
                patches=tuple(
                    AppliedPatch(name=x.name, sha256=x.sha256)
                    for x in build.patches
                ),
                compiler=self.compiler,
                meson="1.5",
            ),
        )

    def keep(self, cell: Cell, path: Path) -> None:
        """Make the bundle of a run in which all is well."""
        make_bundle(
            path,
            scenario=cell.job.scenario,
            seed=cell.job.seed,
            program=cell.job.source,
            place=self.testbed,
        )


def judge(cell: Cell) -> Assessment:
    """Judge runs that leave no bundle by their names."""
    if len(cell.name) % 3:
        return Assessment(Verdict.SKIP, "skipped", notes=("not here",))
    return Assessment(Verdict.ERROR, "not run", notes=("a", "b"))


def bundles() -> Machine:
    """Return a machine whose runs leave bundles."""
    machine = Machine()
    machine.make = machine.keep
    return machine


def verdicts() -> Machine:
    """Return a machine whose runs leave none."""
    return Machine(judge=judge)


def report(folder: Path) -> Any:
    """Read a report, without the folder of its bundles."""
    text = (folder / "report.json").read_text()
    return json.loads(text.replace(f'"{folder}/', '"'))


def shards(
    folder: Path, words: list[str], new: Callable[[], Machine] = bundles
) -> list[str]:
    """Make all shards, each by a machine of its own; return the folders."""
    found = []
    for number in range(1, COUNT + 1):
        out = str(folder / str(number))
        found.append(out)
        name = f"{number}/{COUNT}"
        main(["validate", *words, "--shard", name, "--out", out], new())
    return found


@pytest.mark.parametrize(
    ("words", "new"),
    [
        ([], bundles),
        (["--seeds", "2", "--scenario", "ping-pong"], bundles),
        (["--per-patch"], bundles),
        (["--followups"], bundles),
        (["--mutants"], verdicts),
        (["--releases"], verdicts),
        (["--all"], verdicts),
    ],
    ids=str,
)
def test_all_shards_are_the_whole(
    tmp_path: Path, words: list[str], new: Callable[[], Machine]
) -> None:
    whole = new()
    code = main(["validate", *words, "--out", str(tmp_path / "a")], whole)
    folders = shards(tmp_path, words, new)
    made = [*tmp_path.glob("[0-9]/*-s4*")]
    assert len(made) == (len(whole.ran) if new is bundles else 0)
    collector = new()
    command = ["validate", *words, "--collect", *folders]
    assert main([*command, "--out", str(tmp_path / "b")], collector) == code
    assert report(tmp_path / "b") == report(tmp_path / "a")
    assert not collector.ran
    assert not collector.built


def test_a_shard_builds_what_its_runs_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built, ran = [], []
    for number in range(1, 61):
        machine = bundles()
        name = f"{number}/60"
        out = tmp_path / str(number)
        command = ["validate", "--mutants", "--shard", name]
        assert main([*command, "--out", str(out)], machine) == 0
        assert {x for _, x in machine.built} == {
            x.variant for x in machine.ran
        }
        told = capsys.readouterr().out.splitlines()
        assert told[0].startswith(f"shard {name}: {len(machine.ran)} of ")
        assert not (out / "report.json").exists()
        built.append(len(machine.built))
        ran += machine.names
    assert max(built) < 10
    whole = bundles()
    main(["validate", "--mutants", "--out", str(tmp_path / "all")], whole)
    assert sorted(ran) == sorted(whole.names)


@pytest.mark.parametrize("words", [["--mutants"], []], ids=str)
def test_a_tree_that_does_not_build(
    tmp_path: Path, words: list[str]
) -> None:
    def new() -> Machine:
        err = BuildError("it does not compile", tmp_path / "log")
        machine = bundles()
        machine.refuses = {"one-pass" if words else "": err}
        return machine

    whole = main(["validate", *words, "--out", str(tmp_path / "a")], new())
    folders = shards(tmp_path, words, new)
    command = ["validate", *words, "--collect", *folders]
    assert main([*command, "--out", str(tmp_path / "b")], new()) == whole
    if words:
        assert report(tmp_path / "b") == report(tmp_path / "a")


def test_a_list_can_have_no_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--shard", "1/1", "--out", str(tmp_path)]
    assert main(["validate", *words], Machine(judge=judge)) in (0, 5)
    path = tmp_path / "shard.json"
    path.write_text(path.read_text().replace('"skip"', '"pass"'))
    path.write_text(path.read_text().replace('"error"', '"pass"'))
    assert main(["validate", "--collect", str(tmp_path)], Machine()) == 2
    assert "is not the list of a shard" in capsys.readouterr().err


def test_what_was_skipped_in_another_scenario_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def skip(cell: Cell) -> Assessment:
        return Assessment(Verdict.SKIP, "skipped")

    words = ["--shard", "1/1", "--out", str(tmp_path)]
    assert main(["validate", *words], Machine(judge=skip)) == 0
    path = tmp_path / "shard.json"
    listing = json.loads(path.read_text())
    for unmade in listing["unmade"].values():
        unmade["scenario"] = "5ce"
    path.write_text(json.dumps(listing))
    assert main(["validate", "--collect", str(tmp_path)], Machine()) == 2
    assert "not the run that this request means" in capsys.readouterr().err


def test_a_usual_run_removes_the_list(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    assert main(["validate", "--shard", "1/2", *out], bundles()) == 0
    assert (tmp_path / "shard.json").exists()
    main(["validate", *out], bundles())
    assert not (tmp_path / "shard.json").exists()


def test_whole_sets_are_still_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        words = ["--shard", "1/1", "--out", str(tmp_path / name)]
        assert main(["validate", *words], bundles()) == 0
    capsys.readouterr()
    folders = [str(tmp_path / x) for x in "ab"]
    main(["report", "--format", "json", *folders])
    found = json.loads(capsys.readouterr().out)
    assert {x["tree"] for x in found["runs"]} == {*folders}


def test_a_new_scenario_moves_no_other_run() -> None:
    names = [f"patched-{x}-s42" for x in range(1000)]
    counts = [
        sum(Shard(number, 4).has(x) for x in names) for number in range(1, 5)
    ]
    assert sum(counts) == 1000
    assert min(counts) > 200
    # It is a matter of record, since machines must agree on it.
    assert Shard(1, 4).has("patched-two-devices-s42")


@pytest.mark.parametrize(
    "text", ["", "1", "0/4", "5/4", "-1/4", "1/0", f"1/{MOST + 1}", "1/4 "]
)
def test_there_is_no_such_shard(text: str) -> None:
    with pytest.raises(UsageError, match="no shard"):
        Shard.parse(text)


@pytest.mark.parametrize(
    "words",
    [
        ["--shard", "1/2", "--versions"],
        ["--shard", "1/2", "--patch", "x"],
        ["--shard", "1/2", "--json"],
        ["--shard", "1/2", "--collect", "x"],
        ["--collect", "x", "--history", "y"],
        ["--collect", "x", "--versions"],
    ],
)
def test_what_does_not_go_together(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", *words], FakeWorkshop()) == 2
    assert "Leave out one of them" in capsys.readouterr().err


def test_a_shard_that_is_missing_is_no_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scenario", "two-devices", "--variant", "patched"]
    words += ["--seeds", "6"]
    folders = shards(tmp_path, words)
    command = ["validate", *words, "--collect", *folders[:2]]
    assert main([*command, "--out", str(tmp_path / "b")], bundles()) == 5
    assert "missing: 3/3" in capsys.readouterr().out


def test_a_run_that_failed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(cell: Cell) -> Assessment:
        return Assessment(Verdict.ERROR, "not run", notes=("no disk",))

    machine = Machine(judge=fail)
    command = ["validate", "--shard", "1/1", "--out", str(tmp_path)]
    assert main(command, machine) == 5
    assert "one-device-s42: no disk" in capsys.readouterr().out


def other_compiler(machine: Machine) -> None:
    """Build with something else."""
    machine.compiler = "cc 14"


def other_testbed(machine: Machine) -> None:
    """Run in another testbed."""
    machine.testbed = msgspec.structs.replace(SEALED, outer_sha256="4" * 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_compiler, "different builds of"),
        (other_testbed, "different testbeds"),
    ],
)
def test_machines_that_differ_are_not_mixed(
    tmp_path: Path,
    change: Callable[[Machine], None],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, *rest = shards(tmp_path, [])
    machine = bundles()
    change(machine)
    command = ["validate", "--shard", f"1/{COUNT}"]
    assert main([*command, "--out", first], machine) == 0
    assert main(["validate", "--collect", first, *rest], bundles()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("change", ["other options", "twice", "no list"])
def test_folders_that_are_of_something_else(
    tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = shards(tmp_path, [])
    out = ["--out", str(tmp_path / "b")]
    match change:
        case "other options":
            words = ["--seed", "7", "--collect", *folders]
            said, code = "no shard has made it", 5
        case "twice":
            words = ["--collect", *folders, folders[0]]
            said, code = "does not go with", 2
        case _:
            Path(folders[1], "shard.json").write_text("{}")
            words = ["--collect", *folders]
            said, code = "is not the list of a shard", 2
    assert main(["validate", *words, *out], bundles()) == code
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_a_run_of_another_source_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = shards(tmp_path, ["--scenario", "two-devices"])
    for folder in folders:
        for bundle in Path(folder).glob("*-s42"):
            name = bundle.name
            shutil.rmtree(bundle)
            make_bundle(bundle, variant=name.partition("-")[0])
    command = ["validate", "--scenario", "two-devices", "--collect"]
    assert main([*command, *folders], bundles()) == 2
    assert "not the run that this request means" in capsys.readouterr().err


def test_bundles_of_an_earlier_call_are_not_collected(
    tmp_path: Path,
) -> None:
    out = ["--out", str(tmp_path / "1")]
    for seed in ("41", "42"):
        words = ["validate", "--shard", "1/1", "--seed", seed, *out]
        assert main(words, bundles()) == 0
    listing = json.loads((tmp_path / "1" / "shard.json").read_text())
    assert all(x.endswith("-s42") for x in listing["runs"])


def test_a_report_of_two_shards_is_no_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = shards(tmp_path, [])
    capsys.readouterr()
    main(["report", "--format", "json", *folders[:2]])
    found = json.loads(capsys.readouterr().out)
    assert {x["tree"] for x in found["runs"]} <= {"base", "patched"}


def test_a_history_takes_the_folders_of_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scenario", "two-devices", "--variant", "patched"]
    words += ["--seeds", "6"]
    folders = shards(tmp_path, words)
    command = ["history", "record", "--db", str(tmp_path / "h")]
    assert main([*command, *folders]) == 0
    assert "6 recorded" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main([*command, str(tmp_path / "empty")]) == 2
    assert "no bundles in it" in capsys.readouterr().err
