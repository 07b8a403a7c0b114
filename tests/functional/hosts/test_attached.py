# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs with real devices that somebody else started.

Three witnesses see a migration: QEMU's own traces, those that a recording
switches on, and uprobes.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosting import HostTest
from vfio_p2p.bundle.read import open_bundle

_QEMU = "/usr/bin/qemu-system-x86_64"
_TRACE = (
    "-trace vfio_* -trace vm_state_notify -trace migrate_set_state "
    "-msg timestamp=on -D /root/seen/%s.log"
)
_SIDES = ("source", "destination")
# What both a log of QEMU's and one of uprobes have.
_BOTH = re.compile(
    r"(?P<s>\d+)\.(?P<us>\d{6})(?: uprobe qemu\[(?P<pid>\d+)\])?"
    r":\s*(?P<event>(?:vm_state_notify|migrate_set_state|vfio_migration_set_\w+"
    r"|vfio_vmstate_change\w*|vfio_save_complete_precopy|vfio_\w+_cleanup) .*)"
)
# A clock that is another one is off by far more than a slow VM.
_APART_US = 5_000_000


def lines(text: str, pid: int | None = None) -> list[tuple[int, str]]:
    """Return times in microseconds, and events."""
    return [
        (int(found["s"]) * 10**6 + int(found["us"]), found["event"].rstrip())
        for found in _BOTH.finditer(text)
        if pid is None or found["pid"] == str(pid)
    ]


class Attached(HostTest):
    """Two QEMUs of one host, with two functions each."""

    timeout = 1800
    lab_options = ("--memory-mib", "3072")

    def setUp(self) -> None:
        super().setUp()
        self.need_lab()
        self.vfio_p2p("host", "prepare", "--at", self.at)

    @contextmanager
    def migrating(
        self, *words: str
    ) -> Iterator[tuple[subprocess.Popen[str], Any]]:
        """Start both QEMUs; yield the program, and what it said."""
        script = Path(__file__).with_name("migrating.py").read_text()
        command = shlex.join(["python3", "-c", script, "/root/seen", *words])
        with subprocess.Popen(
            ["ssh", "-F", str(self.lab / "ssh_config"), "lab-a", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield process, self.said(process)
            process.communicate("\n\n\n")
        self.assertEqual(process.returncode, 0)

    def said(self, process: subprocess.Popen[str]) -> Any:
        """Return the next thing that it says."""
        assert process.stdout
        return json.loads(process.stdout.readline())

    def next(self, process: subprocess.Popen[str]) -> Any:
        """Let it do the next thing, and return what it says then."""
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
        return self.said(process)

    def test_a_recording(self) -> None:
        out = Path(self.workdir, "out")
        with (
            self.migrating("-msg timestamp=on") as (process, _),
            self.popen(
                "record", "/root/seen/source.sock", "--destination",
                "/root/seen/destination.sock", "--at", self.at,
                "--out", str(out),
            ) as recorder,
        ):  # fmt: skip
            assert recorder.stdout
            listening = 0
            while listening < 2:
                line = recorder.stdout.readline()
                self.assertTrue(line, "the command ended")
                listening += "trace events" in line
            self.assertEqual(self.next(process), {"status": "completed"})
            shown, _ = recorder.communicate()
            self.assertEqual(recorder.returncode, 0, shown)
            self.assertIn("pass, the migration was completed", shown)
            self.assertEqual(
                self.next(process), {"put back": True, "events": 0}
            )
        bundle = open_bundle(out / "migration-000001")
        place: Any = json.loads(bundle.files["manifest.json"])["inputs"][
            "place"
        ]
        self.assertEqual(place["place"], "attached")
        self.assertEqual(
            place["source"]["devices"], ["0000:01:10.0", "0000:01:10.2"]
        )
        text = self.vfio_p2p("report", str(out / "migration-000001"))
        self.assertIn("p2p-arcs", text)

    def test_uprobes(self) -> None:
        if shutil.which("bpftrace") is None:
            self.cancel("This machine has no bpftrace to lend to the lab.")
        self.lend_bpftrace()
        folder = Path(self.workdir)
        (folder / "qemu").write_bytes(self.read(_QEMU))
        self.vfio_p2p(
            "trace-script", str(folder / "qemu"), "--path", _QEMU,
            "-o", str(folder / "qemu.bt"),
        )  # fmt: skip
        self.write("/root/qemu.bt", (folder / "qemu.bt").read_bytes())
        with self.migrating(_TRACE, "/root/qemu.bt") as (process, said):
            self.assertEqual(self.next(process), {"status": "completed"})
            self.assertTrue(self.next(process)["put back"])
        raw = self.read("/root/seen/raw.log").decode().splitlines()
        text = "\n".join(sorted(raw, key=lambda line: line.split(" ")[0]))
        (folder / "uprobes.log").write_text(text + "\n")
        for side, pid in zip(_SIDES, said["pids"], strict=True):
            log = self.read(f"/root/seen/{side}.log")
            (folder / f"{side}.log").write_bytes(log)
            own, seen = lines(log.decode()), lines(text, pid)
            self.assertGreater(len(own), 30)
            self.assertEqual(
                [event for _, event in seen], [event for _, event in own]
            )
            for (first, _), (second, _) in zip(seen, own, strict=True):
                self.assertLess(abs(first - second), _APART_US)
        devices = ("--devices", "2", "--expect-p2p")
        for logs in (
            ("source.log", "--destination", "destination.log"),
            ("uprobes.log",),
        ):
            said = self.vfio_p2p("check", *logs, *devices)
            self.assertTrue(said.startswith("pass\n"), said)
            self.assertIn("blackout: ", said)

    def lend_bpftrace(self) -> None:
        """Copy this machine's bpftrace and its libraries to the VM."""
        program = shutil.which("bpftrace")
        assert program is not None
        needs = subprocess.run(
            ["ldd", program], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        files = [program, *re.findall(r"(/\S+) \(0x", needs)]
        (loader,) = [x for x in files if "/ld-linux" in x]
        packed = subprocess.run(
            ["tar", "-chP", "--transform", "s,.*/,,", *files],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        self.write("/root/bt.tar", packed)
        name = Path(loader).name
        script = (
            f"#!/bin/sh\nexec /opt/bt/{name} --library-path /opt/bt "
            '/opt/bt/bpftrace "$@"\n'
        )
        self.ssh(
            "lab-a",
            "mkdir -p /opt/bt && tar xf /root/bt.tar -C /opt/bt && "
            "rm /root/bt.tar && "
            f"printf %s {shlex.quote(script)} >/opt/bt/run && "
            "chmod +x /opt/bt/run",
        )

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the VM."""
        subprocess.run(
            ["ssh", "-F", str(self.lab / "ssh_config"), "lab-a",
             f"cat >{path}"],
            input=data,
            check=True,
        )  # fmt: skip

    def read(self, path: str) -> bytes:
        """Return a file of the VM."""
        return subprocess.run(
            ["ssh", "-F", str(self.lab / "ssh_config"), "lab-a",
             f"cat {path}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout  # fmt: skip
