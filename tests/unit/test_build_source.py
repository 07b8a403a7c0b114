# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources are identified by their content; other folders are refused."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from small_series import make_small_tree
from vfio_p2p.errors import MissingToolError, NoSpaceError, SourceError
from vfio_p2p.plans.setting import Origin
from vfio_p2p.plans.sources import Chosen, choose
from vfio_p2p.plans.workshop import LOCAL
from vfio_p2p.progress import SILENT
from vfio_p2p.qemu import Source, find_source
from vfio_p2p.series import find_base
from vfio_p2p.series.git import Revision

pytestmark = pytest.mark.usefixtures("cache")

# git may not know the user's name.
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@x", "-C")


def find(path: Path) -> Source:
    return find_source(path, "10.0")


def pack(tree: Path, suffix: str) -> Path:
    path = tree.with_name(f"qemu.tar.{suffix}")
    subprocess.run(
        ["tar", "-C", tree.parent, "-caf", path, tree.name], check=True
    )
    return path


def commit(tree: Path) -> None:
    subprocess.run(["git", "init", "-q", tree], check=True)
    subprocess.run([*GIT, tree, "add", "-A"], check=True)
    subprocess.run([*GIT, tree, "commit", "-qm", "x"], check=True)


needs_bzip2 = pytest.mark.skipif(
    not shutil.which("bzip2"), reason="tar has no bzip2 to call"
)


@pytest.mark.parametrize(
    "suffix", ["xz", "gz", pytest.param("bz2", marks=needs_bzip2)]
)
def test_the_key_is_the_content(tree: Path, suffix: str) -> None:
    folder = find(tree)
    tarball = find(pack(tree, suffix))
    assert (folder.kind, tarball.kind) == ("folder", "tarball")
    assert folder.version == tarball.version == "10.0.99"
    assert folder.key == tarball.key
    assert tarball.read("util/other.c") == folder.read("util/other.c")


@pytest.mark.parametrize("change", ["content", "mode", "link", "name", "new"])
def test_any_change_is_another_source(tree: Path, change: str) -> None:
    before = find(tree).key
    other = tree / "util/other.c"
    match change:
        case "content":
            other.write_text("")
        case "mode":
            other.chmod(0o755)
        case "link":
            (tree / "link").unlink()
            (tree / "link").symlink_to("configure")
        case "name":
            other.rename(tree / "util/another.c")
        case "new":
            (tree / "util/new.c").touch()
    assert find(tree).key != before


def test_kinds(tree: Path) -> None:
    source = find(tree)
    kinds = {"configure": "x", "VERSION": "f", "link": "l", "util": None}
    assert {x: source.kind_of(x) for x in kinds} == kinds
    assert source.read("link") == b"VERSION"


def test_files_that_are_left_out(tree: Path) -> None:
    (tree / "b0").mkdir()
    (tree / "b0" / "build.ninja").touch()
    (tree / "b0" / "x.o").touch()
    for source in find(tree), find(pack(tree, "gz")):
        assert "roms/Makefile" in source.files
        assert "roms/seabios/main.c" not in source.files
        assert "b0/x.o" not in source.files


def test_firmware_sources_are_not_unpacked(tree: Path) -> None:
    source = find(pack(tree, "gz"))
    assert (source.tree / "roms/Makefile").exists()
    assert not (source.tree / "roms/seabios/main.c").exists()


def test_a_checkout_with_its_local_changes(tree: Path) -> None:
    (tree / ".gitignore").write_text("*.o\n/subprojects/keycodemapdb\n")
    (tree / "gone.c").touch()
    commit(tree)
    (tree / "subprojects/keycodemapdb/.git").mkdir()
    (tree / "subprojects/keycodemapdb/.git/config").touch()
    plain = find(tree)
    (tree / "gone.c").unlink()
    (tree / "new.c").touch()
    (tree / "other.o").touch()
    (tree / "b0").mkdir()
    (tree / "b0" / "build.ninja").touch()
    (tree / "util/other.c").write_text("changed")
    changed = find(tree)
    assert changed.files.keys() - plain.files.keys() == {"new.c"}
    assert plain.files.keys() - changed.files.keys() == {"gone.c"}
    assert changed.read("util/other.c") == b"changed"
    # meson fetches this file, and git ignores it.
    assert "subprojects/keycodemapdb/README" in plain.files
    assert not any(".git/" in x for x in plain.files)


def test_a_submodule_is_no_file(tree: Path, tmp_path: Path) -> None:
    inner = tree / "roms" / "inner"
    inner.mkdir()
    (inner / "x").touch()
    commit(inner)
    subprocess.run(["git", "init", "-q", tree], check=True)
    subprocess.run(
        [*GIT, tree, "-c", "advice.addEmbeddedRepo=false", "add", "-A"],
        check=True,
        capture_output=True,
    )
    assert "roms/inner" not in find(tree).files


def test_a_tarball_is_unpacked_once(tree: Path, cache: Path) -> None:
    path = pack(tree, "gz")
    first = find(path)
    (first.tree / "VERSION").touch()
    seen = (first.tree / "VERSION").stat().st_mtime_ns
    assert find(path) == first
    assert (first.tree / "VERSION").stat().st_mtime_ns == seen


@pytest.mark.parametrize("damage", [b"", b"{", b'{"VERSION": 1}', b"\xff"])
def test_a_damaged_listing_is_made_again(
    tree: Path, cache: Path, damage: bytes
) -> None:
    path = pack(tree, "gz")
    first = find(path)
    listing = first.tree.parent / "files.json"
    listing.write_bytes(damage)
    assert find(path) == first
    assert listing.read_bytes() != damage


def test_an_interrupted_unpacking_is_done_again(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tree, "gz")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vfio_p2p.qemu.source._identify", interrupt)
        with pytest.raises(KeyboardInterrupt):
            find(path)
    assert [x.suffix for x in (cache / "sources").iterdir()] == [".lock"]
    assert find(path).read("VERSION") == b"10.0.99\n"


def test_a_file_that_changed_meanwhile(tree: Path) -> None:
    source = find(tree)
    (tree / "util/other.c").write_text("changed")
    with pytest.raises(SourceError, match="changed while"):
        source.read("util/other.c")
    (tree / "util/other.c").unlink()
    with pytest.raises(SourceError, match="No such file"):
        source.read("util/other.c")


def bad(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        find(path)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return str(caught.value)


def test_a_path_that_is_missing(tmp_path: Path) -> None:
    assert "no such file" in bad(tmp_path / "no")


@pytest.mark.parametrize(
    "name", ["VERSION", "configure", "meson.build", "hw/vfio/trace-events"]
)
def test_a_folder_that_is_not_qemu(tree: Path, name: str) -> None:
    (tree / name).unlink()
    assert f"it has no {name}" in bad(tree)
    assert f"it has no {name}" in bad(pack(tree, "gz"))


def test_subprojects_that_were_not_fetched(tree: Path) -> None:
    (tree / "subprojects/keycodemapdb/README").unlink()
    assert "subprojects" in bad(tree)


@pytest.mark.parametrize("version", ["", "ten", "10.0\n", "10.0.1\n10.0.2"])
def test_a_version_that_is_none(tree: Path, version: str) -> None:
    (tree / "VERSION").write_text(version)
    assert "not a QEMU version" in bad(tree)


def test_a_file_that_is_no_tarball(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\0" * 100 + b"junk")
    assert "not a whole tarball" in bad(path)


def test_a_cut_tarball(tree: Path, cache: Path) -> None:
    path = pack(tree, "xz")
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a whole tarball" in bad(path)
    assert [x.suffix for x in (cache / "sources").iterdir()] == [".lock"]


def evil(tree: Path, *members: tarfile.TarInfo) -> Path:
    path = pack(tree, "gz")
    plain = tree.with_name("evil.tar")
    with tarfile.open(path) as old, tarfile.open(plain, "w") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        for member in members:
            new.addfile(member, io.BytesIO(b"evil"[: member.size]))
    return plain


def member(name: str, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 0 if link else 4
    info.type = tarfile.SYMTYPE if link else tarfile.REGTYPE
    info.linkname = link
    return info


def test_a_tarball_stays_inside(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    bad(evil(tree, member("q/../../../../outside/x")))
    bad(
        evil(
            tree,
            member("qemu/d", str(outside)),
            member("qemu/d/x"),
        )
    )
    assert os.listdir(outside) == []


@pytest.mark.parametrize(
    ("target", "inside"),
    [
        ("other.c", True),
        ("../hw/vfio/trace-events", True),
        ("../../outside", False),
        ("/etc/passwd", False),
    ],
)
def test_links_in_a_tarball(tree: Path, target: str, inside: bool) -> None:
    path = evil(tree, member("qemu/util/link", target))
    if inside:
        assert "util/link" in find(path).files
    else:
        assert f"util/link is a link to {target}, which is outside" in bad(
            path
        )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a FIFO"),
    ],
)
def test_a_tarball_makes_no_devices(
    tree: Path, cache: Path, kind: bytes, words: str
) -> None:
    info = tarfile.TarInfo("qemu/util/a device")
    info.type = kind
    info.devmajor, info.devminor = 1, 3
    assert f"the member qemu/util/a device is {words}" in bad(evil(tree, info))
    # Nothing was unpacked.
    assert [x.suffix for x in (cache / "sources").iterdir()] == [".lock"]


def test_a_tarball_that_would_fill_the_disk(tree: Path, cache: Path) -> None:
    """The listing is not read to its end, which would take a while."""
    (tree / "large").touch()
    os.truncate(tree / "large", 1 << 40)
    path = tree.with_name("large.tar")
    subprocess.run(
        ["tar", "-C", tree.parent, "-cSf", path, tree.name], check=True
    )
    assert path.stat().st_size < 1 << 20
    assert "more than 4 GiB" in bad(path)
    assert [x.suffix for x in (cache / "sources").iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["VERSION", "disk.qcow2"])
def test_a_file_that_fills_the_memory(tree: Path, name: str) -> None:
    (tree / name).touch()
    os.truncate(tree / name, 1 << 40)
    assert f"{name}: larger than 256 MiB" in bad(tree)


def test_a_subproject_that_is_elsewhere(tree: Path, tmp_path: Path) -> None:
    (tree / "subprojects/one.wrap").touch()
    (tree / "subprojects/two.wrap").touch()
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere/x").touch()
    (tree / "subprojects/two").symlink_to("../elsewhere")
    assert "subprojects/two/x" in find(tree).files
    (tmp_path / "outside").mkdir()
    (tree / "subprojects/one").symlink_to(tmp_path / "outside")
    assert "subprojects/one is a link out of the tree" in bad(tree)


def test_a_full_disk(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tarball = pack(tree, "gz")
    program = tmp_path / "bin" / "tar"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho 'tar: x: No space left on device' >&2\nexit 2\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(NoSpaceError):
        find(tarball)


def test_a_missing_unpacker(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tarball = pack(tree, "xz")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tar").symlink_to(str(shutil.which("tar")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingToolError) as caught:
        find(tarball)
    assert (caught.value.tool, caught.value.package) == ("xz", "xz-utils")


def test_git_is_missing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tree)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="git"):
        find(tree)


def test_git_refuses_the_checkout(tree: Path) -> None:
    (tree / ".git").write_text("gitdir: nowhere\n")
    assert "not a git repository" in bad(tree)


@pytest.mark.parametrize("stock", [True, False])
def test_newer_qemu_is_judged_as_it_is(tmp_path: Path, stock: bool) -> None:
    tree = make_small_tree(tmp_path / "qemu", "12.3.4", stock=stock)
    (tree / "subprojects/keycodemapdb").mkdir(parents=True)
    for name in (
        "configure", "meson.build", "subprojects/keycodemapdb/README"
    ):
        (tree / name).touch()
    origin = Origin(source=tree)
    if not stock:
        with pytest.raises(SourceError, match="no base for QEMU"):
            choose(origin, SILENT, LOCAL)
        return
    chosen = choose(origin, SILENT, LOCAL)
    assert (chosen.base.name, chosen.source.version) == ("v12.3", "12.3.4")
    assert chosen.default_variants == ("stock",)


@pytest.mark.parametrize(
    ("base", "variants"),
    [("v10.0", ("base", "patched")), ("v10.2", ("stock",))],
)
def test_what_is_judged_by_default(
    tree: Path, base: str, variants: tuple[str, ...]
) -> None:
    chosen = Chosen(find_base(base), find(tree))
    assert chosen.default_variants == variants


def test_the_revision_of_a_checkout(tree: Path) -> None:
    assert find(tree).revision is None
    commit(tree)
    shown = subprocess.run(
        ["git", "-C", tree, "log", "-1", "--format=%H %ct"],
        check=True, capture_output=True, text=True,
    ).stdout
    name, time_s = shown.split()
    assert find(tree).revision == Revision(name, int(time_s))
    (tree / "util/other.c").write_text("changed")
    assert find(tree).revision == Revision(f"{name}+", int(time_s))


def test_a_checkout_without_a_commit(tree: Path) -> None:
    subprocess.run(["git", "init", "-q", tree], check=True)
    assert find(tree).revision is None
