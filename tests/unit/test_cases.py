# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs as people have them: each case says what a user is owed.

A case is a folder with logs in the formats of real reports; their values are
made up.  ``cmd`` has the commands to run in it, ``expect`` says in words what
has to come out, and ``want.json`` has the exit codes, the texts that must be
printed and those that must not, as regular expressions.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from vfio_p2p.cli import main

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/want.json"))
_RUNS = 6


def more_runs(folder: Path) -> None:
    """Write further runs of A and B, as there are too few to compare."""
    for letter in "AB":
        known = sorted((folder / letter).iterdir())
        for number in range(len(known), _RUNS):
            shutil.copytree(
                known[number % len(known)], folder / letter / f"run{number}"
            )


def test_all_cases_are_here() -> None:
    assert len(NAMES) == 23


@pytest.mark.parametrize("name", NAMES)
def test_case(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / name
    shutil.copytree(CASES / name, folder)
    if (folder / "A").is_dir():
        more_runs(folder)
    monkeypatch.chdir(folder)
    want = json.loads((folder / "want.json").read_text())
    for line in (folder / "cmd").read_text().splitlines():
        program, *args = shlex.split(line)
        assert program == "vfio-p2p"
        assert main(args) in want["codes"]
    said = "".join(capsys.readouterr())
    for text in want["must"]:
        assert re.search(text, said, re.IGNORECASE)
    for text in want["never"]:
        assert not re.search(text, said, re.IGNORECASE)
