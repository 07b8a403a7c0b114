# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine as a host, and what the agent's answers mean."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_p2p.errors import (
    HarnessError,
    HostError,
    InputError,
    SkipError,
    UsageError,
)
from vfio_p2p.machine.agent_session import answer
from vfio_p2p.machine.host import HostSpec, open_host


@pytest.fixture(autouse=True)
def _private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Check that no folder is left behind."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


async def test_a_program() -> None:
    async with open_host(HostSpec()) as host:
        assert host.local
        done = await host.run(
            ["sh", "-c", "cat; echo $0 >&2; exit 3"],
            stdin=b"x" * 300_000,
            limit_s=60,
        )
        assert (done.status, done.stderr) == (3, b"sh\n")
        assert done.stdout == b"x" * 300_000
        done = await host.run(["sh", "-c", "kill -KILL $$"], limit_s=60)
        assert done.status == -9
        done = await host.run(["no-such-program"], limit_s=60)
        assert done.status == 127


async def test_a_limit_ends_the_program_and_its_children(
    tmp_path: Path,
) -> None:
    async with open_host(HostSpec(name="here")) as host:
        code = "sleep 600 & echo $! >pid; wait"
        argv = ["sh", "-c", f"cd '{tmp_path}'; {code}"]
        with pytest.raises(HostError, match="here: sh took longer than 2 s"):
            await host.run(argv, limit_s=2)
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists() or _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] in "ZX"


async def test_the_agent() -> None:
    async with open_host(HostSpec()) as host:
        with pytest.raises(UsageError, match="no command 'nonsense'"):
            await host.agent(["nonsense"])
        async with host.agent_session(["clock", "answer"]) as session:
            await session.send(None)
            first = await session.receive()
            await session.send(None)
            assert await session.receive() > first
        # It has ended with the block.
        with pytest.raises(HostError):
            await session.receive()
        async with host.agent_session(["clock"]) as session:
            with pytest.raises(UsageError, match="clock does not know"):
                await session.receive()


async def test_an_agent_that_is_killed() -> None:
    async with (
        open_host(HostSpec()) as host,
        host.agent_session(["watch"]) as session,
    ):
        request = {"argv": ["true"], "env": {}, "log": "x"}
        folder = await host.private_folder()
        request |= {"cwd": folder, "stderr": f"{folder}/stderr"}
        code = "until [ -e go ]; do sleep 0.01; done; kill -9 $PPID"
        await session.send(request | {"argv": ["sh", "-c", code]})
        assert "pid" in await session.receive()
        Path(folder, "go").touch()
        with pytest.raises(HostError, match="killed by SIGKILL"):
            await session.receive()


async def test_the_agent_ends_when_a_limit_strikes() -> None:
    async with open_host(HostSpec()) as host:
        with pytest.raises(HostError, match="took longer"):
            await host.agent(["hold", "--nonsense"], limit_s=0.0)
        with pytest.raises(TimeoutError):
            async with (
                host.agent_session(["clock", "answer"]) as session,
                asyncio.timeout(0.5),
            ):
                await session.receive()


async def test_files(tmp_path: Path) -> None:
    async with open_host(HostSpec(name="here")) as host:
        folder = Path(await host.private_folder())
        assert folder.stat().st_mode & 0o777 == 0o700
        await host.put(b"text", f"{folder}/file", 0o640)
        assert (folder / "file").stat().st_mode & 0o777 == 0o640
        await host.get(f"{folder}/file", tmp_path / "copy")
        await host.put(tmp_path / "copy", f"{folder}/again")
        assert (folder / "again").read_bytes() == b"text"
        async with host.forward_unix("/some/socket") as path:
            assert path == Path("/some/socket")
        async with host.forward_tcp("127.0.0.1", 4444) as address:
            assert address == ("127.0.0.1", 4444)
        with pytest.raises(HostError, match=r"here: .*none: No such file"):
            await host.get(f"{folder}/none", tmp_path / "copy")
        with pytest.raises(HostError, match=r"here: .*File exists"):
            await host.put(b"x", f"{folder}/file/x")
        with pytest.raises(HostError, match=r"here: .*No such file"):
            await host.put(b"x", f"{folder}/none/x")
        await host.check()
    assert not folder.exists()
    assert (tmp_path / "copy").read_bytes() == b"text"


async def test_pythons(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho 3 8 0\n")
    noisy = tmp_path / "noisy"
    noisy.write_text("#!/bin/sh\necho Welcome\n")
    for path in (old, noisy):
        path.chmod(0o755)
    wrong: list[tuple[object, type[HarnessError], str]] = [
        (old, InputError, "too old: 3.8"),
        (noisy, HostError, "does not tell its version"),
        ("/no/python", InputError, "/no/python is missing"),
    ]
    for python, kind, why in wrong:
        async with open_host(HostSpec(python=str(python))) as host:
            with pytest.raises(kind, match=why):
                await host.agent(["clock"])


@pytest.mark.skipif(os.getuid() != 0, reason="Only root can be another.")
async def test_root_needs_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with open_host(HostSpec()) as host:
        done = await host.run(["a", "b"], limit_s=60, root=True)
        assert done.stdout == b"-n a b "
        sudo.write_text(
            "#!/bin/sh\necho 'sudo: a password is required' >&2; exit 1\n"
        )
        with pytest.raises(UsageError, match="a password is required"):
            await host.agent(["clock"], root=True)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [(2, UsageError, 2), (4, SkipError, 4), (5, HostError, 5)],
)
def test_errors_of_the_agent(
    status: int, kind: type[HarnessError], code: int
) -> None:
    told = json.dumps({"error": "it is taken", "hint": "Wait."}).encode()
    with pytest.raises(kind, match=r"^box: it is taken$") as caught:
        answer("box", status, told, b"")
    assert type(caught.value) is kind
    assert (caught.value.exit_code, caught.value.hint) == (code, "Wait.")


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "why"),
    [
        (1, b"", b"Trace\nValueError: x\n", r"\(exit status 1\): ValueError"),
        (0, b"Welcome!\n{}", b"", r"\(exit status 0\): \{\}"),
        (0, b"", b"", "it said nothing"),
        (0, b"\xff", b"", r"xff"),
        (-11, b"", b"", "killed by SIGSEGV"),
    ],
)
def test_answers_that_are_none(
    status: int, stdout: bytes, stderr: bytes, why: str
) -> None:
    with pytest.raises(HostError, match=why) as caught:
        answer("box", status, stdout, stderr)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_commands_in_hints_name_the_host() -> None:
    hint = "'vfio-p2p host restore --pf 0000:01:00.0' puts it back."
    told = json.dumps({"error": "it is prepared", "hint": hint}).encode()
    with pytest.raises(SkipError) as caught:
        answer("box", 4, told, b"", " --at box")
    assert caught.value.hint == (
        "'vfio-p2p host restore --at box --pf 0000:01:00.0' puts it back."
    )


def test_what_is_an_answer() -> None:
    assert answer("box", 0, b'{"a": 1}\n', b"noise") == {"a": 1}
