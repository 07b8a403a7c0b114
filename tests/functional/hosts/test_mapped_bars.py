# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding 8, which only real devices show, and its follow-up.

``-p at=NAME`` names a place of hosts.toml; otherwise it is that of a lab that
is up.  The place's devices have to be prepared.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from avocado import Test
from vfio_p2p.bundle.provenance import HostProvenance
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.places.hosts.config import VARIABLE

_FOLLOWUP = "mapped-pages-synced"
_MESSAGE = re.compile(
    r"Failed to get dirty bitmap for iova: 0x[0-9a-f]+ size: (0x[0-9a-f]+): "
    "Invalid argument"
)
_PAGE_BYTES = 4096


class MappedBars(Test):
    """A device whose BARs are mapped, with and without the follow-up."""

    timeout = 3600

    def setUp(self) -> None:
        self.at = self.params.get("at", default="")
        if not self.at:
            self.at = "lab-host"
            lab = json.loads(self.command("lab", "status", "--json")[1])
            if not lab["up"]:
                self.cancel(
                    "There is no place of real devices: name one with "
                    "-p at=NAME, or start a lab with 'vfio-p2p lab up'."
                )
            os.environ[VARIABLE] = str(Path(lab["folder"], "hosts.toml"))
        code, said = self.command("host", "check", "--at", self.at)
        if code:
            self.cancel(f"{self.at} is not ready (exit code {code}): {said}")

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit code, and what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "vfio_p2p", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def sizes(self, folder: Path) -> list[int]:
        """Return the sizes that the kernel refused in a run."""
        text = open_bundle(folder).files["source/stderr.txt"].decode()
        return [int(x, 16) for x in _MESSAGE.findall(text)]

    def test_the_followup(self) -> None:
        out = Path(self.workdir, "out")
        code, said = self.command(
            "validate", "--followups", "--at", self.at, "--out", str(out),
            "--json",
        )
        if code == 4:
            self.cancel(f"{self.at}: the devices cannot be used: {said}")
        document: dict[str, Any] = json.loads(said)
        rows = {
            (x["followup"], x["scenario"]): x for x in document["followups"]
        }
        shown = rows[_FOLLOWUP, "mapped-bars"]
        self.assertEqual(
            (shown["without"], shown["mended"]), ("the defect", "pass")
        )
        for (name, _), row in rows.items():
            judged = "pass" if name == _FOLLOWUP else "skip"
            self.assertEqual(row["verdict"], judged, row)
        self.assertEqual(code, 0)

        sizes = self.sizes(out / "patched-mapped-bars-s42")
        self.assertTrue(sizes)
        self.assertTrue(all(x % _PAGE_BYTES for x in sizes), sizes)
        mended = out / f"patched+{_FOLLOWUP}-mapped-bars-s42"
        self.assertEqual(self.sizes(mended), [])

        # The workaround is used elsewhere, and said.
        for scenario, value in (("mapped-bars", "off"), ("two-devices", "on")):
            bundle = open_bundle(out / f"patched-{scenario}-s42")
            place = bundle.manifest.inputs.place
            assert isinstance(place, HostProvenance)
            used = place.source.properties.split(",")
            self.assertIn(f"x-no-mmap={value}", used)
            explained = "x-no-mmap" in place.source.reasons
            self.assertEqual(explained, value == "on")
