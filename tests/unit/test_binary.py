# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs as they are: ``qemu:PATH`` and ``debian:VERSION``."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest
from vfio_p2p.cli import main
from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.places.sealed.load import job_files
from vfio_p2p.qemu import binary, debian
from vfio_p2p.qemu.binary import NAME, find_binary
from vfio_p2p.qemu.examined import version_line
from vfio_p2p.qemu.program import libraries_of
from vfio_p2p.trace import missing_events
from vfio_p2p.trace.formats import FORMATS, Kind
from vfio_p2p.variant import binary_name, is_as_it_is, is_tree, parse_tree
from workshops import FakeWorkshop

Capture = pytest.CaptureFixture[str]


def test_names() -> None:
    version = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)"
    name = binary_name(version, "53c6c106" + "0" * 56)
    assert name == "binary-11.1.3-53c6c106"
    assert is_as_it_is(name)
    assert parse_tree(name).patches == 6
    assert binary_name("QEMU emulator version 10.2", "a" * 64)[:12] == (
        "binary-10.2-"
    )
    for text in ("qemu:/usr/bin/x", "debian:sid", name):
        assert is_tree(text)
    for text in ("binary", "binary-11", "binary-11.1-xyz", "qemu", "debian"):
        assert not is_tree(text)
    with pytest.raises(ValueError, match="no release"):
        binary_name("QEMU", "a" * 64)


def test_run(workshop: FakeWorkshop, capsys: Capture) -> None:
    assert main(["run", "two-devices", "--qemu", "x", "--json"], workshop) == 0
    found = json.loads(capsys.readouterr().out)
    (run,) = found["runs"]
    assert run["variant"].startswith("binary-10.0.3-")
    assert found["origin"] == "x"
    assert workshop.built == []


def test_several_are_told_apart(workshop: FakeWorkshop) -> None:
    words = ["validate", "--scenario", "two-devices", "--qemu", "a"]
    words += ["--qemu", "debian:11.1", "--qemu", "a", "--variant", "patched"]
    assert main(words, workshop) == 0
    names = [cell.variant for cell in workshop.ran]
    assert names[0] == "patched"
    assert len(set(names)) == len(names) == 3


def test_a_and_b(workshop: FakeWorkshop, capsys: Capture) -> None:
    words = ["compare", "qemu:a", "debian:sid", "--seeds", "2", "--json"]
    assert main(words, workshop) in (0, 3)
    found = json.loads(capsys.readouterr().out)
    assert [found[x]["name"] for x in "ab"] == ["qemu:a", "debian:sid"]
    assert len(workshop.ran) == 4
    # The same one twice is no mistake.
    assert main(["compare", "qemu:a", "qemu:a"], workshop) in (0, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "two-devices", "--qemu", "x", "--source", "y"],
         "--source: this has no effect"),
        (["run", "two-devices", "--qemu", "x", "--variant", "base"],
         "not allowed with"),
        (["validate", "--all", "--qemu", "x"], "no effect with --all"),
        (["build", "--variant", "qemu:x"], "unknown variant"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(
    workshop: FakeWorkshop, capsys: Capture, words: list[str], said: str
) -> None:
    try:
        code: object = main(words, workshop)
    except SystemExit as err:
        code = err.code
    assert code == 2
    assert said in capsys.readouterr().err


def elf(path: Path, machine: int = 62, interpreter: str = "") -> Path:
    """Write the header of a program, and nothing else."""
    head = struct.pack(
        "<4sBB10xHHIQQQIHHH", b"\x7fELF", 2, 1, 3, machine, 1, 0, 64, 0, 0,
        64, 56, 1 if interpreter else 0,
    )  # fmt: skip
    data = interpreter.encode() + b"\0"
    segment = struct.pack(
        "<IIQQQQQQ", 3, 0, 200, 0, 0, len(data), len(data), 1
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = head.ljust(64, b"\0") + segment
    path.write_bytes(whole.ljust(200, b"\0") + data)
    path.chmod(0o755)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        find_binary(path)
    assert "8.1 or later" in caught.value.hint
    return caught.value.what


def test_what_is_no_qemu(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none")
    assert f"has no {NAME}" in refusal(tmp_path)
    (tmp_path / "text").write_text("hello")
    assert "is no program" in refusal(tmp_path / "text")
    (tmp_path / "script").write_text("#!/bin/sh\nexec qemu\n")
    assert "is a script" in refusal(tmp_path / "script")
    assert "for aarch64" in refusal(elf(tmp_path / "arm", 183))
    cut = elf(tmp_path / "cut", interpreter="/lib64/ld.so")
    cut.write_bytes(cut.read_bytes()[:90])
    assert "damaged" in refusal(cut)
    # A program without a single instruction.
    assert "empty" in refusal(elf(tmp_path / "empty"))
    os.mkfifo(tmp_path / "fifo")
    assert "no such file" in refusal(tmp_path / "fifo")


def test_a_program_that_is_no_qemu() -> None:
    python = Path(sys.executable).resolve()
    assert "does not tell QEMU's version" in refusal(python)


def test_what_is_said_before_the_version() -> None:
    """Sanitizers and the loader warn first."""
    line = "QEMU emulator version 10.0.13"
    assert version_line(f"{line}\nCopyright (c)\n") == (line, (10, 0))
    said = f"==1==WARNING: ASan may be wrong\n{line}\nCopyright (c)\n"
    assert version_line(said) == (line, (10, 0))
    for other in ("", "busybox\n", f"{line}\x1b[31m\n", f"no {line}\n"):
        assert version_line(other) is None


@pytest.mark.parametrize("folder", ["", "build", "usr/bin"])
def test_folders(tmp_path: Path, folder: str) -> None:
    elf(tmp_path / folder / NAME, 183)
    assert "for aarch64" in refusal(tmp_path)


def test_the_loader_of_another_system(tmp_path: Path) -> None:
    there = "/lib64/ld-linux-x86-64.so.2"
    qemu = elf(tmp_path / "usr/bin" / NAME, interpreter=there)
    assert binary._own_loader(qemu, there) is None
    own = tmp_path / "usr/lib64/ld-linux-x86-64.so.2"
    own.parent.mkdir()
    # One that leads out of the root is not its own.
    own.symlink_to("/bin/sh")
    assert binary._own_loader(qemu, there) is None
    own.unlink()
    own.write_bytes(b"")
    assert binary._own_loader(qemu, there) == (tmp_path, own)
    (tmp_path / "usr/lib/x86_64-linux-gnu/pulse").mkdir(parents=True)
    (tmp_path / "usr/lib/x86_64-linux-gnu/pulse/a.so.1").touch()
    assert list(binary._library_folders(tmp_path)) == [
        tmp_path / "usr/lib/x86_64-linux-gnu",
        tmp_path / "usr/lib/x86_64-linux-gnu/pulse",
        tmp_path / "usr/lib64",
        tmp_path / "usr/lib",
    ]


def test_a_missing_library(tmp_path: Path) -> None:
    listing = tmp_path / "ldd"
    listing.write_text("#!/bin/sh\necho '\tlibzstd.so.1 => not found'\n")
    listing.chmod(0o755)
    with pytest.raises(SourceError, match=r"lacks the library libzstd\.so\.1"):
        libraries_of(tmp_path / "qemu", [str(listing)])
    listing.write_text(
        "#!/bin/sh\n"
        "echo '\tlinux-vdso.so.1 (0x00007)'\n"
        "echo '\tlibz.so.1 => /x/libz.so.1 (0x00007)'\n"
        "echo '\t/lib64/ld-linux-x86-64.so.2 => /x/ld.so (0x00007)'\n"
    )
    assert libraries_of(tmp_path / "qemu", [str(listing)]) == {
        "libz.so.1": Path("/x/libz.so.1"),
        "ld.so": Path("/x/ld.so"),
    }


def test_a_static_program_is_started_without_a_loader() -> None:
    files = job_files({"my-qemu": b"qemu"}, course=b"")
    assert files["qemu/source/qemu-system-x86_64"] == b"qemu"
    script = b'#!/bin/busybox sh\nshift 2\nexec "$@"\n'
    assert files["qemu/source/lib/ld.so"] == script
    files = job_files({"q": b"qemu", "lib/ld.so": b"own"}, course=b"")
    assert files["qemu/source/lib/ld.so"] == b"own"


def test_the_script_of_a_static_program(tmp_path: Path) -> None:
    if not shutil.which("busybox"):
        pytest.skip("busybox is missing")
    from vfio_p2p.places.sealed.load import _STATIC

    script = tmp_path / "ld.so"
    script.write_bytes(
        _STATIC.replace(
            b"/bin/busybox", (shutil.which("busybox") or "").encode()
        )
    )
    script.chmod(0o755)
    out = tmp_path / "out"
    os.system(f"{script} --library-path x /bin/echo a 'b c' >{out}")
    assert out.read_text() == "a b c\n"


def test_events_that_a_release_should_have() -> None:
    version = "QEMU emulator version 11.1.3"
    names = {x.event for x in FORMATS}
    assert missing_events(version, names) == []
    some = names - {"vfio_vmstate_change"}
    assert missing_events(version, some) == ["vfio_vmstate_change"]
    # What only another release has is not missed.
    new = {
        x.event for x in FORMATS
        if x.since == "11.1" and x.kind is not Kind.OTHER
    } - {x.event for x in FORMATS if x.since != "11.1"}
    assert missing_events("QEMU emulator version 10.0", names - new) == []
    assert missing_events("QEMU emulator version 12.3", names) == []


@pytest.mark.parametrize(
    ("version", "wanted", "found"),
    [
        ("1:11.1.3+ds-1", "11.1", True),
        ("1:11.1.3+ds-1", "11.1.3", True),
        ("1:11.10.3+ds-1", "11.1", False),
        ("1:11.1.3~bpo13+1", "11.1.3", True),
        ("1:10.0.2+ds-2", "11.1", False),
    ],
)
def test_versions_of_debian(version: str, wanted: str, found: bool) -> None:
    assert debian._is_release(version, wanted) is found


def test_no_name_of_debian() -> None:
    with pytest.raises(UsageError, match="neither a version nor a suite"):
        debian.debian_root("../x", lambda *_: None)
