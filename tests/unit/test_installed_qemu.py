# SPDX-License-Identifier: GPL-2.0-or-later
"""The variant ``installed``: QEMUs that hosts have themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vfio_p2p.cli import main
from vfio_p2p.errors import UsageError
from vfio_p2p.machine.host import LocalHost
from vfio_p2p.places.hosts.installed import check_tls, examine
from workshops import FakeWorkshop

Capture = pytest.CaptureFixture[str]

EVENTS = "vfio_vmstate_change vm_state_notify migrate_set_state"
GOOD = {
    "--version": "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)",
    "-d": "trace:PATTERN   enable trace events",
    "-trace": EVENTS.replace(" ", "\n"),
    "-machine": "-object: Unable to access credentials /nonexistent",
}


def test_it_is_run_and_not_built(
    workshop: FakeWorkshop, capsys: Capture
) -> None:
    words = ["run", "two-devices", "--variant", "installed", "--json"]
    assert main(words, workshop) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["bundle"] == "out/installed-two-devices-s42"
    assert workshop.built == []
    (cell,) = workshop.ran
    assert cell.job.source.variant == cell.job.destination.variant


def test_validate_names_the_place(
    workshop: FakeWorkshop, capsys: Capture
) -> None:
    words = ["validate", "--variant", "installed", "--json"]
    words += ["--scenario", "two-devices"]
    assert main(words, workshop) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["origin"] == "installed at sealed"
    assert found["base"] == "v10.0"
    assert "there is no base" not in printed.err


@pytest.mark.parametrize(
    ("release", "base", "said"),
    [
        ("9.2", "v8.1", "base v8.1 with the series"),
        ("12.0", "v11.1", "base v11.1 with the series"),
        ("11.1", "v11.1", ""),
        ("8.1", "v8.1", ""),
    ],
)
def test_the_nearest_base_is_used_and_said(
    workshop: FakeWorkshop,
    capsys: Capture,
    release: str,
    base: str,
    said: str,
) -> None:
    workshop.release = release
    words = ["validate", "--variant", "installed", "--json"]
    main([*words, "--scenario", "one-device"], workshop)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["base"] == base
    assert ("there is no base for QEMU" in printed.err) is bool(said)
    assert said in printed.err


def test_it_is_compared_with_a_build(workshop: FakeWorkshop) -> None:
    words = ["compare", "installed", "patched", "--seeds", "3"]
    assert main(words, workshop) in (0, 3)
    assert workshop.built == [("10.0", "patched")]
    assert {x.variant for x in workshop.ran} == {"installed", "patched"}
    assert len(workshop.ran) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["run", "two-devices", "--variant", "installed", "--refresh"],
            "--refresh: this has no effect on the variant 'installed'",
        ),
        (
            ["run", "two-devices", "--variant", "installed+x"],
            "nothing can go on top",
        ),
        (["build", "--variant", "installed"], "'installed' is not built"),
    ],
)
def test_what_makes_no_sense(
    workshop: FakeWorkshop, capsys: Capture, words: list[str], said: str
) -> None:
    assert main(words, workshop) == 2
    what, hint = capsys.readouterr().err.splitlines()[-2:]
    assert said in what
    assert hint.strip()
    assert workshop.ran == []


HOSTS = """\
format = 1
[host.a]
driver = "mlx5"
ssh = "a.example"
qemu = "/usr/bin/qemu-system-x86_64"
source = {pf = "0000:08:00.0", count = 2}
destination = {pf = "0000:08:00.1", count = 2}
[host.b]
driver = "mlx5"
ssh = "b.example"
source = {pf = "0000:08:00.0", count = 2}
[pair.p]
source = "a"
destination = "b"
link = {source = "192.0.2.1", destination = "192.0.2.2"}
tls = true
"""


@pytest.mark.parametrize(
    ("words", "said", "mend"),
    [
        ([], "'sealed' has no QEMU for the variant", "'--at NAME'"),
        (["--at", "p"], "[host.b] of hosts.toml names none", "qemu = "),
    ],
)
def test_a_place_without_one(
    tmp_path: Path, capsys: Capture, words: list[str], said: str, mend: str
) -> None:
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(HOSTS)
    words += ["--hosts", str(hosts), "--variant", "installed"]
    assert main(["run", "two-devices", *words]) == 2
    what, hint = capsys.readouterr().err.splitlines()[-2:]
    assert said in what
    assert mend in hint


@pytest.mark.parametrize(
    "command",
    [["run", "two-devices"], ["validate"], ["compare", "base", "patched"]],
)
def test_builds_cannot_encrypt(
    tmp_path: Path, capsys: Capture, command: list[str]
) -> None:
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(HOSTS)
    assert main([*command, "--at", "p", "--hosts", str(hosts)]) == 2
    what, hint = capsys.readouterr().err.splitlines()[-2:]
    assert "builds have no TLS" in what
    assert "'--variant installed'" in hint


def qemu(folder: Path, **changes: str) -> str:
    """Write a program that answers as QEMU does."""
    path = folder / "qemu"
    answers = GOOD | {
        {"version": "--version", "d": "-d", "trace": "-trace", "tls":
         "-machine"}[key]: value
        for key, value in changes.items()
    }  # fmt: skip
    lines = ["#!/bin/sh", 'case "$1" in']
    for option, text in answers.items():
        end = (
            'echo "$text" >&2; exit 1'
            if option == "-machine"
            else ('echo "$text"')
        )
        lines.append(f"{option}) text='{text}'; {end};;")
    path.write_text("\n".join([*lines, "esac"]))
    path.chmod(0o700)
    return str(path)


async def test_what_is_known_of_it(tmp_path: Path) -> None:
    path = qemu(tmp_path)
    found = await examine(LocalHost(), path)
    assert found.variant == "installed"
    assert found.version == GOOD["--version"]
    assert (found.build, found.made_of, len(found.sha256)) == ("", None, 64)
    await check_tls(LocalHost(), "p", path)
    Path(path).write_text(Path(path).read_text() + "\n")
    other = await examine(LocalHost(), path)
    assert other.sha256 != found.sha256


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "busybox"}, "does not tell QEMU's version: 'busybox'"),
        ({"version": "QEMU emulator version 7.2.22"}, "is QEMU 7.2, and 8.1"),
        ({"version": "QEMU emulator version 10.0\x1b[31m"}, "does not tell"),
        ({"d": "nothing"}, "without the trace backend 'log'"),
        ({"trace": "vm_state_notify"}, "no trace event vfio_vmstate_change"),
    ],
)
async def test_a_qemu_that_cannot_be_judged(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    path = qemu(tmp_path, **changes)
    with pytest.raises(UsageError) as caught:
        await examine(LocalHost(), path)
    assert said in caught.value.what
    assert path in caught.value.what
    assert "this machine" in caught.value.what
    assert (caught.value.exit_code, bool(caught.value.hint)) == (2, True)


@pytest.mark.parametrize("mode", [None, 0o600])
async def test_a_qemu_that_is_not_there(
    tmp_path: Path, mode: int | None
) -> None:
    path = tmp_path / "qemu-system"
    if mode is not None:
        path.touch(mode)
    with pytest.raises(UsageError, match="missing, or cannot be run") as err:
        await examine(LocalHost(), str(path))
    assert str(path) in err.value.what
    assert "hosts.toml" in err.value.hint


async def test_a_qemu_without_tls(tmp_path: Path) -> None:
    path = qemu(tmp_path, tls="TLS credentials support requires GNUTLS")
    with pytest.raises(UsageError) as caught:
        await check_tls(LocalHost(), "p", path)
    assert f"its QEMU {path} has no TLS" in caught.value.what
    assert "[pair.p]" in caught.value.what
    assert "GnuTLS" in caught.value.hint
