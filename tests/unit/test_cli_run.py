# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p run``, with an outer VM that is a script."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from builds import build_of
from fake_outer import GOOD, outer_vm
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.cli import main, run
from vfio_p2p.errors import BundleError
from vfio_p2p.qemu import Source
from vfio_p2p.series import default_base, parse_variant


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a source, compilers and VMs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = default_base()
    source = Source("5" * 64, "debian", "10.0.99", "x", tmp_path, {})
    binary = tmp_path / "qemu"
    found = shutil.which("true")
    assert found
    shutil.copy(found, binary)
    testbed = outer_vm(tmp_path)(GOOD)
    made = build_of(
        source,
        parse_variant(base, "patched"),
        "QEMU emulator version 10.0.99",
        binary,
    )
    for name, fake in {
        "open_place": lambda _, driver, programs: testbed.with_programs(
            programs
        ),
        "choose_source": lambda _: (base, source),
        "choose_variants": lambda *_: [SimpleNamespace(name="patched")],
        "build_all": lambda *_: [made],
    }.items():
        monkeypatch.setattr(run, name, fake)


def files(folder: Path) -> list[str]:
    """Names of all that is in a folder."""
    return [path.name for path in folder.iterdir()]


def test_zip(tmp_path: Path) -> None:
    out = tmp_path / "bundles" / "b.zip"
    main(["run", "two-devices", "--out", str(out)])
    assert files(out.parent) == ["b.zip"]
    assert open_bundle(out).scenario.name == "two-devices"


def test_zip_that_is_not_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack(bundle: Bundle, path: Path) -> None:
        assert files(path.parent) == [bundle.path.name]
        raise BundleError("too large")

    monkeypatch.setattr(run, "pack", pack)
    out = tmp_path / "bundles" / "b.zip"
    assert main(["run", "two-devices", "--out", str(out)]) == 2
    assert files(out.parent) == []
