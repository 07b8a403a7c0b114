# SPDX-License-Identifier: GPL-2.0-or-later
"""A blackout between two hosts is right within its stated bound."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from pathlib import Path

from hosting import HostTest

_AHEAD_NS = 100 * 10**6
# What is known less exactly than this could not tell a wrong blackout.
_WORST_NS = 20 * 10**6

_TICKS = 40
_MARK = b"\x16"
# A VM writes a byte to the port of its first serial line, and QEMU puts that
# byte into a file of this machine before the VM goes on.
_TICK = f"""
import os, time
port = os.open("/dev/port", os.O_RDWR)
for _ in range({_TICKS}):
    begin = time.time_ns()
    os.pwrite(port, {_MARK!r}, 0x3f8)
    print(begin, time.time_ns())
    time.sleep(0.02)
"""

_LINE = re.compile(r"\d+@(\d+)\.(\d{6}):(.*)")


class ClockTruth(HostTest):
    """Two VMs of one machine, whose own clock tells what is right.

    The two clocks are compared over the VMs' serial lines with that of this
    machine, which is not how the harness does it.  ``-p runs=5`` sets how
    often.
    """

    lab_options = ("--hosts", "2", "--clock-offset-ms", "100")
    lab_place = "lab-pair"

    def test_the_blackout(self) -> None:
        self.need_lab()
        self.vfio_p2p("host", "prepare", "--at", self.at)
        for number in range(int(self.params.get("runs", default=1))):
            out = Path(self.workdir, f"run-{number}")
            before = self.ahead()
            (run,) = self.report(
                "run", "two-devices", "--at", self.at, "--out", str(out)
            )["runs"]
            after = self.ahead()
            self.assertEqual((run["verdict"], run["notes"]), ("pass", []))
            # Clocks drift: between the two, anything in between is possible.
            low_ns = min(before[0], after[0])
            high_ns = max(before[1], after[1])
            raw_ns = self.raw_blackout(out)
            truth_ns = raw_ns - (low_ns + high_ns) // 2
            error_ns = (high_ns - low_ns + 1) // 2
            stated_ns = run["blackout_ns"]
            bound_ns = run["blackout_bound_ns"]
            self.log.info(
                "run %d: stated %.3f ms ±%.3f ms, truth %.3f ms ±%.3f ms, "
                "difference %+.3f ms; the clock of %s is ahead by %.3f ms "
                "before and %.3f ms after, and the harness says %.3f ms",
                number, stated_ns / 1e6, bound_ns / 1e6, truth_ns / 1e6,
                error_ns / 1e6, (stated_ns - truth_ns) / 1e6, self.hosts[1],
                sum(before) / 2e6, sum(after) / 2e6,
                run["inputs"]["place"]["clock"]["offset_ns"] / 1e6,
            )  # fmt: skip
            # Otherwise there is nothing to get wrong, or to see it by.
            self.assertGreater(low_ns, _AHEAD_NS / 2)
            self.assertLess(bound_ns + error_ns, _WORST_NS)
            self.assertLessEqual(
                abs(stated_ns - truth_ns), bound_ns + error_ns
            )

    def ahead(self) -> tuple[int, int]:
        """Say how far the destination's clock is ahead: at least, at most."""
        one, two = (self.against_ours(host) for host in self.hosts)
        return two[0] - one[1], two[1] - one[0]

    def against_ours(self, host: str) -> tuple[int, int]:
        """Return the limits of a VM's clock minus that of this machine."""
        seen: list[tuple[int, int]] = []
        console = self.lab / f"{host}.console.txt"
        command = f"python3 -c {shlex.quote(_TICK)}"
        with (
            console.open("rb", buffering=0) as file,
            subprocess.Popen(
                ["ssh", "-F", str(self.lab / "ssh_config"), host, command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            ) as process,
        ):
            file.seek(0, 2)
            missing_ns = time.monotonic_ns()
            over = False
            while not over:
                over = process.poll() is not None
                begin_ns = time.monotonic_ns()
                marks = file.read(1 << 16).count(_MARK)
                seen += [(missing_ns, time.monotonic_ns())] * marks
                # The next mark was not there yet when we looked.
                missing_ns = begin_ns
            assert process.stdout
            told = [tuple(map(int, x.split())) for x in process.stdout]
        self.assertEqual((len(told), len(seen)), (_TICKS, _TICKS))
        pairs = zip(told, seen, strict=True)
        return min(
            (
                (begin - late, end - early)
                for (begin, end), (early, late) in pairs
            ),
            key=lambda limits: limits[1] - limits[0],
        )

    def raw_blackout(self, bundle: Path) -> int:
        """Return the end on one clock minus the start on the other."""
        stopped = 0
        for time_ns, text in self.trace(bundle, "source"):
            if text.startswith("vm_state_notify running 0"):
                stopped = 0
            elif text.startswith("vfio_save_complete_precopy_start"):
                break
            elif text.startswith("vfio_migration_set_state"):
                stopped = stopped or time_ns
        running: dict[str, int] = {}
        for time_ns, text in self.trace(bundle, "destination"):
            event, _, rest = text.partition(" ")
            if event == "vfio_migration_set_device_state":
                device, _, state = rest.partition(" state ")
                if state == "RESUMING":
                    running.pop(device, None)
                elif state == "RUNNING":
                    running.setdefault(device, time_ns)
        self.assertEqual(len(running), 2)
        return max(running.values()) - stopped

    def trace(self, bundle: Path, side: str) -> list[tuple[int, str]]:
        """Return the times and the texts of a trace, as QEMU wrote it."""
        lines = (bundle / side / "trace.log").read_text().splitlines()
        return [
            (int(match[1]) * 10**9 + int(match[2]) * 1000, match[3])
            for match in map(_LINE.fullmatch, lines)
            if match
        ]
