# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of the runner with fake_qmp.py in QEMU's place."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from vfio_p2p.machine.process import bound
from vfio_p2p.scenario import result as result_format
from vfio_p2p.scenario.argv import Launcher
from vfio_p2p.scenario.model import Device, Limits, Scenario
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.runner import run
from vfio_p2p.side import Side

FAKE = Path(__file__).with_name("fake_qmp.py")
SOURCE = Side.SOURCE.value
DESTINATION = Side.DESTINATION.value
SIDES = (SOURCE, DESTINATION)
DEVICES = {
    side: [{"sysfsdev": "/a"}, {"sysfsdev": "/b"}] for side in Side
}
SCENARIO = Scenario(
    name="fake",
    devices=(Device(count=2),),
    limits=Limits(launch_s=30, command_s=30, migrate_s=30),
)


def launchers(*argv: str) -> dict[Side, Launcher]:
    """Return the same program for both sides."""
    return {side: Launcher(argv, Path("/firmware")) for side in Side}


def fakes(plan: Path) -> dict[Side, Launcher]:
    """Return fakes that follow a plan and do not outlive this process."""
    return launchers(*bound([sys.executable, str(FAKE), str(plan)]))


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@dataclass(frozen=True)
class Bench:
    """The folders of one test.

    :param folder: The folder for the plan and the fakes' pids.
    :param private: The folder that replaces /tmp.
    """

    folder: Path
    private: Path

    @property
    def out(self) -> Path:
        """The folder that the run fills."""
        return self.folder / "out"

    def plan(self, **sides: dict[str, Any]) -> Path:
        """Write the plan for the fakes."""
        path = self.folder / "plan.json"
        path.write_text(json.dumps(sides))
        return path

    async def run(
        self,
        limits: Limits = SCENARIO.limits,
        scenario: Scenario = SCENARIO,
        before_migration: Callable[[], None] | None = None,
        **sides: Any,
    ) -> Result:
        """Make one run with a plan; "_" in a name stands for "-"."""
        sides = {name.replace("_", "-"): plan for name, plan in sides.items()}
        scenario = msgspec.structs.replace(scenario, limits=limits)
        self.out.mkdir()
        found = await run(
            scenario,
            fakes(self.plan(**sides)),
            DEVICES,
            self.out,
            before_migration,
        )
        written = (self.out / "result.json").read_bytes()
        assert result_format.from_json(written) == found
        return found

    def sent(self, name: str) -> list[str]:
        """Return the commands that a QEMU was sent, in order."""
        lines = (self.out / name / "qmp.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        return [e["msg"]["execute"] for e in entries if e["dir"] == "->"]

    def pids(self) -> dict[str, int]:
        """Return the process ids of the fakes that were started, by side."""
        return {
            path.stem: int(path.read_text())
            for path in self.folder.glob("*.pid")
        }

    def wait_for(self, side: str) -> None:
        """Wait until a fake has made its mark."""
        for _ in range(6000):
            if (self.folder / f"{side}.mark").exists():
                return
            time.sleep(0.01)
        pytest.fail(f"the {side} never got there")
