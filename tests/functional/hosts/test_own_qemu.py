# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs that hosts have themselves, and migrations that they encrypt."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosting import HostTest

_QEMU = "/usr/bin/qemu-system-x86_64"
_RUN = ("run", "two-devices", "--variant", "installed")
# The first bytes of a stream of QEMU ("QEVM"), and of a TLS handshake.
_PLAIN = "5145564d"
_TLS = "1603"
# A QEMU without TLS, to the letter; everything else it passes on.
_WITHOUT_TLS = f"""\
#!/bin/sh
case "$*" in
*tls-creds-x509*)
    echo "qemu: TLS credentials support requires GNUTLS" >&2; exit 1;;
esac
exec {_QEMU} "$@"
"""


class InstalledTest(HostTest):
    """A lab, whose VMs have Debian's QEMU."""

    def setUp(self) -> None:
        super().setUp()
        self.need_lab()
        self.vfio_p2p("host", "prepare", "--at", self.at)

    def with_qemu(self, host: str, path: str) -> tuple[str, ...]:
        """Return the options for a file in which a host has another QEMU."""
        hosts = Path(self.workdir, "other.toml")
        text = (self.lab / "hosts.toml").read_text()
        head, table, tail = text.partition(f"[host.{host}]")
        self.assertIn(_QEMU, tail)
        hosts.write_text(head + table + tail.replace(_QEMU, path, 1))
        return ("--at", self.at, "--hosts", str(hosts))

    def refused(self, *arguments: str, text: str) -> None:
        """Run a command that is refused before anything runs."""
        self.assertIn(text, self.vfio_p2p(*arguments, code=2))
        self.assertEqual(self.qemus(), 0)

    def run_installed(self, at: str) -> dict[str, Any]:
        """Migrate two devices with the hosts' own QEMUs."""
        out = Path(self.workdir, at)
        found = self.report(*_RUN, "--at", at, "--out", str(out))
        (run,) = found["runs"]
        self.assertEqual(
            (run["verdict"], run["summary"]), ("pass", "migrated")
        )
        self.assertEqual(found["base"], "v10.0")
        inputs: dict[str, Any] = run["inputs"]
        for side, host in zip(
            ("source", "destination"), (self.hosts * 2)[:2], strict=True
        ):
            program = inputs[side]
            sha256 = self.ssh(host, f"sha256sum {_QEMU}").split()[0]
            self.assertEqual(program["sha256"], sha256)
            self.assertEqual(
                program["version"],
                self.ssh(host, f"{_QEMU} --version").splitlines()[0],
            )
        return inputs


class OneHost(InstalledTest):
    """Both QEMUs are the one that the host has."""

    def test_it_is_run_as_it_is(self) -> None:
        inputs = self.run_installed(self.at)
        self.assertEqual(inputs["place"]["transport"], "unix")
        self.assertIn(
            f"{_QEMU} can be run",
            self.vfio_p2p("host", "check", "--at", self.at),
        )

        # None there, and one that cannot be run.
        where = self.with_qemu("lab-host", "/tmp/no-qemu")
        self.refused(*_RUN, *where, text="lab-host: its QEMU /tmp/no-qemu")
        self.assertTrue(
            self.ssh("lab-a", "touch /tmp/no-qemu; ls /tmp/no-qemu")
        )
        self.refused(*_RUN, *where, text="missing, or cannot be run")
        self.vfio_p2p("host", "check", *where, code=2)


class TwoHosts(InstalledTest):
    """The stream of a pair with TLS is encrypted on the wire."""

    lab_options = ("--hosts", "2")
    lab_place = "lab-tls"

    @contextmanager
    def sniffing(self) -> Iterator[list[str]]:
        """Collect how the streams to the destination begin."""
        script = Path(__file__).with_name("sniffing.py").read_text()
        command = f"python3 -c {shlex.quote(script)} eth1 10.9.0.1"
        begins: list[str] = []
        with subprocess.Popen(
            ["ssh", "-F", str(self.lab / "ssh_config"), "lab-b", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            self.assertEqual(process.stdout.readline(), "listens\n")
            try:
                yield begins
            finally:
                said, _ = process.communicate("")
                begins += said.split()

    def test_the_stream(self) -> None:
        with self.sniffing() as plain:
            inputs = self.run_installed("lab-pair")
        self.assertEqual(inputs["place"]["transport"], "tcp")
        self.assertEqual(plain, [_PLAIN])

        with self.sniffing() as encrypted:
            inputs = self.run_installed(self.at)
        self.assertEqual(inputs["place"]["transport"], "tls")
        self.assertEqual([x[:4] for x in encrypted], [_TLS])
        self.no_keys_are_left()

        # A build of ours, and a QEMU of one host, that have no TLS.
        self.refused("run", "two-devices", "--at", self.at, text="have no TLS")
        self.ssh(
            "lab-b",
            f"printf %s {shlex.quote(_WITHOUT_TLS)} >/tmp/qemu; "
            "chmod +x /tmp/qemu",
        )
        self.refused(
            *_RUN, *self.with_qemu("lab-b", "/tmp/qemu"),
            text="lab-b: its QEMU /tmp/qemu has no TLS",
        )  # fmt: skip

    def no_keys_are_left(self) -> None:
        """Look for keys, on the hosts and in the bundle."""
        for host in self.hosts:
            self.assertEqual(
                self.ssh(host, "find / -xdev -name '*-key.pem'"), ""
            )
        bundle = Path(self.workdir, self.at)
        for path in filter(Path.is_file, bundle.rglob("*")):
            self.assertNotIn(b"PRIVATE KEY", path.read_bytes())
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        self.assertEqual(manifest["inputs"]["place"]["transport"], "tls")
