# SPDX-License-Identifier: GPL-2.0-or-later
"""How many patches of the series a QEMU under test has."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import make_bundle
from vfio_p2p.bundle.manifest import Inputs
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.verdict.due import patches_of


@pytest.mark.parametrize(
    ("variant", "patches"),
    [
        ("base", 0),
        ("base+m", 0),
        ("patch-1", 1),
        ("patch-5+m", 5),
        ("patch-6", 6),
        ("patched", 6),
        ("patched+swap", 6),
        ("stock", 6),
    ],
)
def test_patches_of(tmp_path: Path, variant: str, patches: int) -> None:
    found = inputs_of(tmp_path, variant=variant)
    assert patches_of(found.source) == patches


def inputs_of(
    folder: Path, variant: str, version: str = "10.0.99"
) -> Inputs:
    path = make_bundle(folder / "x", variant=variant, version=version)
    return open_bundle(path).manifest.inputs


@pytest.mark.parametrize(
    ("version", "patches"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:7.2)", 6),
        ("QEMU emulator version 8.2.0", 6),
        ("QEMU emulator version 8.1.3 (of 2023.11)", 0),
    ],
)
def test_an_installed_qemu_goes_by_its_release(
    tmp_path: Path, version: str, patches: int
) -> None:
    found = inputs_of(tmp_path, variant="installed", version=version)
    assert patches_of(found.source) == patches
