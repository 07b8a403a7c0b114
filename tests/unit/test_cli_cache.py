# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that list and prune the cache."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from vfio_p2p.cli import main

DAY_S = 86400


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two packages, one and nine days old."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home = tmp_path / "vfio-p2p"
    (home / "debs").mkdir(parents=True)
    for name, days in ("new_1.deb", 1), ("old_1.deb", 9):
        path = home / "debs" / name
        path.write_bytes(b"x" * (1 << 20))
        then_s = time.time() - days * DAY_S
        os.utime(path, (then_s, then_s))
    return home


def test_list(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(home)
    assert lines[1].split()[:4] == ["debs", "2", "2.0", "MiB"]
    assert lines[2].split() == ["total", "2", "2.0", "MiB"]
    assert main(["cache", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "vfio-p2p cache"
    assert document["path"] == str(home)
    assert [x["path"] for x in document["entries"]] == [
        "debs/old_1.deb", "debs/new_1.deb",
    ]
    assert document["total_bytes"] == sum(
        x["bytes"] for x in document["entries"]
    )


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ([], 2),
        (["--keep-bytes", "20G"], 2),
        (["--keep-bytes", "1500K"], 1),
        (["--keep-bytes", "1500000"], 1),
        (["--keep-bytes", "0"], 0),
        (["--older-than", "2w"], 2),
        (["--older-than", "8d"], 1),
        (["--older-than", "36h"], 1),
        (["--older-than", "60m"], 0),
        (["--older-than", "0s", "--dry-run"], 2),
    ],
)
def test_prune(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    left: int,
) -> None:
    assert main(["cache", "prune", *arguments]) == 0
    names = os.listdir(home / "debs")
    assert len(names) == left
    assert left != 1 or names == ["new_1.deb"]
    last = capsys.readouterr().out.splitlines()[-1]
    if "--dry-run" in arguments:
        assert last == "would remove 2 entries, 2.0 MiB; 0.0 MiB kept"
    else:
        assert last == (
            f"removed {2 - left} entries, {2 - left}.0 MiB; {left}.0 MiB kept"
        )


def test_prune_as_json(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "prune", "--older-than", "8d", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "vfio-p2p cache prune"
    assert [x["path"] for x in document["removed"]] == ["debs/old_1.deb"]
    assert document["removed_bytes"] == document["kept_bytes"] == 1 << 20
    assert document["busy"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--keep-bytes", "1.5G"],
        ["--keep-bytes", "-1"],
        ["--keep-bytes", "20GB"],
        ["--older-than", "30"],
        ["--older-than", "1y"],
        ["--older-than", "²d"],
    ],
)
def test_limits_that_make_no_sense(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["cache", "prune", *arguments])
    assert caught.value.code == 2
    assert len(os.listdir(home / "debs")) == 2
