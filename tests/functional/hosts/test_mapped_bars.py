# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding 8, which only real devices show, and its follow-up."""

from __future__ import annotations

import re
from pathlib import Path

from hosting import HostTest
from vfio_p2p.bundle.provenance import HostProvenance
from vfio_p2p.bundle.read import open_bundle

_FOLLOWUP = "mapped-pages-synced"
_MESSAGE = re.compile(
    r"Failed to get dirty bitmap for iova: 0x[0-9a-f]+ size: (0x[0-9a-f]+): "
    "Invalid argument"
)
_PAGE_BYTES = 4096


class MappedBars(HostTest):
    """A device whose BARs are mapped, with and without the follow-up."""

    def sizes(self, folder: Path) -> list[int]:
        """Return the sizes that the kernel refused in a run."""
        text = open_bundle(folder).files["source/stderr.txt"].decode()
        return [int(x, 16) for x in _MESSAGE.findall(text)]

    def test_the_followup(self) -> None:
        out = Path(self.workdir, "out")
        if self.own:
            self.vfio_p2p("host", "prepare", "--at", self.at)
        document = self.report(
            "validate", "--followups", "--at", self.at, "--out", str(out)
        )
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
