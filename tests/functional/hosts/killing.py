# SPDX-License-Identifier: GPL-2.0-or-later
"""Kill the agent on a real host, and look whether the host comes back.

This file needs nothing but Python: it is sent to a host of the lab, whose
devices are real to Linux, and runs there as root beside the agent's zip file.
It prints one JSON document for each start state::

    python3 killing.py agent.pyz 0000:01:00.0 --kills 12 --seed 1

A state is made without the agent. Then, again and again, the agent is killed
(SIGKILL) while it prepares or restores, and ``restore`` has to bring back what
was there before, twice in a row.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEVICES = Path("/sys/bus/pci/devices")
DRIVERS = Path("/sys/bus/pci/drivers")
DEVLINK = "/sbin/devlink"
LEDGER = Path("/run/vfio-p2p/ledger.jsonl")

OWN = "igbvf"
OURS = "p2pvf"
OTHER = "vfio-pci"
USER = 1000

_WATCH_S = 0.005


@dataclass(frozen=True)
class StartState:
    """A host before it is prepared, and the request.

    :param name: What the state is called.
    :param request: What is asked of the agent, without the PF.
    :param mode: The mode of the card's switch.
    :param drivers: The drivers of the virtual functions that are there; an
        override is set for all but their own one.
    :param migratable: The numbers of those that may migrate.
    :param nodes: The numbers of those whose group belongs to a user.
    :param probe: Whether new virtual functions are probed.
    """

    name: str
    request: dict[str, Any]
    mode: str = "legacy"
    drivers: tuple[str, ...] = ()
    migratable: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    probe: bool = True


_WANTED: dict[str, Any] = {
    "format": 1,
    "driver": OURS,
    "owner": {"uid": USER, "gid": USER},
    "port_caps": {"migratable": "enable"},
}

STATES = (
    StartState(
        "no functions",
        {**_WANTED, "count": 2, "eswitch": "switchdev"},
    ),
    StartState(
        "two bound to their own driver",
        {**_WANTED, "count": 2, "eswitch": "switchdev"},
        drivers=(OWN, OWN),
    ),
    StartState(
        "bound to ours",
        {**_WANTED, "count": 3},
        mode="switchdev",
        drivers=(OURS,) * 3,
        migratable=(0, 1),
        nodes=(1,),
        probe=False,
    ),
    StartState(
        "replaced",
        {**_WANTED, "count": 3, "eswitch": "switchdev", "replace": True},
        mode="switchdev",
        drivers=(OWN, OTHER),
        migratable=(1,),
        nodes=(1,),
    ),
    StartState(
        "back to legacy",
        {**_WANTED, "count": 1, "eswitch": "legacy", "replace": True,
         "port_caps": {}},
        mode="switchdev",
        drivers=(OWN, ""),
        migratable=(0, 1),
    ),
)


def make(pf: str, state: StartState) -> None:
    """Bring a card into a state."""
    device = DEVICES / pf
    (device / "sriov_numvfs").write_text("0")
    (device / "sriov_drivers_autoprobe").write_text("0")
    # A driver that is loaded later would bind functions by itself.
    for driver in (OWN, OURS, OTHER):
        subprocess.run(["/sbin/modprobe", driver], check=True)
    set_mode(pf, state.mode)
    if state.drivers:
        (device / "sriov_numvfs").write_text(str(len(state.drivers)))
    vfs = [
        (device / f"virtfn{number}").resolve()
        for number in range(len(state.drivers))
    ]
    ports = devlink("-j", "port", "show").get("port", {})
    for handle, port in ports.items():
        number = port.get("vfnum")
        if handle.startswith(f"pci/{pf}/") and number in state.migratable:
            devlink("port", "function", "set", handle, "migratable", "enable")
    (device / "sriov_drivers_autoprobe").write_text(
        "1" if state.probe else "0"
    )
    # The host's Python may not know 'strict'.
    for number, (vf, driver) in enumerate(
        zip(vfs, state.drivers)  # noqa: B905
    ):
        if driver == OWN and not state.probe:
            raise ValueError("nothing binds it then")
        if driver not in ("", OWN):
            (vf / "driver_override").write_text(driver)
        if driver:
            (DRIVERS / driver / "bind").write_text(vf.name)
        if number in state.nodes:
            node = node_of(vf)
            os.chown(node, USER, USER)
            node.chmod(0o660)


def set_mode(pf: str, mode: str) -> None:
    """Set the mode of the switch, where there is one."""
    if mode_of(pf) not in ("", mode):
        devlink("dev", "eswitch", "set", f"pci/{pf}", "mode", mode)


def mode_of(pf: str) -> str:
    """Return the mode of the switch; "" without one."""
    told = devlink("-j", "dev", "eswitch", "show", f"pci/{pf}")
    mode = told.get("dev", {}).get(f"pci/{pf}", {}).get("mode", "")
    return str(mode)


def devlink(*arguments: str) -> dict[str, Any]:
    """Run devlink; return what it prints."""
    done = subprocess.run(
        [DEVLINK, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode and "set" in arguments:
        raise OSError(f"devlink {arguments}: {done.stderr}")
    try:
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
    except ValueError:
        answer = {}
    return answer


def node_of(vf: Path) -> Path:
    """Return the node of a function's group."""
    return Path("/dev/vfio") / (vf / "iommu_group").resolve().name


def snapshot(pf: str) -> dict[str, Any]:
    """Return all that a preparation may change."""
    device = DEVICES / pf
    found: dict[str, Any] = {
        "numvfs": (device / "sriov_numvfs").read_text(),
        "autoprobe": (device / "sriov_drivers_autoprobe").read_text(),
        "driver": (device / "driver").resolve().name,
        "mode": mode_of(pf),
    }
    ports = devlink("-j", "port", "show").get("port", {})
    for handle, port in ports.items():
        if handle.startswith(f"pci/{pf}/"):
            found[handle] = [port.get("vfnum"), port.get("function")]
    for link in sorted(device.glob("virtfn*")):
        vf = link.resolve()
        driver = vf / "driver"
        node = node_of(vf)
        owner = None
        if node.exists():
            told = node.stat()
            owner = [told.st_uid, told.st_gid, stat.S_IMODE(told.st_mode)]
        found[link.name] = {
            "address": vf.name,
            "driver": driver.resolve().name if driver.exists() else "",
            "override": (vf / "driver_override").read_text(),
            "owner": owner,
        }
    return found


@dataclass(frozen=True)
class Pace:
    """How the ledger grows while the agent works.

    :param first: The number of its lines at first.
    :param last: The highest number of its lines.
    :param line_s: How long each takes.
    """

    first: int
    last: int
    line_s: float


@dataclass
class Trial:
    """The kills from one start state.

    :param agent: The agent's zip file.
    :param pf: The card's address.
    :param state: The start state.
    :param dice: Where the moments come from.
    """

    agent: str
    pf: str
    state: StartState
    dice: random.Random
    wrong: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    kills: int = 0
    unharmed: int = 0

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start the agent."""
        process = subprocess.Popen(
            [sys.executable, self.agent, *command.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        if command == "prepare":
            json.dump({**self.state.request, "pf": self.pf}, process.stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, command: str) -> dict[str, Any]:
        """Run the agent, and return its answer."""
        process = self.start(command)
        out, _ = process.communicate()
        answer: dict[str, Any] = json.loads(out)
        return {"status": process.returncode, **answer}

    def pace(self, command: str) -> Pace:
        """Run the agent, and watch the ledger grow."""
        first = ledger_lines()
        begin_s = time.monotonic()
        process = self.start(command)
        last = first
        while process.poll() is None:
            last = max(last, ledger_lines())
            time.sleep(_WATCH_S)
        out, _ = process.communicate()
        if process.returncode:
            raise OSError(out)
        took_s = time.monotonic() - begin_s
        return Pace(first, last, took_s / max(last - first, 1))

    def kill(self, command: str, pace: Pace) -> None:
        """Kill the agent at a random moment of its changes."""
        process = self.start(command)
        # The machine's load must not decide what is hit: the moment is
        # after a certain line.
        line = self.dice.randint(pace.first, pace.last)
        while process.poll() is None and ledger_lines() < line:
            time.sleep(_WATCH_S)
        time.sleep(self.dice.uniform(0, pace.line_s))
        if process.poll() is None:
            self.kills += 1
        else:
            self.unharmed += 1
        process.kill()
        process.communicate()
        self.lines.append(ledger_lines())

    def check(self, before: dict[str, Any], what: str) -> None:
        """Restore twice, and compare."""
        for turn in 1, 2:
            answer = self.run(f"restore --pf {self.pf}")
            after = snapshot(self.pf)
            if answer["status"] or after != before or LEDGER.exists():
                self.wrong.append({
                    "kill": self.kills, "what": what, "turn": turn,
                    "answer": answer, "before": before, "after": after,
                })

    def go(self, kills: int) -> None:
        """Kill the agent as often as wanted."""
        make(self.pf, self.state)
        before = snapshot(self.pf)
        prepare = self.pace("prepare")
        if snapshot(self.pf) == before:
            raise OSError("the preparation changes nothing")
        restore = self.pace(f"restore --pf {self.pf}")
        self.check(before, "nothing killed")
        while self.kills < kills and not self.wrong:
            turn = self.kills % 4
            if turn < 2:
                self.kill("prepare", prepare)
            elif turn == 2:
                self.run("prepare")
                self.kill(f"restore --pf {self.pf}", restore)
            else:
                self.kill("prepare", prepare)
                self.kill("prepare", prepare)
                answer = self.run("prepare")
                if answer["status"]:
                    self.wrong.append({"what": "again", "answer": answer})
            self.check(before, f"turn {turn}")


def ledger_lines() -> int:
    """Return the number of lines of the ledger."""
    try:
        return LEDGER.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def main() -> int:
    """Kill the agent from each of the start states."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("agent")
    parser.add_argument("pf")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", action="append")
    given = parser.parse_args()
    code = 0
    for number, state in enumerate(STATES):
        if given.state and state.name not in given.state:
            continue
        dice = random.Random(given.seed * 100 + number)
        trial = Trial(given.agent, given.pf, state, dice)
        begin_s = time.monotonic()
        trial.go(given.kills)
        print(json.dumps({
            "state": state.name,
            "kills": trial.kills,
            "unharmed": trial.unharmed,
            "ledger_lines": trial.lines,
            "wrong": trial.wrong,
            "seconds": round(time.monotonic() - begin_s),
        }), flush=True)
        if trial.wrong:
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
