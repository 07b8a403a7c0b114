# SPDX-License-Identifier: GPL-2.0-or-later
"""The kit's compiler, and the files of a kit that the image gets."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from vfio_p2p.errors import BuildError, HostError, TestbedError
from vfio_p2p.places.sealed.compiler import call, compiler
from vfio_p2p.places.sealed.image import copy_tree
from vfio_p2p.places.sealed.kit import ImageRecipe, Kit, read_recipe

GCC = "x86_64-linux-gnu-gcc-12"


@pytest.fixture
def recipe() -> ImageRecipe:
    """The recipe, with one program under two names, and one library."""
    return msgspec.structs.replace(
        read_recipe(),
        tools={"gcc": GCC, "cc": GCC},
        tool_libraries=("libisl.so.23",),
    )


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """A kit whose compiler tells how it was called."""
    made = Kit(tmp_path / "kit", {})
    gcc = made.root / "usr" / "bin" / GCC
    gcc.parent.mkdir(parents=True)
    gcc.write_text(
        "#!/bin/sh\n"
        'echo "gcc 12"\n'
        'echo "$LD_LIBRARY_PATH" "$CC" "$LANG"\n'
        '[ -e "$LD_LIBRARY_PATH/libisl.so.23" ]\n'
    )
    gcc.chmod(0o755)
    library = made.root / "usr/lib/x86_64-linux-gnu/libisl.so.23"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    return made


def test_make_finds_the_kits_compiler(
    recipe: ImageRecipe, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CC", "CFLAGS", "MAKEFLAGS", "LANG", "LD_PRELOAD"):
        monkeypatch.setenv(name, "x")
    with compiler(recipe, kit) as tools:
        assert tools.version == "gcc 12"
        found = shutil.which("cc", path=tools.environment["PATH"])
        assert found
        assert Path(found).resolve() == kit.root / "usr" / "bin" / GCC
        done = subprocess.run(
            ["cc"],
            env=dict(tools.environment),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        folder = done.stdout.splitlines()[1].strip()
        assert os.listdir(folder) == ["libisl.so.23"]
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    "name", [f"usr/bin/{GCC}", "usr/lib/x86_64-linux-gnu/libisl.so.23"]
)
def test_a_kit_that_lacks_a_part(
    recipe: ImageRecipe, kit: Kit, name: str
) -> None:
    (kit.root / name).unlink()
    with (
        pytest.raises(TestbedError, match=f"no .*{Path(name).name}"),
        compiler(recipe, kit),
    ):
        pass


def test_a_compiler_that_does_not_run(recipe: ImageRecipe, kit: Kit) -> None:
    gcc = kit.root / "usr" / "bin" / GCC
    gcc.write_text("#!/bin/sh\necho 'GLIBC_2.36 not found' >&2\nexit 1\n")
    with (
        pytest.raises(HostError, match="does not run here: GLIBC_2") as e,
        compiler(recipe, kit),
    ):
        pass
    assert "Debian 12" in e.value.hint


def test_the_log_of_a_program_that_fails(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "make.log"
    script = "echo one; echo two >&2; exit 2"
    with pytest.raises(BuildError, match="sh failed") as caught:
        call(["sh", "-c", script], tmp_path, log, package="dash")
    assert caught.value.tail == "one\ntwo"
    assert log.read_text() == "one\ntwo\n"


def test_no_file_of_the_machine_is_copied(tmp_path: Path) -> None:
    """Debian's Python has a link into /etc, which any machine may have."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "test").mkdir(parents=True)
    (source / "a.py").write_text("a")
    (source / "test" / "b.py").write_text("b")
    (source / "c.py").symlink_to("a.py")
    (tmp_path / "etc.py").write_text("etc")
    (source / "d.py").symlink_to(tmp_path / "etc.py")
    (source / "e.py").symlink_to("../etc.py")
    copy_tree(source, target, ("test",))
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "a.py": "a", "c.py": "a",
    }
