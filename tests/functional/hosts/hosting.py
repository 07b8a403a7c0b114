# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by the tests of places of real devices.

``avocado run tests/functional/hosts -p at=NAME`` runs them at a place of the
user's hosts.toml (``-p hosts=FILE`` names another file).  Without that, each
test makes a lab of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avocado import Test
from vfio_p2p.paths import cache_dir

# What is found or built once is shared with the user's cache; labs and
# results are not.
_SHARED = ("apt", "builds", "debs", "downloads", "sources", "testbed", "work")

# Everything that a preparation changes, as one text.
_STATE = """
for pf in /sys/bus/pci/devices/*/sriov_numvfs; do
    d=$(dirname $pf)
    echo $(basename $d) $(cat $pf) $(cat $d/sriov_drivers_autoprobe)
    for vf in $(ls -d $d/virtfn* 2>/dev/null); do
        a=$(basename $(readlink $vf))
        echo $a $(basename $(readlink $vf/driver)) $(cat $vf/driver_override)
    done
    if [ -d /sys/kernel/config/p2pvf ]; then ls /sys/kernel/config/p2pvf; fi
    devlink dev eswitch show pci/$(basename $d) 2>&1
done
devlink port show 2>&1
ls -ln /dev/vfio | tail -n +2 | sed 's/ [A-Z][a-z][a-z] .* / /'
find /run/vfio-p2p -type f 2>/dev/null
"""

# The program is a dynamic loader.  The brackets keep the search from finding
# itself.
_QEMUS = "grep -las 'qemu-syste[m]-x86_64' /proc/[0-9]*/cmdline | wc -l"


class HostTest(Test):
    """A test at a place of real devices, in a lab unless one is named."""

    timeout = 3600
    #: The options of ``vfio-p2p lab up``.
    lab_options: tuple[str, ...] = ()
    #: The place in the lab's hosts.toml.
    lab_place = "lab-host"

    def setUp(self) -> None:
        at = self.params.get("at")
        self.own = at is None
        self.at = at or self.lab_place
        self.environment: dict[str, str] = dict(os.environ)
        if not self.own:
            if hosts := self.params.get("hosts"):
                self.environment["VFIO_P2P_HOSTS"] = hosts
            return
        if shutil.which("ssh") is None:
            self.cancel("This machine has no OpenSSH client.")
        cache = Path(self.workdir, "cache")
        home = cache / "vfio-p2p"
        home.mkdir(parents=True)
        for name in _SHARED:
            (cache_dir() / name).mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(cache_dir() / name)
        self.lab = home / "lab" / "run"
        self.environment |= {
            "XDG_CACHE_HOME": str(cache),
            "VFIO_P2P_HOSTS": str(self.lab / "hosts.toml"),
        }
        self.vfio_p2p("lab", "up", *self.lab_options)
        self.hosts = ["lab-a"]
        if "2" in self.lab_options:
            self.hosts.append("lab-b")

    def tearDown(self) -> None:
        if self.own:
            self.vfio_p2p("lab", "down")

    def need_lab(self) -> None:
        """Cancel the test if it is to be run at a place of the user's."""
        if not self.own:
            self.cancel("This test changes hosts, and needs a lab.")

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``vfio-p2p``."""
        return subprocess.Popen(
            [sys.executable, "-m", "vfio_p2p", *arguments],
            env=self.environment,
            cwd=self.workdir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def vfio_p2p(self, *arguments: str, code: int = 0) -> str:
        """Run ``vfio-p2p``; return all that it prints."""
        with self.popen(*arguments) as process:
            stdout, stderr = process.communicate()
        self.assertEqual(
            process.returncode, code, f"{shlex.join(arguments)}:\n{stderr}"
        )
        self.assertNotIn("Traceback", stderr)
        return stdout + stderr

    def report(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run ``vfio-p2p``; return the one document that it prints."""
        with self.popen(*arguments, "--json") as process:
            stdout, stderr = process.communicate()
        self.assertEqual(process.returncode, code, stderr)
        document: dict[str, Any] = json.loads(stdout)
        return document

    def ssh(self, host: str, command: str) -> str:
        """Run a command on a VM of the lab, by plain ssh."""
        done = subprocess.run(
            ["ssh", "-F", str(self.lab / "ssh_config"), host, command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done.stdout

    def state(self) -> Mapping[str, str]:
        """Return everything that a preparation changes, by host."""
        return {host: self.ssh(host, _STATE) for host in self.hosts}

    def qemus(self) -> int:
        """Count the QEMUs that run on all VMs of the lab."""
        return sum(int(self.ssh(x, _QEMUS) or 0) for x in self.hosts)
