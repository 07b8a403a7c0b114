# SPDX-License-Identifier: GPL-2.0-or-later
"""A host comes back as it was, wherever the agent was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from host_folders import OTHER, OURS, OWN, PF, USER, HostFolders
from vfio_p2p.agent.ledger import Ledger
from vfio_p2p.agent.request import Preparation
from vfio_p2p.agent.restore import restore

ENABLED = (("migratable", "enable"),)


@dataclass(frozen=True)
class Start:
    """A host before it is prepared, and what is wanted of it.

    :param wanted: The request.
    :param numvfs: How many virtual functions there are.
    :param mode: The mode of the card's switch.
    :param drivers: Those of the virtual functions, with an override but for
        their own driver.
    :param migratable: The virtual functions that may migrate.
    :param mode_of_node: How the nodes of groups are found.
    :param own_nodes: Whether functions have nodes of their own.
    :param probe: Whether new virtual functions are probed.
    :param every: Whether the agent is killed at each point. Otherwise, some
        of those are left out that leave the same behind.
    """

    wanted: Preparation
    numvfs: int = 0
    mode: str = "legacy"
    drivers: tuple[str, ...] = ()
    migratable: tuple[int, ...] = ()
    mode_of_node: int = 0o600
    own_nodes: bool = False
    probe: bool = True
    every: bool = False

    def points(self, *names: str) -> tuple[str, ...]:
        """Return the names of the points that are enough."""
        return () if self.every else names

    def make(self, root: Path) -> HostFolders:
        """Make the host's folders."""
        host = HostFolders(root).make()
        if self.own_nodes:
            host.with_own_nodes()
        kernel = host.kernel()
        (host.pf / ".mode").write_text(f"{self.mode}\n")
        if self.numvfs:
            kernel.write(host.pf / "sriov_numvfs", str(self.numvfs))
        for number in range(self.numvfs):
            vf = host.devices / host.vf(number)
            kernel.write(vf / "driver/unbind", vf.name)
            if number in self.migratable:
                (vf / ".caps").mkdir()
                (vf / ".caps/migratable").write_text("enable\n")
            driver = self.drivers[number] if self.drivers else OWN
            if driver not in ("", OWN):
                kernel.write(vf / "driver_override", driver)
            if driver:
                kernel.write(host.drivers / driver / "bind", vf.name)
        for node in (host.roots.dev / "vfio").rglob("*"):
            if node.is_file():
                node.chmod(self.mode_of_node)
        if not self.probe:
            kernel.write(host.pf / "sriov_drivers_autoprobe", "0")
        return host


STARTS = {
    "no functions": Start(
        Preparation(OURS, ((PF, 2),), uid=USER, gid=USER, eswitch="switchdev",
                    port_caps=ENABLED),
    ),
    "no functions, no devlink": Start(
        Preparation(OURS, ((PF, 2),)), every=True
    ),
    "bound to their own driver": Start(
        Preparation(OURS, ((PF, 2),), uid=USER, gid=USER, eswitch="switchdev",
                    port_caps=ENABLED),
        numvfs=2,
    ),
    "one of them named": Start(
        Preparation(OURS, vfs=("0000:01:10.1",), uid=USER, gid=USER),
        numvfs=2, drivers=(OWN, OTHER), mode_of_node=0o640, every=True,
    ),
    "bound to ours": Start(
        Preparation(OURS, ((PF, 2),), uid=USER, gid=USER, port_caps=ENABLED),
        numvfs=4, mode="switchdev", drivers=(OURS,) * 4,
        migratable=(0, 2, 3),
    ),
    "migratable off": Start(
        Preparation(
            OURS, ((PF, 2),),
            port_caps=(("migratable", "disable"), ("roce", "disable")),
        ),
        numvfs=3, mode="switchdev", drivers=("", OTHER, OWN),
        migratable=(0, 1, 2), mode_of_node=0o660,
    ),
    "back to legacy": Start(
        Preparation(OURS, ((PF, 1),), uid=USER, gid=USER, eswitch="legacy",
                    replace=True),
        numvfs=2, mode="switchdev", drivers=(OWN, OTHER), migratable=(1,),
        mode_of_node=0o666,
    ),
    "replaced": Start(
        Preparation(OURS, ((PF, 3),), uid=USER, gid=USER, eswitch="switchdev",
                    port_caps=ENABLED, replace=True),
        numvfs=2, mode="switchdev", drivers=(OWN, OTHER), migratable=(1,),
        mode_of_node=0o660,
    ),
    "with nodes of their own": Start(
        Preparation(OURS, ((PF, 2),), uid=USER, gid=USER, replace=True),
        numvfs=2, drivers=(OTHER, OWN), mode_of_node=0o660, own_nodes=True,
    ),
    "not probed": Start(
        Preparation(OURS, ((PF, 2),), replace=True), numvfs=1, probe=False,
    ),
}


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> Start:
    """Each of the hosts."""
    return STARTS[request.param]


@dataclass
class Killer:
    """Ends the process at a point of the course.

    :param at: The number of the point.
    :param points: The names of the points that count; all if empty.
    """

    at: int
    points: tuple[str, ...] = ()
    seen: list[str] = field(default_factory=list)

    def __call__(self, point: str) -> None:
        if self.points and point not in self.points:
            return
        if len(self.seen) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(point)


def survives(work: Callable[[], object]) -> bool:
    """Do work in a child; tell whether it was not killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def put_back(host: HostFolders) -> int:
    """Restore a host; return how much was undone."""
    undone = restore(Ledger(host.roots), host.kernel())["undone"]
    assert not Ledger(host.roots).path.exists()
    assert isinstance(undone, int)
    return undone


def test_a_whole_preparation_is_undone(start: Start, tmp_path: Path) -> None:
    host = start.make(tmp_path / "host")
    before = host.state()
    answer = host.prepare(start.wanted)
    after = host.state()
    assert after != before
    wanted = start.wanted
    assert len(answer["vfs"]) == (
        dict(wanted.counts).get(PF) or len(wanted.vfs)
    )
    taken = {x["address"] for x in answer["vfs"]}
    for name, vf in after.items():
        if name.startswith("virtfn") and vf["address"] in taken:
            assert vf["driver"] == OURS
            assert dict(wanted.port_caps).items() <= vf["caps"].items()
            if wanted.uid is not None:
                assert vf["owner"][:2] == (USER, USER)
                nodes = [x[:2] for x in vf["own"]]
                assert nodes == [(USER, USER)] * start.own_nodes
    if wanted.eswitch:
        assert after["mode"] == f"{wanted.eswitch}\n"
    # The same again changes nothing.
    assert host.prepare(wanted) == {**answer, "changed": False}
    assert host.state() == after
    assert put_back(host) > 0
    assert host.state() == before
    assert put_back(host) == 0
    assert host.state() == before


def test_a_killed_preparation_is_undone(start: Start, tmp_path: Path) -> None:
    points = start.points("noted", "after")
    for point in count():
        host = start.make(tmp_path / "host")
        before = host.state()
        killer = Killer(point, points)
        if survives(partial(host.prepare, start.wanted, killer)):
            break
        if point % 3 == 0:
            # A preparation puts back what another one has left.
            host.prepare(start.wanted)
        put_back(host)
        assert host.state() == before, point
        assert put_back(host) == 0
        assert host.state() == before, point
        host.remove()
    assert point > 10


def test_a_killed_restore_is_repeated(start: Start, tmp_path: Path) -> None:
    points = start.points("noting", "noted")
    for point in count():
        host = start.make(tmp_path / "host")
        before = host.state()
        host.prepare(start.wanted)
        ledger = Ledger(host.roots, Killer(point, points))
        if survives(partial(restore, ledger, host.kernel())):
            break
        put_back(host)
        assert host.state() == before, point
        host.remove()
    assert host.state() == before
    assert point > 10
