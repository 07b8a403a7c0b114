# SPDX-License-Identifier: GPL-2.0-or-later
"""What a preparation refuses, and that it then leaves everything as it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from host_folders import (
    OTHER,
    OURS,
    OWN,
    PF,
    USER,
    FolderKernel,
    HostFolders,
)
from vfio_p2p.agent.failure import AgentError
from vfio_p2p.agent.kernel import nobody
from vfio_p2p.agent.ledger import Ledger
from vfio_p2p.agent.locks import locked
from vfio_p2p.agent.prepare import prepare
from vfio_p2p.agent.request import Preparation, parse
from vfio_p2p.agent.restore import require_root, restore

TWO = ((PF, 2),)
FIRST, SECOND = "0000:01:10.0", "0000:01:10.1"
ENABLED = (("migratable", "enable"),)


@pytest.fixture
def host(tmp_path: Path) -> HostFolders:
    """A host without virtual functions."""
    return HostFolders(tmp_path / "host").make()


@pytest.fixture
def busy(tmp_path: Path) -> HostFolders:
    """A host with two, and with the processes of this machine."""
    made = HostFolders(tmp_path / "host", Path("/proc")).make()
    made.kernel().write(made.pf / "sriov_numvfs", "2")
    return made


def refused(
    host: HostFolders,
    wanted: Preparation,
    at: Callable[[str], None] | None = None,
) -> AgentError:
    """Return the error of a preparation, which must change nothing."""
    before = host.state()
    with pytest.raises(AgentError) as caught:
        host.prepare(wanted, at)
    assert host.state() == before
    assert not Ledger(host.roots).path.exists()
    assert caught.value.hint
    return caught.value


def functions(host: HostFolders, count: int) -> None:
    """Make virtual functions."""
    host.kernel().write(host.pf / "sriov_numvfs", str(count))


def up(host: HostFolders, address: str, name: str) -> None:
    """Give a function a network device that is up."""
    folder = host.devices / address / "net" / name
    folder.mkdir(parents=True)
    (folder / "flags").write_text("0x1003\n")


def route(host: HostFolders, name: str) -> None:
    """Let the default route go through a network device."""
    (host.roots.proc / "net").mkdir()
    (host.roots.proc / "net/route").write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask\n"
        f"{name} 00000000 0202000A 0003 0 0 0 00000000\n"
    )


def no_iommu(host: HostFolders) -> None:
    shutil.rmtree(host.roots.sys / "class/iommu")


def no_sriov(host: HostFolders) -> None:
    (host.pf / "sriov_totalvfs").write_text("0\n")


def no_devlink(host: HostFolders) -> None:
    (host.root / "tools/devlink").unlink()


def old_devlink(host: HostFolders) -> None:
    (host.root / "iproute2").write_text("6.1.0\n")


def no_switch(host: HostFolders) -> None:
    (host.pf / ".mode").write_text("\n")


def default_route(host: HostFolders) -> None:
    up(host, PF, "eth0")
    route(host, "eth0")


def no_pf_driver(host: HostFolders) -> None:
    (host.pf / "driver").unlink()


def no_kept_cap(host: HostFolders) -> None:
    (host.root / "broken").touch()


def one(host: HostFolders) -> None:
    functions(host, 1)


def two_up(host: HostFolders) -> None:
    functions(host, 2)
    up(host, SECOND, "eth7")


def three(host: HostFolders) -> None:
    functions(host, 3)


def nothing_else(host: HostFolders) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "wanted", "what", "code"),
    [
        (nothing_else, Preparation(OURS, (("0000:09:00.0", 1),)),
         "there is no PCI function 0000:09:00.0", 2),
        (nothing_else, Preparation(OURS, vfs=(FIRST,)),
         f"there is no PCI function {FIRST}", 2),
        (nothing_else, Preparation(OURS, vfs=(PF,)),
         f"{PF} is not a virtual function", 2),
        (one, Preparation(OURS, TWO, vfs=(FIRST,)),
         f"{FIRST} belongs to {PF}, which is named as well", 2),
        (no_sriov, Preparation(OURS, TWO),
         f"{PF} can have no virtual functions", 2),
        (nothing_else, Preparation(OURS, ((PF, 8),)),
         f"{PF} can have 7 virtual functions, not 8", 2),
        (no_iommu, Preparation(OURS, TWO),
         "the host has no IOMMU that is switched on", 2),
        (nothing_else, Preparation("absent", TWO),
         "there is no driver absent on the host: modprobe: FATAL: Module "
         "absent not found.", 2),
        (no_devlink, Preparation(OURS, TWO, port_caps=ENABLED),
         "devlink is missing on the host", 2),
        (old_devlink, Preparation(OURS, TWO, port_caps=ENABLED),
         "devlink of iproute2 6.1 knows no port function caps", 2),
        (no_switch, Preparation(OURS, TWO, eswitch="switchdev"),
         f"{PF} has no eswitch mode", 2),
        (default_route, Preparation(OURS, TWO),
         f"{PF} carries the default route of the host", 2),
        (no_pf_driver, Preparation(OURS, TWO),
         f"{PF} has no driver, which makes no virtual functions for others",
         2),
        (one, Preparation(OURS, TWO),
         f"{PF} has 1 virtual functions, and 2 are wanted", 4),
        (two_up, Preparation(OURS, TWO),
         f"{SECOND} is used by its driver {OWN}: eth7 is up", 4),
        (three, Preparation(OURS, TWO, eswitch="switchdev"),
         f"0000:01:10.2 is bound to {OWN}, and another eswitch mode "
         "concerns it", 4),
        # These fail half-way.
        (nothing_else, Preparation(OURS, TWO, port_caps=ENABLED),
         f"{FIRST} has no devlink port", 2),
        (nothing_else,
         Preparation(OURS, TWO, eswitch="switchdev",
                     port_caps=(("newer", "enable"),)),
         f'devlink port function set pci/{PF}/1 newer enable: Unknown option '
         '"newer"', 2),
        (no_kept_cap,
         Preparation(OURS, TWO, eswitch="switchdev",
                     port_caps=(("roce", "disable"),)),
         f"the port function cap roce of {FIRST} was set to disable and is "
         "enable", 5),
        (nothing_else, Preparation("igb", TWO),
         f"{FIRST} is bound to igb, and there is no ", 5),
    ],
)
def test_a_refusal(
    host: HostFolders,
    spoil: Callable[[HostFolders], None],
    wanted: Preparation,
    what: str,
    code: int,
) -> None:
    spoil(host)
    error = refused(host, wanted)
    assert error.what.startswith(what)
    assert error.code == code


def test_replace_takes_what_is_up(host: HostFolders) -> None:
    two_up(host)
    answer = host.prepare(Preparation(OURS, TWO, replace=True))
    assert [x["address"] for x in answer["vfs"]] == [FIRST, SECOND]


def test_free_functions_are_taken_first(host: HostFolders) -> None:
    functions(host, 3)
    up(host, FIRST, "eth7")
    answer = host.prepare(Preparation(OURS, TWO))
    assert [x["address"] for x in answer["vfs"]] == [SECOND, "0000:01:10.2"]


def test_a_module_is_loaded(host: HostFolders) -> None:
    assert refused(host, Preparation("later", TWO)).code == 5
    shutil.rmtree(host.drivers / "later")
    (host.drivers / OURS).rename(host.drivers / "later-ours")
    script = host.root / "tools/modprobe"
    script.write_text(
        f'#!/bin/sh\nmv {host.drivers}/later-ours "{host.drivers}/$2"\n'
    )
    answer = host.prepare(Preparation(OURS, TWO))
    assert answer["loaded"] == [OURS]
    assert host.prepare(Preparation(OURS, TWO))["loaded"] == []


def test_only_root() -> None:
    with pytest.raises(AgentError) as caught:
        require_root(1000)
    assert caught.value.code == 2


def test_another_preparation_is_refused(host: HostFolders) -> None:
    host.prepare(Preparation(OURS, TWO, who="alice on desk"))
    state = host.state()
    with pytest.raises(AgentError) as caught:
        host.prepare(Preparation(OURS, ((PF, 1),)))
    assert caught.value.what == (
        f"{PF} is prepared in another way (by alice on desk)"
    )
    assert caught.value.code == 4
    assert host.state() == state


def test_what_others_changed_is_prepared_again(host: HostFolders) -> None:
    before = host.state()
    wanted = Preparation(OURS, TWO)
    first = host.prepare(wanted)
    state = host.state()
    host.kernel().write(host.devices / FIRST / "driver/unbind", FIRST)
    again = host.prepare(wanted)
    assert again == {**first, "recovered": 6}
    assert host.state() == state
    restore(Ledger(host.roots), host.kernel())
    assert host.state() == before


def test_an_interruption_puts_everything_back(host: HostFolders) -> None:
    before = host.state()
    points: list[str] = []

    def interrupt(point: str) -> None:
        points.append(point)
        if point == "after" and points.count(point) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.prepare(Preparation(OURS, TWO), interrupt)
    assert host.state() == before
    assert not Ledger(host.roots).path.exists()


class Stubborn(FolderKernel):
    """Binds no second function, and removes none."""

    def write(
        self,
        path: Path,
        text: str,
        holders: Callable[[], str] = nobody,
    ) -> None:
        """Write to a file, unless it is one of those."""
        if (path.name, text) in {
            ("sriov_numvfs", "0"), ("bind", SECOND)
        }:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        super().write(path, text, holders)


def test_what_cannot_be_put_back_is_said(host: HostFolders) -> None:
    before = host.state()
    with pytest.raises(AgentError) as caught:
        prepare(
            Preparation(OURS, TWO), Ledger(host.roots), Stubborn(host)
        )
    assert caught.value.what == (
        f"the driver of {SECOND} cannot be set to {OURS}: "
        f"{host.drivers / OURS / 'bind'}: Input/output error; and then, "
        f"while it was put back: sriov_numvfs of {PF} cannot be set to 0: "
        f"{host.pf / 'sriov_numvfs'}: Input/output error"
    )
    assert "host restore" in caught.value.hint
    restore(Ledger(host.roots), host.kernel())
    assert host.state() == before


@contextmanager
def user_of(node: Path) -> Iterator[int]:
    """Hold a node open in another process."""
    with node.open() as file, subprocess.Popen(
        ["sleep", "600"], stdin=file
    ) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def me() -> str:
    """Return who we are."""
    done = subprocess.run(["id", "-un"], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().strip()


def test_functions_in_use_are_left_alone(busy: HostFolders) -> None:
    kernel = busy.kernel()
    folder = busy.devices / SECOND
    kernel.write(folder / "driver/unbind", SECOND)
    kernel.write(folder / "driver_override", OTHER)
    kernel.write(busy.drivers / OTHER / "bind", SECOND)
    with user_of(busy.roots.dev / "vfio/11") as pid:
        for wanted in (
            Preparation(OURS, TWO),
            Preparation(OURS, TWO, replace=True),
            Preparation(OURS, vfs=(SECOND,)),
            Preparation(OURS, ((PF, 3),), replace=True),
        ):
            error = refused(busy, wanted)
            assert error.what == (
                f"{SECOND} is in use by PID {pid} (sleep, user {me()})"
            )
            assert error.code == 4
        answer = busy.prepare(Preparation(OURS, ((PF, 1),)))
        assert [x["address"] for x in answer["vfs"]] == [FIRST]


def test_restore_waits_for_nobody(busy: HostFolders) -> None:
    before = busy.state()
    wanted = Preparation(OURS, TWO, uid=USER, gid=USER)
    busy.prepare(wanted)
    state = busy.state()
    ledger = Ledger(busy.roots)
    lines = ledger.path.read_bytes()
    with user_of(busy.roots.dev / "vfio/10") as pid:
        with pytest.raises(AgentError) as caught:
            restore(ledger, busy.kernel())
        assert caught.value.what == (
            f"{FIRST} is in use by PID {pid} (sleep, user {me()})"
        )
        assert caught.value.code == 4
        # The same preparation is fine.
        assert busy.prepare(wanted)["changed"] is False
    assert ledger.path.read_bytes() == lines
    assert busy.state() == state
    restore(ledger, busy.kernel())
    assert busy.state() == before


def test_a_taken_function_is_left_alone(busy: HostFolders) -> None:
    with locked(busy.roots, [PF]):
        # Another open file of the same process is another holder.
        error = refused(busy, Preparation(OURS, TWO))
    assert error.what.startswith(f"{PF} is taken by ")
    assert f" (PID {os.getpid()}, user " in error.what
    assert error.code == 4


def test_one_function_is_restored(host: HostFolders) -> None:
    before = host.state()
    host.prepare(Preparation(OURS, TWO))
    ledger = Ledger(host.roots)
    ledger.append("0000:02:00.0", "attribute", old="1", new="0", name="x")
    answer = restore(ledger, host.kernel(), PF)
    assert answer == {"format": 1, "undone": 6, "dropped": False}
    assert host.state() == before
    assert [x.pf for x in ledger.pending()] == ["0000:02:00.0"]


def _request(**changes: Any) -> bytes:
    document = {"format": 1, "pf": PF, "count": 2, "driver": OURS, **changes}
    kept = {x: y for x, y in document.items() if y != "absent"}
    return json.dumps(kept).encode()


def test_a_request() -> None:
    assert parse(_request()) == Preparation(OURS, TWO)
    assert parse(
        _request(
            pf="absent", count="absent", pfs={"0000:01:00.0": 2},
            vfs=["0000:02:10.0", "0000:02:10.0"],
            owner={"user": me()}, eswitch="legacy", replace=True, who="me",
            port_caps={"roce": "disable", "migratable": "enable"},
        )
    ) == Preparation(
        OURS, TWO, ("0000:02:10.0",), os.geteuid(), os.getegid(), "legacy",
        (("migratable", "enable"), ("roce", "disable")), True, "me",
    )


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (b"{", "the request is wrong: not JSON"),
        (b"[]", "the request is wrong: not a table"),
        (_request(format=2), "the request is wrong: format 2"),
        (_request(extra=1), "the request is wrong: unknown key 'extra'"),
        (_request(pf="1:0.0"), "not a PCI address: '1:0.0'"),
        (_request(pf="../../../etc"), "not a PCI address: '../../../etc'"),
        (_request(count=0), "not a number of virtual functions: 0"),
        (_request(count=True), "not a number of virtual functions: True"),
        (_request(pf="absent"), "the request is wrong: 'count' without 'pf'"),
        (_request(pf="absent", count="absent"),
         "the request names no functions"),
        (_request(driver="../x"), "not the name of a driver: '../x'"),
        (_request(driver="-r"), "not the name of a driver: '-r'"),
        (_request(eswitch="odd"), "there is no eswitch mode 'odd'"),
        (_request(owner={"uid": -1, "gid": 0}),
         "the request is wrong: -1 is not the number of a user or group"),
        (_request(owner={"user": "no such user"}),
         "there is no user 'no such user' on the host"),
        (_request(port_caps={"a b": "c"}),
         "not a port function cap or its value: 'a b'"),
        (_request(vfs="x"), "the request is wrong: 'vfs' is not a list of "
         "addresses"),
    ],
)
def test_a_wrong_request(request_: bytes, what: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse(request_)
    assert caught.value.what == what
    assert caught.value.code == 2
    assert caught.value.hint
