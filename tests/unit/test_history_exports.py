# SPDX-License-Identifier: GPL-2.0-or-later
"""The history as the tables and folders of other tools."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import MS, entries, entry
from vfio_p2p.cli import main
from vfio_p2p.history.database import Entry, Metric, open_history

COMMITS = [f"{number:04x}" * 10 for number in range(0xA000, 0xA006)]


def keep(path: Path, *found: Entry) -> list[str]:
    """Make a history, and return the options that name it."""
    with open_history(path, write=True) as history:
        history.add(found)
    return ["--db", str(path)]


def of(commit: str, value_ns: int = 300 * MS, **changes: Any) -> Entry:
    """Make a result of a commit, with a digest of its own."""
    made = replace(entry(value_ns, commit), **changes)
    return replace(made, digest=f"{commit} {value_ns} {changes}")


def sha(text: str) -> str:
    """Return what tells a text from others that look like it."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def table(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> list[dict[str, str]]:
    """Export a table, and read it."""
    command = ["history", "export", "--format", "otava", *words]
    assert main(command) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_table_has_a_row_of_each_revision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [300 * MS + number for number in range(5)]
    words = keep(tmp_path / "h", *reversed(entries(values)))
    found = table(words, capsys)
    assert [x["blackout"] for x in found] == [str(x) for x in values]
    assert [x["commit"] for x in found] == [f"{x:04x}" for x in range(5)]
    assert found[0]["time"] == "2020-09-13T12:26:40Z"


def test_a_row_is_the_median_of_its_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [of("c0ffee", 300 * MS + x, seed=x) for x in (0, 7, 1000)]
    (row,) = table(keep(tmp_path / "h", *runs), capsys)
    assert row["blackout"] == str(300 * MS + 7)
    assert row["runs"] == "3"


def test_what_was_not_always_measured_is_no_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = Metric("phase.load", 5, "ns")
    first = of("c0ffee")
    rich = of("decade", metrics=(*first.metrics, more))
    found = table(keep(tmp_path / "h", first, rich), capsys)
    assert [*found[0]] == [
        "time", "commit", "version", "runs", "blackout", "qmp_downtime",
    ]  # fmt: skip


def test_a_table_holds_one_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [of("decade", variant="x"), of("facade", scenario="y")]
    words = keep(tmp_path / "h", of("c0ffee"), *others)
    command = ["history", "export", "--format", "otava", *words]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "these are 3: two-devices of stock at testbed, " in told
    assert "--scenario" in told
    chosen = ["--scenario", "two-devices", "--variant", "stock"]
    assert len(table([*words, *chosen], capsys)) == 1
    assert main([*command, "--variant", "none"]) == 2
    assert "no results" in capsys.readouterr().err


def test_asv_gets_a_file_of_each_commit(tmp_path: Path) -> None:
    runs = [
        of(commit, 300 * MS + 2 * number, seed=seed)
        for number, commit in enumerate(COMMITS)
        for seed in (1, 2)
    ]
    other = of(COMMITS[0], scenario="a b/../c", variant="x y")
    older = of(COMMITS[0], MS, scenario_digest="01d", recorded_s=1)
    changed = of(f"{COMMITS[0]}+", MS)
    words = keep(tmp_path / "h", older, changed, *runs, other, of(""))
    out = tmp_path / "results"
    command = ["history", "export", "--format", "asv", "--out", str(out)]
    assert main([*command, *words]) == 0
    found = {
        str(x.relative_to(out)): json.loads(x.read_bytes())
        for x in out.rglob("*.json")
    }
    assert set(found) == {
        "benchmarks.json", "sealed/machine.json",
        *(f"sealed/{commit[:8]}-stock.json" for commit in COMMITS),
        f"sealed/{COMMITS[0][:8]}-x-y-{sha('x y')}.json",
    }  # fmt: skip
    benchmarks = found["benchmarks.json"]
    assert benchmarks.pop("version") == 2
    name = f"a-b-c-{sha('a b/../c')}.blackout"
    assert set(benchmarks) == {"two-devices.blackout", name}
    for number, commit in enumerate(COMMITS):
        result = found[f"sealed/{commit[:8]}-stock.json"]
        assert result["commit_hash"] == commit
        assert result["date"] == 1_600_000_000_000
        (value,), *_ = result["results"]["two-devices.blackout"]
        assert value == pytest.approx(0.3 + 2e-9 * number, abs=1e-12)


def test_asv_knows_nothing_but_commits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = keep(tmp_path / "h", of(""))
    out = tmp_path / "results"
    command = ["history", "export", "--format", "asv", "--out", str(out)]
    assert main([*command, *words]) == 2
    assert "no result has a commit" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    [["--format", "asv"], ["--json", "--out", "x"], ["--json", "--format",
     "otava"], []],
)  # fmt: skip
def test_what_does_not_go_together(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["history", "export", *words, *keep(tmp_path / "h", of("a"))]
    try:
        code: object = main(command)
    except SystemExit as err:
        code = err.code
    assert code == 2
    assert capsys.readouterr().err
