# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's VMs are hosts with SR-IOV, and nothing of them stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from avocado import Test
from vfio_p2p.clock import Exchange, estimate
from vfio_p2p.paths import cache_dir

# Packages and images are shared with the user's cache; the lab is our own.
_SHARED = ("apt", "debs", "testbed")

_PF = "/sys/bus/pci/devices/0000:01:00.0"
_VFS = f"""
echo 0 > {_PF}/sriov_drivers_autoprobe
echo 4 > {_PF}/sriov_numvfs
for vf in {_PF}/virtfn*; do
    echo $(basename $(readlink $vf)) $(basename $(readlink $vf/iommu_group))
done
"""


class LabVms(Test):
    """The commands of ``vfio-p2p lab``, with real VMs."""

    timeout = 1800

    def setUp(self) -> None:
        if shutil.which("ssh") is None:
            self.cancel("This machine has no OpenSSH client.")
        self.cache = Path(self.workdir, "cache")
        home = self.cache / "vfio-p2p"
        home.mkdir(parents=True)
        for name in _SHARED:
            (cache_dir() / name).mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(cache_dir() / name)
        self.folder = home / "lab" / "run"

    def tearDown(self) -> None:
        self.lab("down")

    def lab(self, *arguments: str, code: int = 0) -> str:
        """Run ``vfio-p2p lab``; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "vfio_p2p", "lab", *arguments],
            env=os.environ | {"XDG_CACHE_HOME": str(self.cache)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stderr}")
        return done.stdout + done.stderr

    def ssh(self, name: str, command: str) -> str:
        """Run a command on a VM by plain ssh."""
        return subprocess.run(
            ["ssh", "-F", str(self.folder / "ssh_config"), name, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    def machines(self) -> dict[str, Any]:
        """Return the VMs that the status knows, by name."""
        document = json.loads(self.lab("status", "--json"))
        self.assertTrue(document["up"])
        return {x["name"]: x for x in document["machines"]}

    def runs(self, pid: int) -> bool:
        """Whether a process is a VM of our lab."""
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return os.fsencode(self.folder) in line

    def ahead_ns(self, name: str) -> tuple[int, int]:
        """Return how far a VM's clock is ahead of ours, and the bound."""
        code = (
            "import sys, time\n"
            "for line in sys.stdin: print(time.time_ns(), flush=True)"
        )
        exchanges = []
        with subprocess.Popen(
            ["ssh", "-F", str(self.folder / "ssh_config"), name,
             f"python3 -c '{code}'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            for _ in range(20):
                asked_ns = time.time_ns()
                process.stdin.write("\n")
                process.stdin.flush()
                told_ns = int(process.stdout.readline())
                exchanges.append(Exchange(asked_ns, told_ns, time.time_ns()))
        found = estimate(exchanges)
        return found.offset_ns, found.bound_ns

    def test_one_vm(self) -> None:
        self.assertIn("lab-a is up", self.lab("up", "--memlock", "8192"))
        user = self.ssh("ci@lab-a", "id -u; ulimit -l; cat /etc/hostname")
        self.assertEqual(user.split(), ["1000", "8192", "lab-a"])
        found = [
            line.split()
            for line in self.lab("shell", "--", _VFS).splitlines()
        ]
        self.assertEqual(
            [x[0] for x in found],
            ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"],
        )
        self.assertEqual(len({x[1] for x in found}), 4)
        # The project's modules fit the kernel.
        ours = self.ssh("lab-a", "modprobe p2pvf && lsmod && devlink dev")
        for name in "p2pvf", "labpf", "pci/0000:02:00.0":
            self.assertIn(name, ours)
        self.lab("shell", "--", "exit 7", code=7)

        (vm,) = self.machines().values()
        self.assertIn("already up", self.lab("up", "--memlock", "8192"))
        self.assertIn("lab down", self.lab("up", code=2))
        self.assertEqual(self.machines()["lab-a"], vm)

        # A host that crashed is another one for whatever a boot remembers.
        boot = "cat /proc/sys/kernel/random/boot_id"
        before = self.ssh("lab-a", boot)
        self.lab("shell", "a", "--", "reboot", code=255)
        self.lab("up", "--memlock", "8192")
        self.assertNotEqual(self.ssh("lab-a", boot), before)

        os.kill(vm["pid"], signal.SIGSTOP)
        self.assertIn("1 VM was ended", self.lab("down"))
        self.assertFalse(self.folder.exists())
        self.assertFalse(self.runs(vm['pid']))
        with socket.socket() as port:
            self.assertNotEqual(
                port.connect_ex(("127.0.0.1", vm["ssh_port"])), 0
            )
        self.assertIn("is down", self.lab("status", code=4))

    def test_two_vms(self) -> None:
        options = ("up", "--hosts", "2", "--clock-offset-ms", "100000")
        self.lab(*options)
        for name in ("lab-a", "lab-b"):
            self.ssh(name, "ping -c 1 10.9.0.1 && ping -c 1 10.9.0.2")
        for name, wanted_ns in ("lab-a", 0), ("lab-b", 100_000_000_000):
            offset_ns, bound_ns = self.ahead_ns(name)
            # Setting the clock had a bound of its own.
            self.assertLess(abs(offset_ns - wanted_ns), 10**10 + bound_ns)

        before = self.machines()
        os.kill(before["lab-a"]["pid"], signal.SIGKILL)
        self.lab("status", code=4)
        self.lab(*options)
        after = self.machines()
        self.assertEqual(after.keys(), before.keys())
        self.assertNotEqual(after["lab-b"]["pid"], before["lab-b"]["pid"])
        self.assertFalse(self.runs(before['lab-b']['pid']))

    def test_nvme(self) -> None:
        self.lab("up", "--card", "nvme")
        found = [
            line.split()
            for line in self.lab("shell", "--", _VFS).splitlines()
        ]
        self.assertEqual(
            [x[0] for x in found],
            ["0000:01:00.1", "0000:01:00.2", "0000:01:00.3", "0000:01:00.4"],
        )
        self.assertEqual(len({x[1] for x in found}), 4)

    def test_up_that_is_killed(self) -> None:
        """Whatever it left is found again, and ended."""
        with subprocess.Popen(
            [sys.executable, "-m", "vfio_p2p", "lab", "up"],
            env=os.environ | {"XDG_CACHE_HOME": str(self.cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            # It is removed when QEMU is in the background.
            initramfs = self.folder / "lab-a.cpio"
            while not initramfs.exists():
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            while initramfs.exists():
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            process.kill()
        pid = int((self.folder / "lab-a.pid").read_text())
        self.assertTrue(self.runs(pid))
        shutil.rmtree(self.folder)
        self.assertTrue(self.runs(pid))
        self.assertIn("1 VM was ended", self.lab("down"))
        self.assertFalse(self.runs(pid))
