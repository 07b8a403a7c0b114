# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundles are whole, or they are refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import NAMES, make_bundle
from hypothesis import given
from hypothesis import strategies as st
from vfio_p2p.bundle.manifest import (
    DIGEST,
    FORMAT,
    MANIFEST,
    RESULT,
    SCENARIO,
)
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.bundle.write import check_replaceable, pack, seal, writing
from vfio_p2p.cli import main
from vfio_p2p.errors import BundleError, UsageError

# In the digest's file, the manifest, and the files that it lists.
SPOTS = st.tuples(
    st.sampled_from(NAMES), st.integers(0, 1 << 16), st.integers(1, 255)
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole bundle, of which tests change copies."""
    return make_bundle(tmp_path_factory.mktemp("whole") / "bundle")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.exit_code == 2
    return caught.value.what


def test_whole_bundle_is_read(whole: Path) -> None:
    bundle = open_bundle(whole)
    assert set(bundle.files) == set(NAMES)
    assert bundle.digest == (whole / DIGEST).read_text().strip()
    assert bundle.scenario.name == "two-devices"
    assert bundle.manifest.inputs.scenario == bundle.scenario.digest


def test_same_content_has_the_same_digest(
    whole: Path, tmp_path: Path
) -> None:
    again = make_bundle(tmp_path / "again")
    assert (again / DIGEST).read_bytes() == (whole / DIGEST).read_bytes()


@given(spot=SPOTS)
def test_any_changed_byte_is_seen(
    whole: Path, tmp_path_factory: pytest.TempPathFactory,
    spot: tuple[str, int, int],
) -> None:
    name, place, flip = spot
    folder = tmp_path_factory.mktemp("copy") / "bundle"
    shutil.copytree(whole, folder)
    data = bytearray((folder / name).read_bytes())
    data[place % len(data)] ^= flip
    (folder / name).write_bytes(data)
    refusal(folder)


def test_every_byte_of_the_small_files_counts(copy: Path) -> None:
    for name in (DIGEST, RESULT):
        data = (copy / name).read_bytes()
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 0x20
            (copy / name).write_bytes(changed)
            refusal(copy)
        (copy / name).write_bytes(data)
    open_bundle(copy)


@pytest.mark.parametrize("name", NAMES)
def test_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert name in refusal(copy)


@pytest.mark.parametrize("name", NAMES)
def test_cut_file(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    refusal(copy)


@pytest.mark.parametrize("name", ["extra", "source/extra", "source/digest"])
def test_extra_file(copy: Path, name: str) -> None:
    (copy / name).write_text("hello")
    assert name in refusal(copy)


def test_file_with_the_name_of_the_manifest_elsewhere(copy: Path) -> None:
    inputs = open_bundle(copy).manifest.inputs
    (copy / "source" / MANIFEST).write_text("{}")
    seal(copy, inputs)
    assert f"source/{MANIFEST}" in open_bundle(copy).manifest.files


def forge(folder: Path, manifest: bytes) -> None:
    """Replace the manifest, and write a digest that fits."""
    (folder / MANIFEST).write_bytes(manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    (folder / DIGEST).write_text(f"{digest}\n")


def edit_manifest(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Change the manifest, and write a digest that fits."""
    tree = msgspec.json.decode((folder / MANIFEST).read_bytes())
    change(tree)
    forge(folder, msgspec.json.encode(tree))


def test_newer_format(copy: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["format"] = FORMAT + 1
        tree["inputs"] = "something that we cannot know"

    edit_manifest(copy, change)
    assert f"format {FORMAT + 1} is newer" in refusal(copy)


def test_newer_format_of_the_result(copy: Path) -> None:
    edit_manifest(copy, lambda tree: tree["result"].update(format=99))
    assert "result format 99 is newer" in refusal(copy)


def test_another_kind(copy: Path) -> None:
    edit_manifest(copy, lambda tree: tree.update(kind="photo album"))
    assert "kind" in refusal(copy)


def test_manifest_without_a_result(copy: Path) -> None:
    edit_manifest(copy, lambda tree: tree.pop("result"))
    assert "result" in refusal(copy)


DEEP = '{"format": 1, "x": %s}' % ("[" * 100_000 + "]" * 100_000)


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{}", "not JSON", '{"format": "x"}', DEEP),
        b'{"format": 3, "a": "\x9e"}',
    ],
    ids=range(6),
)
def test_manifest_that_is_none(copy: Path, text: str | bytes) -> None:
    forge(copy, text.encode() if isinstance(text, str) else text)
    assert "not a bundle" in refusal(copy)


@pytest.mark.parametrize(
    "text", [b'{"format": 9, "name": "x"}', b"rubbish", b'"\xff"']
)
def test_scenario_of_another_time(copy: Path, text: bytes) -> None:
    inputs = open_bundle(copy).manifest.inputs
    (copy / SCENARIO).write_bytes(text)
    seal(copy, inputs)
    bundle = open_bundle(copy)
    with pytest.raises(BundleError, match=r"scenario\.json"):
        _ = bundle.scenario


def test_not_a_bundle_at_all(tmp_path: Path) -> None:
    assert MANIFEST in refusal(tmp_path)
    assert "no such bundle" in refusal(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    assert "neither" in refusal(tmp_path / "text")


def test_exit_code_of_a_command(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "console.txt").write_text("changed")
    assert main(["check", str(copy)]) == 2
    assert "damaged: console.txt" in capsys.readouterr().err


@pytest.fixture(scope="module")
def packed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle as a zip file."""
    path = tmp_path_factory.mktemp("packed") / "bundle.zip"
    pack(open_bundle(whole), path)
    return path


def test_zip_holds_the_same(whole: Path, packed: Path) -> None:
    folder, archive = open_bundle(whole), open_bundle(packed)
    assert archive.digest == folder.digest
    assert archive.files == folder.files


def test_packing_is_deterministic(packed: Path, tmp_path: Path) -> None:
    again = make_bundle(tmp_path / "later")
    os.utime(again / DIGEST, (1, 1))
    pack(open_bundle(again), tmp_path / "later.zip")
    assert (tmp_path / "later.zip").read_bytes() == packed.read_bytes()


def test_zip_made_by_somebody_else(
    whole: Path, packed: Path, tmp_path: Path
) -> None:
    # The entries are in any order, and some are for folders.
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("source", *reversed(NAMES)):
            archive.write(whole / name, name)
    with zipfile.ZipFile(path) as archive:
        assert "source/" in archive.namelist()
        assert archive.namelist() != sorted(archive.namelist())
    bundle = open_bundle(path)
    assert bundle.files == open_bundle(whole).files
    pack(bundle, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


@given(keep=st.floats(0, 1, exclude_max=True))
def test_cut_zip(
    packed: Path, tmp_path_factory: pytest.TempPathFactory, keep: float
) -> None:
    data = packed.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.zip"
    path.write_bytes(data[: int(len(data) * keep)])
    refusal(path)


@given(place=st.integers(0), flip=st.integers(1, 255))
def test_changed_zip_is_refused_or_says_the_same(
    whole: Path,
    packed: Path,
    tmp_path_factory: pytest.TempPathFactory,
    place: int,
    flip: int,
) -> None:
    data = bytearray(packed.read_bytes())
    data[place % len(data)] ^= flip
    path = tmp_path_factory.mktemp("changed") / "changed.zip"
    path.write_bytes(data)
    try:
        bundle = open_bundle(path)
    except BundleError:
        return
    # The date, for example: much in a zip file is not content.
    assert bundle.files == open_bundle(whole).files


def test_manifest_that_says_it_is_huge(copy: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["files"]["console.txt"]["size_bytes"] = 300 << 20

    edit_manifest(copy, change)
    assert "too large" in refusal(copy)


@pytest.mark.parametrize("name", ["extra", "console.txt", DIGEST, MANIFEST])
def test_huge_file_is_not_read(copy: Path, name: str) -> None:
    # The file is sparse, and larger than any memory.
    with (copy / name).open("ab") as file:
        file.truncate(1 << 42)
    assert "damaged" in refusal(copy)


def test_no_bundle_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: object) -> None:
        pytest.fail("it may be a whole disk")

    monkeypatch.setattr(os, "scandir", scandir)
    assert MANIFEST in refusal(tmp_path)


@pytest.mark.parametrize("name", [*NAMES, "source", "extra"])
def test_link_is_not_followed(
    copy: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (copy / name).exists():
        (copy / name).rename(elsewhere)
    (copy / name).symlink_to(elsewhere)
    assert "bundle" in refusal(copy)


@pytest.mark.parametrize("name", ["extra", "console.txt", MANIFEST])
def test_pipe_is_not_waited_for(copy: Path, name: str) -> None:
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    refusal(copy)


def test_pipe_in_the_place_of_a_bundle(tmp_path: Path) -> None:
    pipe = tmp_path / "b.zip"
    os.mkfifo(pipe)
    assert "not a regular file" in refusal(pipe)
    with pytest.raises(UsageError, match="is there already"):
        check_replaceable(pipe)


def test_folder_in_the_place_of_a_file(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    (copy / MANIFEST).mkdir()
    assert MANIFEST in refusal(copy)


def test_file_elsewhere(copy: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["files"]["../console.txt"] = tree["files"].pop("console.txt")

    (copy / "console.txt").rename(copy.parent / "console.txt")
    edit_manifest(copy, change)
    assert "console.txt" in refusal(copy)


def test_zip_with_other_properties(whole: Path, tmp_path: Path) -> None:
    """A packer of LZMA has properties, of which some make no sense."""
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name in NAMES:
            archive.write(whole / name, name)
        first = archive.infolist()[0]
    assert open_bundle(path).files == open_bundle(whole).files
    data = bytearray(path.read_bytes())
    # APPNOTE.TXT: behind the local header and the name come two bytes of
    # LZMA's version, two of its properties' length, and the properties.
    data[first.header_offset + 30 + len(first.filename) + 4] = 0xFF
    path.write_bytes(data)
    assert "whole zip" in refusal(path)


def test_zip_with_a_nameless_file(packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = data.rfind(b"PK\1\2")
    (length,) = struct.unpack_from("<H", data, at + 28)
    # The name becomes a comment.
    struct.pack_into("<HHH", data, at + 28, 0, 0, length)
    path = tmp_path / "nameless.zip"
    path.write_bytes(data)
    assert "without a name" in refusal(path)


def test_zip_with_a_huge_file_is_not_unpacked(
    copy: Path, tmp_path: Path
) -> None:
    path = tmp_path / "huge.zip"
    pack(open_bundle(copy), path)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("extra", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert "damaged: extra" in refusal(path)


def test_interrupted_writing_leaves_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "out" / "bundle"

    def interrupted() -> None:
        with writing(path) as partial:
            (partial / RESULT).write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(path.parent.iterdir()) == []


def test_interrupted_writing_leaves_the_old_bundle(copy: Path) -> None:
    digest = open_bundle(copy).digest
    with pytest.raises(KeyboardInterrupt), writing(copy):
        raise KeyboardInterrupt
    assert open_bundle(copy).digest == digest


VICTIM = """\
import os, signal, sys
from pathlib import Path
from vfio_p2p.bundle.write import writing
with writing(Path(sys.argv[1])) as partial:
    (partial / "result.json").write_text("{}")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writing_leaves_nothing_of_the_final_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bundle"
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, str(path)],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        check=False,
    )
    assert victim.returncode == -signal.SIGKILL
    assert not path.exists()
    # The remains do not hinder the next attempt.
    assert open_bundle(make_bundle(path))


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").touch()
    with pytest.raises(UsageError), writing(tmp_path / "thesis"):
        pytest.fail("it would be gone")
    assert (tmp_path / "thesis" / "chapter1").exists()


@pytest.mark.parametrize("text", [None, "", "{}", '{"outcome": "dunno"}'])
def test_run_without_a_result_is_not_sealed(
    copy: Path, text: str | None
) -> None:
    inputs = open_bundle(copy).manifest.inputs
    (copy / RESULT).unlink()
    if text is not None:
        (copy / RESULT).write_text(text)
    with pytest.raises(BundleError, match="no result"):
        seal(copy, inputs)


def test_only_whole_bundles_are_replaced(tmp_path: Path) -> None:
    ours = make_bundle(tmp_path / "ours")
    check_replaceable(ours)
    check_replaceable(tmp_path / "new")
    foreign = tmp_path / "extension"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"name": "my extension"}')
    (foreign / "background.js").write_text("")
    archive = tmp_path / "mine.zip"
    archive.write_bytes(b"not a bundle")
    for path in (foreign, archive):
        with pytest.raises(UsageError):
            check_replaceable(path)
    with pytest.raises(UsageError), writing(foreign):
        pass
    assert (foreign / "background.js").exists()


def test_manifest_that_names_no_driver() -> None:
    # Manifests from before there was a choice name no driver.
    testbed = {"image": {}, "outer": "", "outer_sha256": "", "arguments": []}
    place = {**testbed, "place": "sealed"}
    assert msgspec.convert(place, SealedProvenance).driver == "p2psim"
