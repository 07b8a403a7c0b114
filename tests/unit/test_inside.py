# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules that go into the testbed's VM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vfio_p2p import resources
from vfio_p2p.choice import VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.places.sealed.compiler import Compiler
from vfio_p2p.places.sealed.image import ImageParts, image_key
from vfio_p2p.places.sealed.kernel import KernelBuild
from vfio_p2p.places.sealed.kit import Kit, read_recipe
from vfio_p2p.places.sealed.modules import ENTRY, PACKAGE, modules_inside

EMPTY = {
    "__init__.py",
    "devices/__init__.py",
    "machine/__init__.py",
    "places/__init__.py",
    "places/sealed/__init__.py",
    "scenario/__init__.py",
}
MODULES = {
    "devices/driver.py",
    "devices/kernelfs.py",
    "devices/mtty.py",
    "devices/p2psim.py",
    "devices/p2pvf.py",
    "machine/errors.py",
    "machine/qemu.py",
    "machine/qmp.py",
    "machine/session.py",
    "tells.py",
    "places/sealed/inside.py",
    "places/sealed/mailbox.py",
    "scenario/argv.py",
    "scenario/cleanup.py",
    "scenario/course.py",
    "scenario/device.py",
    "scenario/encryption.py",
    "scenario/fault.py",
    "scenario/hotplug.py",
    "scenario/leg.py",
    "scenario/outcome.py",
    "scenario/relay.py",
    "scenario/result.py",
    "scenario/runner.py",
    "scenario/session.py",
    "scenario/slots.py",
    "scenario/snapshot.py",
    "scenario/step.py",
    "scenario/values.py",
    "side.py",
    "uapi.py",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's Python files, to be changed."""
    copy = tmp_path / PACKAGE
    shutil.copytree(
        resources.resource(),
        copy,
        ignore=lambda folder, names: {
            name
            for name in names
            if (not name.endswith(".py") and not Path(folder, name).is_dir())
            or name in ("data", "__pycache__", "library")
        },
    )
    return copy


def key_of(package: Path) -> str:
    """The key of the image that this package would get."""
    packages = {"linux-image-6.12": "6.12"}
    parts = ImageParts(
        read_recipe(),
        Kit(Path("/kit"), packages),
        KernelBuild(VmKernel.DEBIAN, "k", Path("/linux"), (), "", {}),
        Driver.P2PSIM,
        {},
        Compiler({}, "gcc 12"),
    )
    return image_key(parts, modules_inside(package))


def test_the_whole_set() -> None:
    """Think twice before you add a module: each change makes all runs new."""
    found = modules_inside(resources.resource())
    assert {name for name, data in found.items() if data} == MODULES
    assert {name for name, data in found.items() if not data} == EMPTY


def test_no_module_outside_of_the_set_matters(package: Path) -> None:
    before = key_of(package)
    changed = 0
    for path in package.rglob("*.py"):
        if str(path.relative_to(package)) not in MODULES:
            with path.open("a") as file:
                file.write("# changed\n")
            changed += 1
    assert changed > 100
    assert key_of(package) == before
    (package / "new.py").write_text("")
    assert key_of(package) == before


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_of_the_set_matters(package: Path, name: str) -> None:
    before = key_of(package)
    with (package / name).open("a") as file:
        file.write("# changed\n")
    assert key_of(package) != before


def test_the_set_is_enough(package: Path, tmp_path: Path) -> None:
    """The VM's program can be imported where there is nothing else."""
    alone = tmp_path / "alone"
    for name, data in modules_inside(package).items():
        path = alone / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    script = (
        "import sys\n"
        f"import {ENTRY} as entry\n"
        f"assert entry.__file__.startswith({str(alone)!r})\n"
        "print('ctypes' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(alone)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_only_type_checkers_read_it(package: Path) -> None:
    path = package / "side.py"
    path.write_text(
        path.read_text()
        + "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from vfio_p2p.oracle import model\n"
        "else:\n"
        "    from vfio_p2p import names\n"
    )
    added = modules_inside(package).keys() - EMPTY - MODULES
    assert added == {"names.py"}


def test_a_name_of_a_package_brings_its_init(package: Path) -> None:
    path = package / "uapi.py"
    path.write_text(path.read_text() + "import vfio_p2p.side\n")
    assert modules_inside(package).keys() == EMPTY | MODULES
    path.write_text(
        path.read_text() + "from vfio_p2p.oracle import Finding\n"
    )
    found = modules_inside(package)
    assert found["oracle/__init__.py"]
    assert found["oracle/rules.py"]
    assert found["trace/formats.py"]
