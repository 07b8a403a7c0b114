# SPDX-License-Identifier: GPL-2.0-or-later
"""Real runs that are divided into shards are judged as one request's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from commands import CommandTest

_WORDS = ("validate", "--seed", "7", "--jobs", "1")
_COUNT = 2


class Shards(CommandTest):
    """All shards together are the whole."""

    timeout = 1800

    def test_two_shards_are_the_whole(self) -> None:
        names: list[str] = []
        for number in range(1, _COUNT + 1):
            shard = f"{number}/{_COUNT}"
            done = self.command(
                *_WORDS, "--shard", shard, "--out", f"s{number}"
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            listing = Path(self.workdir, f"s{number}", "shard.json")
            names += json.loads(listing.read_text())["runs"]
        self.assertEqual(len(set(names)), 6)
        collect = ("--collect", *(f"s{n + 1}" for n in range(_COUNT)))
        done = self.command(*_WORDS, *collect, "--out", "collected")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        # They are run again, and have to be the same to the byte.
        done = self.command(*_WORDS, "--rerun", "--out", "whole")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.report("collected"), self.report("whole"))

    def report(self, folder: str) -> Any:
        """Read a report, without the folder of its bundles."""
        text = Path(self.workdir, folder, "report.json").read_text()
        return json.loads(text.replace(f'"{folder}/', '"'))
