# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundles are judged once, and never by what is no longer true."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import make_bundle
from qemu_log import FakeQemu, devices, migrate, receive
from reports import evil_bundle
from vfio_p2p import resources
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import main
from vfio_p2p.downtime.metrics import measured, metrics
from vfio_p2p.errors import BundleError
from vfio_p2p.plans import judgements
from vfio_p2p.plans.judgements import BundleJudgement, judgements_in, runs_in
from vfio_p2p.report.collect import collect, each_run
from vfio_p2p.report.document import to_json
from vfio_p2p.scenario.load import load

COUNT = 20


@pytest.fixture(autouse=True)
def _cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    judgements._folder.cache_clear()
    yield
    judgements._folder.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Many bundles, of which some are bad."""
    found = tmp_path / "out"
    found.mkdir()
    evil_bundle(found / "evil")
    make_bundle(
        found / "no-series",
        source=migrate(FakeQemu(devices("src0", "src1"), series=False)),
        destination=receive(FakeQemu(devices("dst0", "dst1"), series=False)),
    )
    make_bundle(found / "one", scenario=load("one-device"))
    for seed in range(COUNT):
        make_bundle(found / f"s{seed}", seed=seed)
    return found


def kept(tmp_path: Path) -> list[Path]:
    """Return the files of the cache."""
    return sorted(tmp_path.glob("cache/vfio-p2p/judgements/*/*.json"))


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the bundles that are judged from now on."""
    names: list[str] = []
    usual = BundleJudgement.of.__func__  # type: ignore[attr-defined]

    def note(
        cls: type[BundleJudgement], bundle: object, *more: object
    ) -> object:
        names.append(Path(bundle.path).name)  # type: ignore[attr-defined]
        return usual(cls, bundle, *more)

    monkeypatch.setattr(BundleJudgement, "of", classmethod(note))
    return names


def test_what_was_judged_is_not_judged_again(
    tmp_path: Path, folder: Path, judged: list[str]
) -> None:
    first = to_json(collect([folder], runs_in))
    assert len(judged) == COUNT + 3
    assert len(kept(tmp_path)) == COUNT + 3
    judged.clear()
    make_bundle(folder / "new", seed=99)
    again = collect([folder], runs_in)
    assert judged == ["new"]
    shutil.rmtree(folder / "new")
    assert to_json(collect([folder], runs_in)) == first
    assert len(again.runs) == COUNT + 4


def test_it_is_what_judging_says(folder: Path) -> None:
    plain = to_json(collect([folder], each_run))
    for _ in range(2):
        assert to_json(collect([folder], runs_in)) == plain


def test_figures_are_those_of_judging(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    plain = [BundleJudgement.of(open_bundle(x)).breakdown for x in paths]
    for _ in range(2):
        for found, known in zip(judgements_in(paths), plain, strict=True):
            assert found.breakdown == known
            assert known
            assert found.breakdown
            assert metrics(found.breakdown) == metrics(known)
            assert measured(found.breakdown) == measured(known)


def test_a_moved_bundle_has_its_own_path(
    tmp_path: Path, folder: Path, judged: list[str]
) -> None:
    [*runs_in(sorted(folder.iterdir()))]
    judged.clear()
    folder.rename(tmp_path / "moved")
    runs = [*runs_in(sorted((tmp_path / "moved").iterdir()))]
    assert not judged
    assert {Path(x.bundle).parent.name for x in runs} == {"moved"}


@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 9999, b"\xff"])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, folder: Path, judged: list[str], damage: bytes
) -> None:
    first = to_json(collect([folder], runs_in))
    judged.clear()
    path = kept(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert to_json(collect([folder], runs_in)) == first
    assert len(judged) == 1
    assert path.read_bytes() == whole


def test_an_entry_of_another_bundle_is_not_taken(
    tmp_path: Path, folder: Path, judged: list[str]
) -> None:
    first = to_json(collect([folder], runs_in))
    judged.clear()
    one, other, *_ = kept(tmp_path)
    shutil.copyfile(one, other)
    assert to_json(collect([folder], runs_in)) == first
    assert len(judged) == 1


def test_other_code_judges_anew(
    tmp_path: Path,
    folder: Path,
    judged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [*runs_in(sorted(folder.iterdir()))]
    judged.clear()
    root = tmp_path / "package"
    shutil.copytree(
        resources.resource(), root,
        ignore=shutil.ignore_patterns("data", "__pycache__"),
    )  # fmt: skip
    monkeypatch.setattr(resources, "resource", lambda *parts: root)
    monkeypatch.setattr(resources, "patches", lambda: root)
    (root / "series.toml").write_text("")
    folders = set()
    for text in ("", "# another rule\n"):
        with (root / "oracle" / "rules.py").open("a") as file:
            file.write(text)
        judgements._folder.cache_clear()
        folders.add(judgements._folder())
        [*runs_in(sorted(folder.iterdir()))]
    assert len(folders) == 2
    assert len(judged) == 2 * (COUNT + 3)


def test_a_damaged_bundle_is_found_out(folder: Path) -> None:
    [*runs_in(sorted(folder.iterdir()))]
    with (folder / "s7" / "source" / "trace.log").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="s7"):
        [*runs_in(sorted(folder.iterdir()))]


def test_a_cache_that_cannot_be_written_is_none(
    tmp_path: Path, folder: Path
) -> None:
    plain = to_json(collect([folder], each_run))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "vfio-p2p").write_text("in the way")
    assert to_json(collect([folder], runs_in)) == plain


def test_clocks_that_are_far_apart(tmp_path: Path) -> None:
    # A report may have no such time, but a run can.
    far = tmp_path / "far"
    for number in range(COUNT):
        folder = far / str(number)
        folder.mkdir(parents=True)
        (folder / "source.log").write_bytes(
            migrate(FakeQemu(devices("src0", "src1"))).log()
        )
        there = receive(FakeQemu(devices("dst0", "dst1"))).log()
        if number == 7:
            there = re.sub(
                rb"@(\d+)",
                lambda x: b"@%d" % (int(x[1]) + 20 * 86400),
                there,
            )
        (folder / "destination.log").write_bytes(there)
    paths = sorted(far.iterdir())
    plain = to_json(collect([far], each_run))
    assert to_json(collect([far], runs_in)) == plain
    assert len([*runs_in(paths)]) == COUNT


def test_few_bundles_leave_nothing(tmp_path: Path, folder: Path) -> None:
    [*runs_in(sorted(folder.iterdir())[:3])]
    assert not kept(tmp_path)


def test_a_comparison_is_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        for seed in range(COUNT):
            make_bundle(
                tmp_path / name / f"s{seed}", seed=seed, build=name * 32
            )
    words = ["compare", *(str(tmp_path / x) for x in "ab"), "--json"]
    told = set()
    for _ in range(2):
        assert main(words) == 0
        told.add(capsys.readouterr().out)
    assert len(told) == 1
    assert len(kept(tmp_path)) == 2 * COUNT


def test_equal_texts_of_many_runs_are_one_object(folder: Path) -> None:
    runs = [*runs_in(sorted(folder.glob("s*")))]
    texts = {
        id(stay.state)
        for run in runs
        for lane in run.lanes
        for stay in lane.states
    }
    names = {x.state for y in runs for z in y.lanes for x in z.states}
    assert len(texts) == len(names)


def test_the_cache_of_a_reader_is_left_alone(
    tmp_path: Path, folder: Path
) -> None:
    [*runs_in(sorted(folder.iterdir()))]
    capacity = ["cache", "prune", "--keep-bytes", "0"]
    # This process still uses it.
    assert main(capacity) == 0
    assert len(kept(tmp_path)) == COUNT + 3
    assert os.path.isdir(judgements._folder())
