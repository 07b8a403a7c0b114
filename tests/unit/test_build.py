# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds of a fake QEMU, with the real ninja and compiler."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_qemu import other_patch
from test_host_process import wait_until_gone
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError, MissingToolError, NoSpaceError
from vfio_p2p.qemu import Build, Checks, build, find_source
from vfio_p2p.qemu.recipe import BuildRecipe
from vfio_p2p.qemu.store import Store, Stored
from vfio_p2p.qemu.worktree import WorkTree
from vfio_p2p.series import Patch, Variant
from vfio_p2p.series.git import Revision

pytestmark = pytest.mark.usefixtures("cache")

STOCK = Variant("stock", ())

BUILD = """\
import sys
from pathlib import Path
from vfio_p2p.qemu import build, find_source
from vfio_p2p.series import Variant
source = find_source(Path(sys.argv[1]), "10.0")
def progress(done, total, text):
    print(text, flush=True)

made = build(source, Variant("stock", ()), progress)
print(made.key, made.reused)
"""


def variant(*texts: str) -> Variant:
    names = ["stock", *texts]
    steps = zip(names, texts, strict=False)
    return Variant(
        "-".join(texts),
        tuple(Patch(f"{y}.patch", other_patch(x, y)) for x, y in steps),
    )


def make(tree: Path, which: Variant = STOCK) -> Build:
    return build(find_source(tree, "10.0"), which)


def log_of(made: Build) -> list[str]:
    lines = (made.directory / "build.log").read_text().splitlines()
    return [x.partition("] ")[2] or x.split()[0] for x in lines]


def stored(cache: Path) -> list[str]:
    """Return the names in the store, with partial builds and the lock."""
    return os.listdir(cache / "builds")


def test_the_folder_of_a_build_describes_it(tree: Path) -> None:
    made = make(tree)
    assert made.version == "QEMU emulator version 10.0.99 stock"
    assert sorted(os.listdir(made.directory)) == [
        "build.json", "build.log", "qemu-system-x86_64"
    ]
    info = json.loads((made.directory / "build.json").read_bytes())
    assert info["format"] == 1
    assert info["binary_sha256"] == made.sha256
    assert info["binary_bytes"] == made.path.stat().st_size
    assert info["origin"] == str(tree)
    assert info["inputs"]["changed"] == {}
    assert "--disable-werror" in info["inputs"]["configure"]
    assert "CONFIG_VFIO_PCI=y" in info["inputs"]["devices"]
    assert len(log_of(made)) == 4


def test_a_build_of_a_checkout_knows_its_commit(tree: Path) -> None:
    source = find_source(tree, "10.0")
    revision = Revision("c0ffee", 1_600_000_000)
    made = build(replace(source, revision=revision), STOCK)
    info = json.loads((made.directory / "build.json").read_bytes())
    assert info["revision"] == "c0ffee"
    assert info["revision_s"] == 1_600_000_000


def test_the_arguments_of_configure(tree: Path) -> None:
    made = build(
        find_source(tree, "10.0"), STOCK, checks=Checks(werror=True)
    )
    line = (made.directory / "build.log").read_text().splitlines()[0]
    assert f"--python={sys.executable}" in line
    assert "--enable-werror" in line
    assert "--with-devices-x86_64=vfio-p2p" in line


def test_a_sanitizer(tree: Path) -> None:
    """The store keeps a build with it apart, and its symbols."""
    plain = make(tree)
    made = build(
        find_source(tree, "10.0"), STOCK, checks=Checks(address=True)
    )
    assert made.key != plain.key
    assert "--enable-asan" in made.job.arguments
    assert made.job.symbols
    assert not plain.job.symbols
    recipe = BuildRecipe.load()
    assert "--enable-sanitizers" in recipe.arguments(
        Checks(address=True), "8.1.0"
    )


def test_files_that_a_build_adds(tree: Path, cache: Path) -> None:
    make(tree)
    (work,) = (x for x in (cache / "work").iterdir() if x.is_dir())
    made = work / "tree"
    devices = made / "configs/devices/x86_64-softmmu/vfio-p2p.mak"
    assert "CONFIG_Q35=y\n" in devices.read_text()
    assert (made / "pc-bios/edk2-x86_64-code.fd.bz2").is_file()
    assert (made / "link").readlink() == Path("VERSION")
    # Other installed packages do not change the binary.
    assert (made / "meson.build").read_text() == "v = false\n"


def test_a_build_is_reused(tree: Path) -> None:
    first = make(tree)
    second = make(tree)
    assert not first.reused
    assert second.reused
    assert (first.path, first.sha256) == (second.path, second.sha256)


def test_only_changed_files_are_compiled(tree: Path) -> None:
    make(tree)
    made = make(tree, variant("one"))
    assert made.version.endswith("one")
    assert log_of(made)[0] == "Compiling ../tree/util/other.c"
    assert len(log_of(made)) == 2


def test_a_reverted_file_is_compiled(tree: Path, cache: Path) -> None:
    stock = make(tree)
    make(tree, variant("one"))
    shutil.rmtree(stock.directory)
    again = make(tree)
    assert again.version.endswith("stock")
    assert len(log_of(again)) == 2
    assert again.sha256 == stock.sha256


def test_only_edited_files_are_compiled(tree: Path) -> None:
    make(tree)
    other = tree / "util/other.c"
    other.write_text(other.read_text().replace("stock", "edited"))
    made = make(tree)
    assert made.version.endswith("edited")
    assert len(log_of(made)) == 2


def test_files_are_added_and_removed(tree: Path, cache: Path) -> None:
    (tree / "old").mkdir()
    (tree / "old" / "file").touch()
    make(tree)
    shutil.rmtree(tree / "old")
    (tree / "old").write_text("now a file")
    (tree / "util/other.c").touch()
    make(tree)
    (work,) = (x for x in (cache / "work").iterdir() if x.is_dir())
    assert (work / "tree/old").read_text() == "now a file"


def test_the_key_depends_on_the_patched_files(tree: Path) -> None:
    first = make(tree, variant("one", "two"))
    second = make(tree, variant("two"))
    assert second.reused
    assert second.key == first.key
    assert second.variant == "two"


def test_the_same_content_from_elsewhere_is_the_same_build(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both builds begin before one is in the store, each in a work folder.
    other = shutil.copytree(tree, tree.with_name("other"), symlinks=True)
    find = Store.find
    asked = []

    def find_late(store: Store, key: str) -> Stored | None:
        asked.append(key)
        return find(store, key) if len(asked) % 3 == 0 else None

    monkeypatch.setattr(Store, "find", find_late)
    first = make(tree)
    inode = first.path.stat().st_ino
    assert make(other).key == first.key
    assert len(list((cache / "work").glob("*/tree.json"))) == 2
    assert first.path.stat().st_ino == inode
    assert sorted(stored(cache)) == [first.key, "lock"]


def test_warnings_as_errors_are_another_build(tree: Path) -> None:
    made = build(
        find_source(tree, "10.0"), STOCK, checks=Checks(werror=True)
    )
    assert made.key != make(tree).key


def test_another_compiler_is_another_build(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(tree)
    wrapper = tmp_path / "bin" / "cc"
    wrapper.parent.mkdir()
    wrapper.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo other cc && exit\n'
        f'exec {shutil.which("cc")} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert make(tree).key != first.key


@pytest.mark.parametrize("damage", ["binary", "json", "missing"])
def test_a_damaged_build_is_made_again(tree: Path, damage: str) -> None:
    made = make(tree)
    match damage:
        case "binary":
            with made.path.open("ab") as file:
                file.write(b"x")
        case "json":
            (made.directory / "build.json").write_text("{")
        case "missing":
            made.path.unlink()
    again = make(tree)
    assert not again.reused
    assert again.sha256 == made.sha256
    assert make(tree).reused


def test_progress_counts_the_steps_of_ninja(tree: Path) -> None:
    seen: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, text: str) -> None:
        seen.append((done, total, text))

    build(find_source(tree, "10.0"), STOCK, progress)
    assert [x for x in seen if x[1]] == [
        (1, 3, "compiling"), (2, 3, "compiling"), (3, 3, "compiling")
    ]
    assert seen[:2] == [
        (0, 0, "copying the source"), (0, 0, "configuring")
    ]


def test_a_compile_error(tree: Path, cache: Path) -> None:
    make(tree)
    broken = Variant("x", (Patch("x", other_patch("stock", 'a"b')),))
    with pytest.raises(BuildError) as caught:
        make(tree, broken)
    error = caught.value
    assert error.exit_code == 5
    assert "ninja failed with status 1" in str(error)
    assert "other.c:1:" in error.tail
    assert error.tail.splitlines()[-1] in error.log.read_text()
    assert len(stored(cache)) == 2
    # ninja ended by itself, so the next build continues.
    assert len(log_of(make(tree, variant("one")))) == 2


def test_a_configure_error(tree: Path, cache: Path) -> None:
    configure = tree / "configure"
    good = configure.read_text()
    configure.write_text("#!/bin/sh\necho ERROR: no; exit 3\n")
    with pytest.raises(BuildError, match="configure failed") as caught:
        make(tree)
    assert caught.value.tail == "ERROR: no"
    configure.write_text(good)
    assert make(tree).version.endswith("stock")


def test_a_disk_that_fills_up(tree: Path, cache: Path) -> None:
    compile_script = tree / "scripts/compile.sh"
    good = compile_script.read_text()
    compile_script.write_text("echo cc1: No space left on device; exit 1\n")
    with pytest.raises(NoSpaceError):
        make(tree)
    compile_script.write_text(good)
    assert "configured" in log_of(make(tree))


def test_a_full_disk(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(NoSpaceError, match="1024 MiB needed, 1 MiB free"):
        make(tree)


def test_no_room_for_the_result(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", full)
        with pytest.raises(NoSpaceError):
            make(tree)
    assert stored(cache) == ["lock"]
    assert not make(tree).reused


def test_a_binary_that_does_not_run(tree: Path, cache: Path) -> None:
    other = tree / "util/other.c"
    good = other.read_text()
    other.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n"
        'const char *other(void) { fputs("no\\n", stderr); abort(); }\n'
    )
    with pytest.raises(BuildError, match="failed with status -6") as caught:
        make(tree)
    assert caught.value.tail == "no"
    assert caught.value.log.read_text().endswith("no\n")
    assert stored(cache) == ["lock"]
    other.write_text(good)
    assert not make(tree).reused


def test_a_disk_that_fills_up_in_strip(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "strip"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho strip: No space left on device >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(NoSpaceError):
        make(tree)


def test_a_missing_tool_is_reported_at_once(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError):
        make(tree)
    assert not (cache / "work").exists()


def test_the_environment_makes_no_difference(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-DX")
    (tree / "scripts/compile.sh").write_text(
        'test -z "$CFLAGS" && exec cc -c -o "$2" "$1"\n'
    )
    make(tree)


def test_two_processes_share_a_build(tree: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    configure = tree / "configure"
    text = configure.read_text()
    configure.write_text(text.replace("\n", f"\ncat {fifo}\n", 1))
    argv = [sys.executable, "-c", BUILD, str(tree)]
    one = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    # Opening the pipe waits for the first build's configure, and halts it.
    with fifo.open("w"):
        two = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert two.stdout
        assert two.stdout.readline() == "waiting for another build\n"
    results = [x.communicate()[0].splitlines()[-1] for x in (one, two)]
    key = results[0].split()[0]
    assert results == [f"{key} False", f"{key} True"]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_leaves_nothing_that_looks_whole(
    tree: Path, tmp_path: Path, cache: Path, signum: signal.Signals
) -> None:
    script = tree / "scripts/compile.sh"
    good = script.read_text()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script.write_text(f"echo $$ > {fifo}\nexec sleep 600\n")
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, str(tree)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        compiler = int(fifo.read_text().split()[0])
        process.send_signal(signum)
    assert process.returncode == -signum
    wait_until_gone(compiler)
    assert not (cache / "builds").exists()
    script.write_text(good)
    # The state of the folder is unknown, so everything is made anew.
    assert "configured" in log_of(make(tree))


def test_a_fresh_folder_needs_more_room(tmp_path: Path) -> None:
    work = WorkTree(tmp_path / "work")
    fresh = work.needed_bytes
    work.home.mkdir()
    (work.home / "tree.json").write_text("{}")
    assert work.needed_bytes < fresh


def test_the_command(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["build", "--source", str(tree), "--variant", "stock"]
    assert main([*argv, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == 1
    assert document["base"] == "v10.0"
    assert document["source"]["version"] == "10.0.99"
    (item,) = document["builds"]
    assert item["variant"] == "stock"
    assert not item["reused"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out == f"stock\t{item['binary']}\n"
    assert "stock: was there already" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--base", "v7"], "unknown base 'v7'"),
        (["--variant", "x"], "unknown variant 'x'"),
        (["--mutant", "x"], "unknown mutant or follow-up 'x'"),
        # The fake lacks the files that the series patches.
        (["--variant", "patched"], "0001-vfio-migration"),
        # The variants that could be built are not built either.
        (["--variant", "stock", "--variant", "base"], "0001-vfio-migration"),
    ],
)
def test_bad_input(
    tree: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    words: str,
) -> None:
    assert main(["build", "--source", str(tree), *argv]) == 2
    assert words in capsys.readouterr().err
    assert not (cache / "work").exists()


@pytest.mark.parametrize(
    ("version", "cxl"), [("8.1.0", False), ("10.0.13", False),
                         ("10.2.0", True), ("11.1.2", True)]
)
def test_devices_that_only_newer_versions_need(
    version: str, cxl: bool
) -> None:
    devices = BuildRecipe.load().device_list(version).decode().split()
    assert "CONFIG_VFIO_PCI=y" in devices
    assert ("CONFIG_CXL=y" in devices) is cxl
