# SPDX-License-Identifier: GPL-2.0-or-later
"""Attach to domains of libvirt, without any VFIO device.

Two daemons of this test's own run as an ordinary user, and migrate to each
other.  They have no part in the machine's own libvirt.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from avocado import Test
from vfio_p2p.bundle.provenance import AttachedProvenance
from vfio_p2p.bundle.read import open_bundle

_LIMIT_S = 120.0
# libvirtd of root would be the system's daemon.
_NOBODY = 65534
# virtlogd rotates a log at 2 MiB, and 1 MiB before a migration is kept.
_KEPT_BYTES = 1 << 20
# The machine may have another such domain.
_UUID = str(uuid.uuid4())
_XML = f"""
<domain type='qemu'>
  <name>tiny</name> <uuid>{_UUID}</uuid>
  <memory unit='MiB'>64</memory> <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'>
    <model fallback='forbid'>qemu64</model>
  </cpu>
  <devices>
    <emulator>{{}}</emulator>
    <controller type='usb' model='none'/> <memballoon model='none'/>
  </devices>
</domain>
"""


def _find(program: str) -> str:
    """Return the path of a program; empty if it is not installed."""
    # A user may not have /usr/sbin in PATH.
    path = f"{os.environ['PATH']}:/usr/sbin"
    return shutil.which(program, path=path) or ""


def _kill(pid: int) -> None:
    """Kill what a daemon has started, unless another process has its number.

    :raise FileNotFoundError: When there is no such process.
    :raise ProcessLookupError: When it ends meanwhile.
    """
    words = Path("/proc", str(pid), "cmdline").read_bytes()
    if _UUID.encode() in words or b"virtlogd" in words:
        os.kill(pid, signal.SIGKILL)


class Daemon:
    """A libvirtd, and what it has started.

    :param folder: Its folder, with a short path: monitors are sockets in it.
    :param stdio: Who writes the logs of its domains: ``file`` or ``logd``.
    """

    def __init__(self, folder: Path, stdio: str) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "run/libvirt/libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        self.log = folder / "cache/libvirt/qemu/log/tiny.log"
        settings = folder / "cfg/libvirt"
        settings.mkdir(parents=True)
        for name in ("run", "cache", "data"):
            (folder / name).mkdir()
        # libvirt knows two hosts by their UUIDs.
        (settings / "libvirtd.conf").write_text(
            f'host_uuid = "{uuid.uuid4()}"\n'
            f'log_outputs = "3:file:{folder}/libvirtd.log"\n'
        )
        (settings / "qemu.conf").write_text(f'stdio_handler = "{stdio}"\n')
        if os.getuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, _NOBODY, _NOBODY)

    def start(self) -> None:
        """Start the daemon."""
        user = _NOBODY if os.getuid() == 0 else None
        stderr = (self.folder / "stderr").open("wb")
        self._process = subprocess.Popen(
            [
                _find("libvirtd"),
                "-f", str(self.folder / "cfg/libvirt/libvirtd.conf"),
                "-p", str(self.folder / "pid"),
            ],
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "XDG_RUNTIME_DIR": str(self.folder / "run"),
                "XDG_CONFIG_HOME": str(self.folder / "cfg"),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
                "XDG_DATA_HOME": str(self.folder / "data"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )  # fmt: skip
        stderr.close()

    def stop(self) -> None:
        """Stop the daemon, and leave its domains alone."""
        if self._process:
            self._process.terminate()
            # How it ends is no concern of these tests.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LIMIT_S / 4)
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self) -> None:
        """Check that the daemon runs.

        :raise AssertionError: When it has ended.
        """
        if self._process and self._process.poll() is not None:
            raise AssertionError((self.folder / "stderr").read_text())

    def close(self) -> None:
        """End all that the daemon has started, and then itself."""
        self.stop()
        for path in sorted((self.folder / "run/libvirt").rglob("*.pid")):
            # What has ended meanwhile may have taken its file along.
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):
                _kill(int(path.read_text()))

    def virsh(self, *words: str) -> str:
        """Run a command of virsh, and return what it prints.

        :raise AssertionError: When it fails.
        """
        done = subprocess.run(
            ["virsh", "-q", "-c", self.uri, *words],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a QMP command in the domain."""
        request = {"execute": command, "arguments": arguments}
        text = self.virsh("qemu-monitor-command", "tiny", json.dumps(request))
        return json.loads(text)["return"]

    def enabled(self) -> list[str]:
        """Return the trace events of the domain that are on."""
        found = self.execute("trace-event-get-state", name="*")
        return sorted(x["name"] for x in found if x["state"] == "enabled")


class Command:
    """A command of vfio-p2p that runs."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vfio_p2p", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        self.lines += iter(self.process.stdout.readline, "")

    def said(self, text: str, times: int = 1) -> bool:
        """Return whether the command has printed a text so often."""
        return "".join(self.lines).count(text) >= times

    def close(self) -> None:
        """Kill the command, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()


class Libvirt(Test):
    """A domain that is migrated from one daemon to the other."""

    timeout = 900

    def setUp(self) -> None:
        self.daemons: list[Daemon] = []
        self.commands: list[Command] = []
        self.home = Path(self.workdir)
        for program in ("libvirtd", "virsh"):
            if not _find(program):
                self.cancel(f"{program} is not installed")
        if importlib.util.find_spec("libvirt") is None:
            self.cancel("libvirt's Python binding is not installed")
        self.home = Path(tempfile.mkdtemp(prefix="v-", dir="/tmp"))
        self.home.chmod(0o755)
        self.out = Path(self.workdir, "out")
        self.environment = {
            **os.environ, "XDG_STATE_HOME": str(Path(self.workdir, "state"))
        }

    def tearDown(self) -> None:
        for command in self.commands:
            self.log.info("%s", "".join(command.lines))
            command.close()
        for daemon in self.daemons:
            daemon.close()
        # A test that was cancelled has no folder of its own.
        if self.home != Path(self.workdir):
            shutil.rmtree(self.home)

    def start(self, source: str = "file", destination: str = "logd") -> None:
        """Start both daemons, and the domain of the source.

        :param source: Who writes the logs of the source's domains.
        :param destination: The same for the destination.
        """
        for number, stdio in enumerate((source, destination), 1):
            daemon = Daemon(self.home / str(number), stdio)
            self.daemons.append(daemon)
            daemon.start()
            self.answers(daemon)
        self.source, self.destination = self.daemons
        xml = self.home / "tiny.xml"
        xml.write_text(_XML.format(shutil.which("qemu-system-x86_64")))
        self.source.virsh("define", str(xml))
        self.source.virsh("start", "tiny")
        self.stream = self.home / "stream"
        self.stream.mkdir()
        self.stream.chmod(0o777)

    def answers(self, daemon: Daemon) -> None:
        """Wait until a daemon answers."""

        def true() -> bool:
            daemon.check()
            try:
                daemon.virsh("list")
            except (AssertionError, subprocess.TimeoutExpired):
                return False
            return True

        self.until(true, f"{daemon.uri} answers")

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + _LIMIT_S
        while not true():
            if time.monotonic() > deadline:
                said = [x.lines for x in self.commands]
                self.fail(f"it never came to this: {what}; {said}")
            time.sleep(0.1)

    def run_command(self, *words: str) -> Command:
        """Start a command."""
        command = Command(list(words), self.environment)
        self.commands.append(command)
        return command

    def record(self, *words: str) -> Command:
        """Start to record, and wait until the command listens."""
        command = self.run_command(
            "record", "domain:tiny", "--libvirt", self.source.uri,
            "--destination", "domain:tiny",
            "--destination-libvirt", self.destination.uri,
            "--out", str(self.out), *words,
        )  # fmt: skip
        self.until(
            lambda: command.said("waits for libvirt to start")
            or command.process.poll() is not None,
            "both are listened to",
        )
        self.assertIsNone(command.process.poll(), command.lines)
        return command

    def migrate(self) -> None:
        """Migrate from the source to the destination, with events there."""
        done = subprocess.run(
            [
                sys.executable, "-m", "vfio_p2p", "watch", "domain:tiny",
                "--libvirt", self.source.uri, "--destination-xml",
            ],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        xml = self.home / "destination.xml"
        xml.write_text(done.stdout)
        self.source.virsh(
            "migrate", "--live", "--p2p", "tiny", self.destination.uri,
            "--migrateuri", f"unix://{self.stream}/s", "--xml", str(xml),
        )  # fmt: skip

    def ended(self, command: Command) -> int:
        """Return the exit status of a command."""
        self.until(
            lambda: command.process.poll() is not None, "the command has ended"
        )
        return int(command.process.returncode)

    def test_a_migration(self) -> None:
        self.start()
        before = self.source.enabled()
        command = self.record()
        self.assertIn("migrate_set_state", self.source.enabled())
        command.process.terminate()
        self.assertEqual(self.ended(command), 4)
        self.assertEqual(self.source.enabled(), before)
        command = self.record()
        self.migrate()
        # There is no VFIO device, so that nothing can be judged.
        self.assertEqual(self.ended(command), 3)
        bundle = open_bundle(self.out / "migration-000001")
        result = bundle.manifest.result
        self.assertEqual(result.outcome, "migrated")
        self.assertEqual(
            result.migration,
            {
                "source": (
                    "setup", "active", "pre-switchover", "device",
                    "completed",
                ),
                "destination": ("setup", "active", "completed"),
            },
        )  # fmt: skip
        for side in ("source", "destination"):
            log = bundle.files[f"{side}/trace.log"]
            self.assertIn(b"migrate_set_state new state completed", log)
            self.assertIn(b"vm_state_notify", log)
            events = bundle.files[f"{side}/qmp.jsonl"].splitlines()
            told = [json.loads(x)["msg"] for x in events]
            self.assertIn(
                "completed",
                [x.get("data", {}).get("status") for x in told],
            )
        log = bundle.files["destination/trace.log"]
        self.assertIn(b"starting up libvirt version", log.splitlines()[0])
        # What could not be asked before is asked in the end.
        place = bundle.manifest.inputs.place
        assert isinstance(place, AttachedProvenance)
        self.assertEqual(place.destination_qemu, place.source_qemu)
        assert place.destination
        self.assertIn("migrate_set_state", place.destination.events)
        # The guest noticed nothing.
        self.assertEqual(self.destination.virsh("domstate", "tiny").strip(),
                         "running")

    def test_rotation(self) -> None:
        """Nothing is lost when virtlogd rotates the source's log."""
        self.start(source="logd")
        command = self.record()
        log = self.source.log
        old = log.with_name(f"{log.name}.0")
        self.noise(True)
        self.until(old.exists, "the log is rotated")
        self.until(lambda: log.stat().st_size > 1000, "the log goes on")
        self.noise(False)
        # What is kept of it reaches back into the old one.
        self.assertLess(log.stat().st_size, _KEPT_BYTES // 2)
        self.migrate()
        self.assertEqual(self.ended(command), 3)
        bundle = open_bundle(self.out / "migration-000001")
        kept = bundle.files["source/trace.log"]
        self.assertGreater(len(kept), log.stat().st_size)
        self.assertIn(kept, old.read_bytes() + log.read_bytes())
        self.assertIn(b"migrate_set_state new state completed", kept)

    def noise(self, on: bool) -> None:
        """Let the source write much, or no longer."""
        self.source.execute(
            "trace-event-set-state", name="qemu_mutex_*", enable=on
        )

    def test_a_restart(self) -> None:
        """libvirtd comes back, and the next migration is recorded."""
        self.start()
        before = self.source.enabled()
        command = self.record("--follow")
        self.source.stop()
        self.until(
            lambda: command.said("waiting: source:"), "it has noticed"
        )
        self.source.start()
        self.answers(self.source)
        self.until(
            lambda: command.said("waits for libvirt to start", 2),
            "it is back",
        )
        # The state before is that before the first attachment.
        command.process.terminate()
        self.ended(command)
        self.assertEqual(self.source.enabled(), before)
        command = self.record("--follow")
        self.destination.stop()
        self.until(
            lambda: command.said("waiting: destination:"), "it has noticed"
        )
        self.destination.start()
        self.answers(self.destination)
        self.until(
            lambda: command.said("waits for libvirt to start", 2),
            "it is back",
        )
        self.migrate()
        self.assertEqual(self.ended(command), 3)
        bundle = open_bundle(self.out / "migration-000001")
        self.assertEqual(bundle.manifest.result.outcome, "migrated")
        self.assertIn(
            b"migrate_set_state new state completed",
            bundle.files["destination/trace.log"],
        )

    def test_what_is_not_there(self) -> None:
        self.start()
        self.source.virsh("destroy", "tiny")
        nowhere = f"qemu+unix:///session?socket={self.home}/none"
        for uri, name, status, said in (
            (self.source.uri, "tiny", 4, "is shut off"),
            (self.source.uri, "other", 4, "no domain with matching name"),
            (nowhere, "tiny", 4, "No such file or directory"),
            ("nonsense", "tiny", 2, "no connection driver available"),
            (self.source.uri.replace("session", "system"), "tiny", 2,
             "unexpected qemu URI path"),
        ):  # fmt: skip
            command = self.run_command(
                "record", f"domain:{name}", "--libvirt", uri,
                "--out", str(self.out),
            )  # fmt: skip
            self.assertEqual(self.ended(command), status, command.lines)
            command.close()
            self.assertEqual(len(command.lines), 2, command.lines)
            self.assertIn(said, command.lines[0])
