# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``vfio-p2p history``."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import MIGRATED, make_bundle
from histories import MS, entries
from test_two_clocks import machine
from vfio_p2p.bundle.provenance import HostProvenance, MachineProvenance
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import main
from vfio_p2p.history.database import default_path, open_history
from vfio_p2p.history.entry import entry_of
from vfio_p2p.paths import cache_dir
from vfio_p2p.scenario.model import Outcome


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return default_path()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def export(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["history", "export", "--json"]) == 0
    results: list[dict[str, object]] = json.loads(
        capsys.readouterr().out
    )["results"]
    return results


def test_record_and_read(
    bundle: Path, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    assert main(["history", "record", str(bundle)]) == 0
    assert capsys.readouterr().out == f"{state}: 1 recorded\n"
    assert main(["history", "record", str(bundle)]) == 0
    assert "0 recorded, 1 there already" in capsys.readouterr().out
    assert main(["history", "list"]) == 0
    assert "patched" in capsys.readouterr().out
    (result,) = export(capsys)
    read = open_bundle(bundle)
    assert result["digest"] == read.digest
    assert result["seed"] == read.manifest.inputs.seed
    assert result["scenario"] == "two-devices"
    assert result["qemu_revision"] == ""
    metrics = result["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["qmp.downtime"] == {"value": 20 * MS, "unit": "ns"}
    assert metrics["blackout"]["value"] > 0
    phases = [
        x["value"] for name, x in metrics.items() if "phase." in name
    ]
    assert sum(phases) == metrics["blackout"]["value"]


def test_a_testbed_is_the_same_for_every_seed(bundle: Path) -> None:
    read = open_bundle(bundle)
    inputs = read.manifest.inputs

    def testbed(**changes: Any) -> str:
        other = msgspec.structs.replace(
            read.manifest,
            inputs=msgspec.structs.replace(
                inputs,
                place=msgspec.structs.replace(inputs.place, **changes),
            ),
        )
        return entry_of(
            replace(read, manifest=other),
            qemu_revision="",
            qemu_revision_s=None,
            project_revision="",
            recorded_s=0,
        ).testbed

    assert testbed(arguments=("-seed", "7")) == testbed()
    assert testbed(outer_sha256="other") != testbed()
    assert testbed(image={"kernel": "other"}) != testbed()


def test_a_revision_by_hand(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(
        ["history", "record", str(bundle), "--revision", "c0ffee"]
    ) == 0
    (result,) = export(capsys)
    assert result["qemu_revision"] == "c0ffee"


def test_the_revision_that_the_store_knows(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = open_bundle(bundle).manifest.inputs.source.build
    folder = cache_dir() / "builds" / key
    folder.mkdir(parents=True)
    (folder / "qemu-system-x86_64").write_bytes(b"")
    empty = (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    info = {
        "format": 1, "inputs": {}, "origin": "a checkout",
        "version": "QEMU", "binary_bytes": 0, "binary_sha256": empty,
    }
    text = folder / "build.json"
    for commit in ("", "c0ffee"):
        known = {"revision": commit, "revision_s": 7} if commit else {}
        text.write_text(json.dumps(info | known))
        assert main(["history", "record", str(bundle)]) == 0
    found = [
        (x["qemu_revision"], x["qemu_revision_s"]) for x in export(capsys)
    ]
    assert found == [("", None), ("c0ffee", 7)]


def test_one_bad_bundle_and_none_is_recorded(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    state: Path,
) -> None:
    (tmp_path / "not one").mkdir()
    args = ["history", "record", str(bundle), str(tmp_path / "not one")]
    assert main(args) == 2
    assert "no bundles in it" in capsys.readouterr().err
    assert not state.exists()


def test_what_did_not_pass_is_no_part_of_a_trend(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    state: Path,
) -> None:
    refused = msgspec.structs.replace(MIGRATED, outcome=Outcome.FAILED)
    other = make_bundle(tmp_path / "other", result=refused)
    assert main(["history", "record", str(other)]) == 4
    said = f"{state}: 0 recorded, without 1 that did not pass\n"
    assert capsys.readouterr().out == said
    assert main(["history", "record", str(other), str(bundle)]) == 0
    assert "1 recorded, without 1 that" in capsys.readouterr().out
    (result,) = export(capsys)
    assert result["digest"] == open_bundle(bundle).digest


def test_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_history(path, write=True) as history:
        history.add(entries([300 * MS] * 7 + [303 * MS] * 7))
    args = ["history", "plot", "--db", str(path)]
    assert main([*args, "blackout"]) == 0
    assert "+3.000 ms (+1.00 %)" in capsys.readouterr().out
    assert main([*args, "blackout", "--min-segment", "8"]) == 0
    assert "no change point" in capsys.readouterr().out
    assert main([*args, "blackout", "--level", "0.001"]) == 0
    assert "no change point" in capsys.readouterr().out
    assert main([*args, "blackout", "--scenario", "four-devices"]) == 4
    assert main([*args, "blackout", "--source", str(tmp_path)]) == 2
    assert "not a git repository" in capsys.readouterr().err
    assert main([*args, "blckout"]) == 2
    assert "Did you mean 'blackout'?" in capsys.readouterr().err


def test_results_of_one_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = make_bundle(tmp_path / "sealed")
    measured = [
        make_bundle(
            tmp_path / f"{name}-{seed}",
            seed=seed,
            place=HostProvenance(
                name=name,
                source=with_load(machine(name), seed),
                destination=with_load(machine(name), seed),
            ),
            logs_by_side=True,
        )
        for name, seed in (("box", 1), ("box", 2), ("attic", 1))
    ]
    assert main(["history", "record", *map(str, (sealed, *measured))]) == 0
    for at, results in (("box", 2), ("attic", 1), ("sealed", 1), ("x", 0)):
        capsys.readouterr()
        assert main(["history", "list", "--at", at]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + results
    # The load differs from run to run, and makes no other point.
    assert main(["history", "plot", "blackout", "--at", "box"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("blackout of two-devices, patched, box\n")
    assert ", 1 point\n" in out


def with_load(known: MachineProvenance, load: float) -> MachineProvenance:
    return msgspec.structs.replace(known, load=(load, load, load))


def test_list_of_a_metric(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "record", str(bundle)]) == 0
    assert main(["history", "list", "--metric", "qmp.downtime"]) == 0
    assert "20.000 ms" in capsys.readouterr().out
    assert main(["history", "list", "--metric", "nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no result has a metric 'nonsense'" in err


@pytest.mark.parametrize(
    "option",
    [
        ["--level", "0"], ["--level", "1"], ["--level", "nan"],
        ["--level", "x"], ["--min-segment", "1"], ["--min-segment", "x"],
    ],
)
def test_bad_options(option: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["history", "plot", "blackout", *option])
    assert caught.value.code == 2


@pytest.mark.parametrize("action", ["list", "plot blackout", "export --json"])
def test_no_history_yet(
    action: str, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    assert main(["history", *action.split()]) == 2
    err = capsys.readouterr().err
    assert err == (
        f"vfio-p2p: {state}: no history there yet\n"
        "  Run 'vfio-p2p history record BUNDLE' to begin one.\n"
    )
    assert not state.parent.exists()


@pytest.mark.parametrize("kind", ["newer", "foreign", "text"])
def test_not_for_us(
    kind: str, tmp_path: Path, bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "db"
    if kind == "text":
        path.write_text("some text " * 100)
    elif kind == "newer":
        with open_history(path, write=True):
            pass
    if kind != "text":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE more (id)")
            connection.execute("PRAGMA user_version = 7")
    before = path.read_bytes()
    for args in (["list"], ["record", str(bundle)]):
        assert main(["history", *args, "--db", str(path)]) == 2
        what, hint = capsys.readouterr().err.splitlines()
        assert str(path) in what
        assert hint.startswith("  ")
    assert path.read_bytes() == before
