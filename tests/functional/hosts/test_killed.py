# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of vfio-p2p at any moment leaves no QEMU, and no changed host."""

from __future__ import annotations

import random
import time

from hosting import HostTest

# How long the phases take on a host of the lab, about.
_PREPARE_S = 8.0
_RUN_S = 30.0
_RESTORE_S = 6.0

# A QEMU that lost its watcher's connection has to be gone by then.
_GONE_S = 10.0
# An SSH login to a VM under load, which is not the QEMU's delay.
_LOOK_S = 20.0


class Killed(HostTest):
    """A lab of two hosts, whose controller is killed again and again.

    ``-p kills=60`` sets how often, ``-p seed=1`` where.
    """

    timeout = 4 * 3600
    lab_options = ("--hosts", "2")
    lab_place = "lab-pair"

    def test_kill_9(self) -> None:
        self.need_lab()
        kills = int(self.params.get("kills", default=4))
        chance = random.Random(int(self.params.get("seed", default=1)))
        self.vfio_p2p("host", "prepare", "--at", self.at)
        # The driver stays loaded, and the build is made.
        self.vfio_p2p("run", "two-devices", "--at", self.at)
        self.vfio_p2p("host", "restore", "--at", self.at)
        before = self.state()
        phases = [self.in_prepare, self.in_run, self.in_restore, self.of_ssh]
        for number in range(kills):
            phase = phases[number % len(phases)]
            self.log.info("kill %d: %s", number + 1, phase.__name__)
            phase(chance)
            self.no_qemu()
            self.vfio_p2p("host", "restore", "--at", self.at)
            self.assertEqual(self.state(), before, phase.__name__)

    def killed(self, delay_s: float, *arguments: str) -> None:
        """Start ``vfio-p2p`` and kill it after a while."""
        with self.popen(*arguments, "--at", self.at) as process:
            time.sleep(delay_s)
            ended = process.poll() is not None
            process.kill()
            process.communicate()
        self.log.info("after %.3f s (ended: %s)", delay_s, ended)

    def in_prepare(self, chance: random.Random) -> None:
        """Kill the preparation."""
        self.killed(chance.uniform(0, _PREPARE_S), "host", "prepare")

    def in_run(self, chance: random.Random) -> None:
        """Kill a run."""
        self.vfio_p2p("host", "prepare", "--at", self.at)
        self.killed(chance.uniform(0, _RUN_S), "run", "two-devices")

    def in_restore(self, chance: random.Random) -> None:
        """Kill the restoration."""
        self.vfio_p2p("host", "prepare", "--at", self.at)
        self.killed(chance.uniform(0, _RESTORE_S), "host", "restore")

    def of_ssh(self, chance: random.Random) -> None:
        """Kill the SSH sessions on one host during a run."""
        self.vfio_p2p("host", "prepare", "--at", self.at)
        host = chance.choice(self.hosts)
        with self.popen("run", "two-devices", "--at", self.at) as process:
            time.sleep(chance.uniform(0, _RUN_S))
            # Not the listener, nor our own session.
            self.ssh(
                host,
                "me=$(ps -o ppid= -p $$ | tr -d ' '); "
                "up=$(ps -o ppid= -p $me | tr -d ' '); "
                "for x in $(pgrep -f 'sshd: '); do "
                "case $x in $me|$up) ;; *) "
                "ps -o args= -p $x | grep -q listener || kill -9 $x ;; "
                "esac; done; true",
            )
            _, stderr = process.communicate()
        self.log.info("it ended with %d: %s", process.returncode, stderr)
        # It was over, or it says that the host is gone.
        self.assertIn(process.returncode, (0, 5))
        self.assertNotIn("Traceback", stderr)

    def no_qemu(self) -> None:
        """Check that no QEMU is left in time."""
        end = time.monotonic() + _GONE_S + _LOOK_S
        while self.qemus():
            self.assertLess(time.monotonic(), end, "a QEMU is left")
            time.sleep(0.2)
