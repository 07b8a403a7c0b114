# SPDX-License-Identifier: GPL-2.0-or-later
"""Attach to QEMUs that somebody else started, without any VFIO device.

The QEMUs are the distribution's.  Whoever migrates them is this test, over
monitors of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from avocado import Test
from vfio_p2p.bundle.read import open_bundle

_LIMIT_S = 120.0


class Qmp:
    """A client of a monitor."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_LIMIT_S)
        self._socket.connect(path)
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command."""
        request = {"execute": command, "arguments": arguments}
        self._file.write(json.dumps(request) + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "event" not in answer:
                return answer["return"]

    def enabled(self) -> list[str]:
        """Return the trace events that are on."""
        found = self.execute("trace-event-get-state", name="*")
        return sorted(x["name"] for x in found if x["state"] == "enabled")

    def close(self) -> None:
        """Leave the monitor to others."""
        self._file.close()
        self._socket.close()


class Attach(Test):
    """One source and one destination."""

    timeout = 900

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="vfio-p2p-"))
        self.processes: list[subprocess.Popen[Any]] = []
        self.qmp: dict[str, Qmp] = {}
        self.out = Path(self.workdir, "out")
        self.environment = {
            **os.environ, "XDG_STATE_HOME": str(Path(self.workdir, "state"))
        }

    def tearDown(self) -> None:
        self.end()
        self.home.rmdir()

    def end(self) -> None:
        """End whatever was started."""
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        self.processes.clear()
        for qmp in self.qmp.values():
            qmp.close()
        self.qmp.clear()
        for path in self.home.iterdir():
            path.unlink()

    def qemu(self, name: str, *words: str) -> subprocess.Popen[Any]:
        """Start a QEMU with a monitor for others, and one for this test."""
        log = (self.home / f"{name}.log").open("wb")
        process = subprocess.Popen(
            [
                "qemu-system-x86_64",
                *("-machine", "q35,accel=tcg", "-m", "64", "-nodefaults"),
                *("-no-user-config", "-display", "none", "-name", name),
                *("-msg", "timestamp=on"),
                *("-qmp", f"unix:{self.home}/{name},server=on,wait=off"),
                *("-qmp", f"unix:{self.home}/{name}2,server=on,wait=off"),
                *words,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        log.close()
        self.processes.append(process)
        for path in (self.home / f"{name}2", self.home / name):
            self.until(partial(self.listens, path), f"{path} is up")
        self.qmp[name] = Qmp(str(self.home / f"{name}2"))
        return process

    @staticmethod
    def listens(path: Path) -> bool:
        """Return whether a socket is listened on, and not only bound."""
        return any(
            line.endswith(f" {path}") and line.split()[3] == "00010000"
            for line in Path("/proc/net/unix").read_text().splitlines()
        )

    def both(self) -> None:
        """Start both QEMUs."""
        self.qemu("source", "-D", str(self.home / "trace.log"))
        self.qemu("destination", "-incoming", f"unix:{self.home}/stream")

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + _LIMIT_S
        while not true():
            if time.monotonic() > deadline:
                self.fail(f"it never came to this: {what}")
            time.sleep(0.05)

    def record(
        self, *words: str, stderr: int | None = None
    ) -> subprocess.Popen[str]:
        """Start the command, and wait until it listens to both."""
        process = subprocess.Popen(
            [
                sys.executable, "-m", "vfio_p2p", "record",
                str(self.home / "source"), "--destination",
                str(self.home / "destination"), "--out", str(self.out),
                *words,
            ],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout
        listening = 0
        while listening < 2:
            line = process.stdout.readline()
            self.assertTrue(line, "the command ended")
            listening += "trace events" in line
        return process

    def has_status(self, side: str, status: str) -> bool:
        """Return whether a QEMU's migration has this status."""
        found = self.qmp[side].execute("query-migrate")
        return bool(found.get("status") == status)

    def migrate(self) -> None:
        """Migrate, and wait for the end."""
        self.qmp["source"].execute("migrate", uri=f"unix:{self.home}/stream")
        self.until(
            partial(self.has_status, "source", "completed"),
            "it has migrated",
        )

    def test_a_migration(self) -> None:
        self.both()
        before = self.qmp["source"].enabled()
        metrics = Path(self.workdir, "vfio_p2p.prom")
        process = self.record("--metrics", str(metrics))
        self.assertIn("migrate_set_state", self.qmp["source"].enabled())
        self.migrate()
        # There is no VFIO device, so that nothing can be judged.
        self.assertEqual(process.wait(_LIMIT_S), 3)
        bundle = open_bundle(self.out / "migration-000001")
        result = bundle.manifest.result
        self.assertEqual(result.outcome, "migrated")
        self.assertIsNotNone(result.qmp_downtime_ms)
        text = metrics.read_text()
        self.assertIn(
            'migrations_total{guest="source",verdict="inconclusive"} 1.0',
            text,
        )
        self.assertIn("last_migration_qmp_downtime_seconds{", text)
        for side in ("source", "destination"):
            self.assertIn(
                b"migrate_set_state new state completed",
                bundle.files[f"{side}/trace.log"],
            )
            self.assertEqual(self.qmp[side].enabled(), before)
        # QEMU noticed nothing.
        answer = self.qmp["destination"].execute("query-status")
        self.assertEqual(answer["status"], "running")

    def migrate_command(
        self, *words: str
    ) -> subprocess.CompletedProcess[str]:
        """Let the command migrate the source."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "vfio_p2p", "migrate"),
                *(str(self.home / "source"), "--out", str(self.out)),
                *("--destination", str(self.home / "destination"), *words),
            ],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )

    def test_what_was_expected(self) -> None:
        self.both()
        process = self.record()
        # A migration of some seconds, so that QEMU is asked on the way.
        self.qmp["source"].execute(
            "migrate-set-parameters", **{"max-bandwidth": 1 << 18}
        )
        self.migrate()
        process.wait(_LIMIT_S)
        judged = self.json_of("check", self.out / "migration-000001")
        self.assertIsInstance(judged["expected_downtime_ms"], int)
        self.assertIn("QEMU expected a downtime", judged["explained"])

    def json_of(self, command: str, path: Path) -> Any:
        """Return what a command prints about a path."""
        done = subprocess.run(
            [sys.executable, "-m", "vfio_p2p", command, str(path), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        return json.loads(done.stdout)

    def test_migrates_itself(self) -> None:
        self.qemu("source", "-D", str(self.home / "trace.log"))
        self.qemu("destination", "-incoming", "defer")
        for wrong, said in (
            ((), "has to be told where to listen"),
            (("--uri", f"unix:{self.home}/s", "--parameter", "nosuch=1"),
             "nosuch"),
        ):
            done = self.migrate_command(*wrong)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(said, done.stderr)
        done = self.migrate_command(
            *("--uri", f"unix:{self.home}/s"),
            *("--capability", "return-path"),
            *("--parameter", "downtime-limit=100"),
        )
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("source: the migration is completed", done.stdout)
        bundle = open_bundle(self.out / "migration-000001")
        self.assertEqual(bundle.manifest.result.outcome, "migrated")
        found = self.qmp["destination"].execute("query-migrate-parameters")
        self.assertEqual(found["downtime-limit"], 100)

    def test_migrate_is_interrupted(self) -> None:
        self.both()
        self.qmp["source"].execute(
            "migrate-set-capabilities",
            capabilities=[
                {"capability": "pause-before-switchover", "state": True}
            ],
        )
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "vfio_p2p", "migrate"),
                *(str(self.home / "source"), "--out", str(self.out)),
                *("--destination", str(self.home / "destination")),
            ],
            env=self.environment,
        )
        self.processes.append(process)
        self.until(
            partial(self.has_status, "source", "pre-switchover"),
            "it waits before the switchover",
        )
        process.terminate()
        process.wait(_LIMIT_S)
        self.until(
            partial(self.has_status, "source", "cancelled"),
            "it is cancelled",
        )
        self.assertEqual(list(self.out.glob("*")), [])

    def test_killed(self) -> None:
        """QEMU does not notice, and the next command tidies up."""
        self.both()
        before = self.qmp["source"].enabled()
        process = self.record()
        self.qmp["source"].execute(
            "migrate-set-parameters", **{"max-bandwidth": 4 << 20}
        )
        self.qmp["source"].execute("migrate", uri=f"unix:{self.home}/stream")
        os.kill(process.pid, signal.SIGKILL)
        self.until(
            partial(self.has_status, "source", "completed"),
            "it has migrated",
        )
        self.assertNotEqual(self.qmp["source"].enabled(), before)
        self.assertFalse((self.out / "migration-000001").exists())
        again = self.record()
        again.terminate()
        self.assertEqual(again.wait(_LIMIT_S), 4)
        for side in ("source", "destination"):
            self.assertEqual(self.qmp[side].enabled(), before)

    def test_killed_at_any_moment(self) -> None:
        """Every bundle is whole; ``-p kills=N`` asks for N moments."""
        seed = int(self.params.get("seed", default=1))
        moments = Random(seed)
        whole = 0
        for number in range(int(self.params.get("kills", default=4))):
            after_s = moments.uniform(0, 2.5)
            whole += self.killed_after(after_s, self.out / f"{number}")
        self.log.info("whole bundles: %d, seed %d", whole, seed)

    def killed_after(self, after_s: float, out: Path) -> int:
        """Kill the command some time after a migration has begun."""
        self.out = out
        self.both()
        before = self.qmp["source"].enabled()
        process = self.record()
        self.qmp["source"].execute("migrate", uri=f"unix:{self.home}/stream")
        time.sleep(after_s)
        process.kill()
        process.wait()
        for side in ("source", "destination"):
            self.until(
                partial(self.has_status, side, "completed"),
                f"the {side} has migrated",
            )
        found = [x for x in out.glob("*") if not x.name.startswith(".")]
        for bundle in found:
            result = open_bundle(bundle).manifest.result
            self.assertEqual(result.outcome, "migrated")
        again = self.record()
        again.terminate()
        again.wait(_LIMIT_S)
        self.assertEqual(sorted(out.glob("*")), sorted(found))
        for side in ("source", "destination"):
            self.assertEqual(self.qmp[side].enabled(), before)
        self.end()
        return len(found)

    def refused(self) -> subprocess.CompletedProcess[str]:
        """Record the source alone, which is to end at once."""
        return subprocess.run(
            [
                sys.executable, "-m", "vfio_p2p", "record",
                str(self.home / "source"), "--out", str(self.out),
            ],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )

    def test_a_full_disk(self) -> None:
        """It is said so, nothing half stays, and QEMU does not notice."""
        self.both()
        before = self.qmp["source"].enabled()
        self.out.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1028k", "none"]
        done = subprocess.run([*mount, self.out], check=False)
        if done.returncode:
            self.cancel("only root can mount")
        try:
            process = self.record(stderr=subprocess.PIPE)
            with suppress(OSError), (self.out / "fill").open("wb") as file:
                file.write(bytes(1 << 20))
            self.migrate()
            assert process.stderr
            said = process.stderr.read()
            process.stderr.close()
            self.assertEqual(process.wait(_LIMIT_S), 2)
            self.assertIn(f"no room under {self.out}", said)
            self.assertEqual(os.listdir(self.out), ["fill"])
        finally:
            subprocess.run(["umount", self.out], check=True)
        for side in ("source", "destination"):
            self.assertEqual(self.qmp[side].enabled(), before)

    def test_a_folder_that_is_taken(self) -> None:
        self.both()
        self.record()
        done = self.refused()
        self.assertEqual(done.returncode, 4)
        self.assertIn("writes bundles into it", done.stderr)

    def test_a_monitor_that_is_taken(self) -> None:
        self.both()
        other = Qmp(str(self.home / "source"))
        done = self.refused()
        self.assertEqual(done.returncode, 4)
        self.assertIn("is taken", done.stderr)
        # Nobody waits behind the other client.
        other.close()
        Qmp(str(self.home / "source")).close()

    def test_the_source_ends(self) -> None:
        """The destination tells that the migration has failed."""
        self.both()
        process = self.record()
        # It cannot come to its end before it is killed.
        self.qmp["source"].execute(
            "migrate-set-capabilities",
            capabilities=[
                {"capability": "pause-before-switchover", "state": True}
            ],
        )
        self.qmp["source"].execute("migrate", uri=f"unix:{self.home}/stream")
        # A destination that heard nothing cannot tell either.
        self.until(
            partial(self.has_status, "destination", "active"),
            "the destination loads",
        )
        self.processes[0].kill()
        self.assertEqual(process.wait(_LIMIT_S), 3)
        bundle = open_bundle(self.out / "migration-000001")
        self.assertEqual(bundle.manifest.result.outcome, "migration-failed")
