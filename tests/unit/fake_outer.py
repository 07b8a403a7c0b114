# SPDX-License-Identifier: GPL-2.0-or-later
"""A sealed place whose outer VM is a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundles import MIGRATED
from vfio_p2p.choice import VmKernel
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.kit import Kit
from vfio_p2p.places.sealed.outer import Outer
from vfio_p2p.places.sealed.place import SealedPlace, Testbed
from vfio_p2p.qemu.program import KnownPrograms, Program, Programs

# The effect of a VM with a job, on the host's side of its devices.
GOOD = """\
import mmap, re
from vfio_p2p.places.sealed import mailbox
path = re.search("/proc/self/fd/[0-9]+", " ".join(sys.argv)).group()
with open(path, "r+b") as file:
    region = mmap.mmap(file.fileno(), mailbox.SIZE_BYTES)
(folder / "job").mkdir(exist_ok=True)
(folder / "seed").write_text(str(mailbox.receive(region, folder / "job")))
mailbox.post(region, folder / "out")
"""


@dataclass(frozen=True)
class FakeTestbed:
    """The parts of a sealed place; any of them can be replaced."""

    outer: Outer
    image: Image

    def place(self, *programs: Program) -> SealedPlace:
        """Make a place that knows these programs."""
        return self.with_programs(KnownPrograms(programs))

    def with_programs(self, programs: Programs) -> SealedPlace:
        """Make a place that looks its programs up."""
        return SealedPlace(
            self.image.driver,
            programs,
            testbeds={VmKernel.DEBIAN: Testbed(self.image, self.outer)},
        )


def outer_vm(folder: Path) -> Callable[[str], FakeTestbed]:
    """Make testbeds whose outer VM is a script.

    :param folder: What such a VM leaves is in its ``out``.
    """
    out = folder / "out"
    (out / "source").mkdir(parents=True)
    (out / "source" / "trace.log").write_text("trace")
    (out / "result.json").write_bytes(MIGRATED.to_json())
    image = Image("0" * 32, folder / "image", {}, Kit(folder / "kit", {}))
    image.path.mkdir()
    image.initramfs.write_bytes(b"")
    outer = folder / "qemu-system-x86_64"

    def make(script: str) -> FakeTestbed:
        outer.write_text(
            f"#!{sys.executable}\n"
            "import os, sys, time\n"
            "from pathlib import Path\n"
            f"folder = Path({str(folder)!r})\n"
            "Path('console.txt').write_text('Linux\\noops\\n\\n')\n"
            f"{script}"
        )
        outer.chmod(0o755)
        return FakeTestbed(
            Outer((str(outer),), os.environ, "QEMU 7.2", ""), image
        )

    return make
