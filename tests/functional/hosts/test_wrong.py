# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a host is said, each thing with its own exit code."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

from hosting import HostTest

_VF = "/sys/bus/pci/devices/0000:01:10.0"
_REBIND = """
echo 0000:01:10.0 > {vf}/driver/unbind
echo {driver} > {vf}/driver_override
echo 0000:01:10.0 > /sys/bus/pci/drivers_probe
"""
# A QEMU of somebody else's.
_FOREIGN = """
qemu-system-x86_64 -M q35 -m 64 -nodefaults -display none -S -daemonize \
    -pidfile /tmp/foreign.pid -device vfio-pci,host=0000:01:10.0
"""
_RUN = ("run", "two-devices")
_LONG = (
    "validate", "--variant", "patched", "--scenario", "two-devices",
    "--seeds", "20",
)  # fmt: skip


class Trouble(HostTest):
    """A lab whose hosts are not as they have to be."""

    def said(self, *arguments: str, code: int, text: str) -> None:
        """Run a command that fails, and look for its reason."""
        self.assertIn(text, self.vfio_p2p(*arguments, code=code))
        self.log.info("%s: exit %d, %r", arguments, code, text)

    def setUp(self) -> None:
        super().setUp()
        self.need_lab()

    def as_user(self) -> tuple[str, ...]:
        """Return the options for the lab's ordinary user."""
        hosts = Path(self.workdir, "ci.toml")
        text = (self.lab / "hosts.toml").read_text()
        hosts.write_text(text.replace("root@", "ci@"))
        return ("--at", self.at, "--hosts", str(hosts))


class Wrong(Trouble):
    """One host on which things go wrong, one after another."""

    def test_before_and_after_a_preparation(self) -> None:
        at = ("--at", self.at)
        self.said(*_RUN, *at, code=2, text="VFs: 0, but 4 or more")
        self.said(
            *("host", "prepare", *at, "--pf", "0000:09:00.0"),
            *("--count", "1"),
            code=2,
            text="0000:09:00.0",
        )
        self.vfio_p2p("host", "prepare", *at)

        # Plain vfio-pci has the device.
        self.ssh("lab-a", _REBIND.format(vf=_VF, driver="vfio-pci"))
        self.said(*_RUN, *at, code=2, text="vfio-pci, which migrates no")
        self.ssh("lab-a", _REBIND.format(vf=_VF, driver="p2pvf"))

        # Its migration was switched off before it was bound.
        self.ssh(
            "lab-a",
            f"echo 0000:01:10.0 > {_VF}/driver/unbind; "
            "devlink port function set pci/0000:01:00.0/1 migratable "
            f"disable; echo 0000:01:10.0 > /sys/bus/pci/drivers_probe",
        )
        self.said(*_RUN, *at, code=2, text="migratable: disable")
        self.ssh(
            "lab-a",
            f"echo 0000:01:10.0 > {_VF}/driver/unbind; "
            "devlink port function set pci/0000:01:00.0/1 migratable enable; "
            f"echo 0000:01:10.0 > /sys/bus/pci/drivers_probe",
        )

        # A foreign QEMU has it.
        self.ssh("lab-a", _FOREIGN)
        pid = self.ssh("lab-a", "cat /tmp/foreign.pid").strip()
        self.said(*_RUN, *at, code=4, text=f"PID {pid}")
        self.said("host", "restore", *at, code=4, text=f"PID {pid}")
        self.ssh("lab-a", f"kill {pid}; while [ -d /proc/{pid} ]; do :; done")

        # Somebody else runs something there, which takes longer than to ask.
        with self.popen(*_LONG, *at) as other:
            while not self.qemus():
                self.assertIsNone(other.poll())
            ours = shlex.join(["vfio-p2p", *_LONG, *at])
            self.said(*_RUN, *at, code=4, text=f"is taken by {ours} of ")
            other.terminate()
            other.communicate()
        self.assertEqual(self.qemus(), 0)

        # An ordinary user to whom the functions do not belong.
        self.said(
            *(*_RUN, *self.as_user()), code=2, text="ci may read and write it"
        )

        # No room there.
        self.ssh("lab-a", "dd if=/dev/zero of=/tmp/full bs=1M; true")
        found = self.vfio_p2p_any(*_RUN, *at)
        self.assertIn("lab-host", found)
        self.ssh("lab-a", "rm /tmp/full")

        self.vfio_p2p("host", "restore", *at)

    def vfio_p2p_any(self, *arguments: str) -> str:
        """Run a command that fails for lack of room, in whatever step."""
        with self.popen(*arguments) as process:
            stdout, stderr = process.communicate()
        self.assertIn(process.returncode, (2, 5))
        self.assertNotIn("Traceback", stderr)
        self.log.info("no room: exit %d, %s", process.returncode, stderr)
        return stdout + stderr

    def test_a_host_that_is_not_reached(self) -> None:
        hosts = Path(self.workdir, "other.toml")
        text = (self.lab / "hosts.toml").read_text()
        place = ("--at", self.at, "--hosts", str(hosts))

        port = text.partition("127.0.0.1:")[2].partition('"')[0]
        hosts.write_text(text.replace(f":{port}", ":9"))
        self.said(*_RUN, *place, code=5, text="lab-host")

        keys = Path(self.workdir, "nothing")
        keys.write_text("")
        hosts.write_text(
            text.replace(str(self.lab / "known_hosts"), str(keys))
        )
        self.said(*_RUN, *place, code=2, text="is unknown")

    def test_a_host_that_freezes(self) -> None:
        at = ("--at", self.at)
        self.vfio_p2p("host", "prepare", *at)
        (machine,) = self.report("lab", "status")["machines"]
        with self.popen(*_RUN, *at) as process:
            while not self.qemus():
                self.assertIsNone(process.poll())
            os.kill(machine["pid"], signal.SIGSTOP)
            begin = time.monotonic()
            _, stderr = process.communicate()
            seconds = time.monotonic() - begin
        os.kill(machine["pid"], signal.SIGCONT)
        self.log.info("noticed after %.1f s: %s", seconds, stderr)
        self.assertEqual(process.returncode, 5, stderr)
        self.assertIn("lab-host", stderr)
        # Ten seconds, and the time to give up.
        self.assertLess(seconds, 30)
        end = time.monotonic() + 60
        while self.qemus():
            self.assertLess(time.monotonic(), end)
        self.vfio_p2p("host", "restore", *at)


class Bare(Trouble):
    """A host without an IOMMU, with a low limit and old tools."""

    lab_options = ("--no-iommu", "--memlock", "8192")

    def test_check(self) -> None:
        check = ("host", "check")
        at = ("--at", self.at)
        self.said(*check, *at, code=2, text="IOMMU: none")
        self.said(
            *(*check, *self.as_user()),
            code=2,
            text="locked memory of ci: at most 8192 KiB",
        )
        # All that is asked of the tool is what it calls itself.
        self.ssh(
            "lab-a",
            "mv /sbin/ip /sbin/ip.new; "
            "printf '#!/bin/sh\\necho ip utility, iproute2-6.1.0, "
            "libbpf 1.1.0\\n' > /sbin/ip; chmod +x /sbin/ip",
        )
        self.said(*check, *at, code=2, text="devlink: iproute2 6.1")


class OtherFirmware(Trouble):
    """A pair whose cards differ."""

    lab_options = ("--hosts", "2")
    lab_place = "lab-pair"

    def test_check(self) -> None:
        self.ssh(
            "lab-b",
            "rmmod labpf; modprobe labpf fw_version=28.42.1000 "
            "fw_psid=LAB0000000002",
        )
        self.vfio_p2p("host", "prepare", "--at", self.at)
        at = ("--at", self.at)
        self.said(*_RUN, *at, code=2, text="lab-a and lab-b, PSID")
        self.said("host", "check", *at, code=2, text="firmware: 28.42.1000")
        self.vfio_p2p("host", "restore", "--at", self.at)
