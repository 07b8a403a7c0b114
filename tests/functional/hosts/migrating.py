# SPDX-License-Identifier: GPL-2.0-or-later
"""Run on a host: two QEMUs with two VFs each, as a user would start them.

Arguments: a folder, the words of QEMU for tracing (``%s`` is a side), and
possibly a bpftrace program to witness both.  It prints what it has done, line
by line, and goes on with the next thing when it reads a line: the start, the
migration, the end.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

QEMU = "/usr/bin/qemu-system-x86_64"
VFS = {
    "source": ("0000:01:10.0", "0000:01:10.2"),
    "destination": ("0000:02:10.0", "0000:02:10.2"),
}


class Qmp:
    """A QMP session."""

    def __init__(self, path: Path) -> None:
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                time.sleep(0.1)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> Any:
        """Return what a command returns."""
        words = {"execute": command, "arguments": arguments}
        self.file.write(json.dumps(words) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                return answer["return"]

    def enabled(self) -> list[str]:
        """Return the names of the trace events that are on."""
        found = self("trace-event-get-state", name="*")
        return sorted(x["name"] for x in found if x["state"] == "enabled")


def qemu(folder: Path, side: str, *words: str) -> subprocess.Popen[bytes]:
    """Start a QEMU with a monitor for others, and one for this program."""
    with (folder / f"{side}.err").open("wb") as errors:
        return subprocess.Popen(
            [
                QEMU, "-nodefaults", "-display", "none", *words,
                "-qmp", f"unix:{folder}/{side}.sock,server=on,wait=off",
                "-qmp", f"unix:{folder}/{side}2.sock,server=on,wait=off",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )  # fmt: skip


def witness(folder: Path, program: str) -> subprocess.Popen[bytes]:
    """Start bpftrace, and wait until its probes see another QEMU."""
    log = folder / "raw.log"
    process = subprocess.Popen(
        ["/opt/bt/run", "-q", "-B", "line", "-o", str(log), program],
        stdout=sys.stderr,
    )
    other = qemu(folder, "other", "-machine", "none", "-S")
    qmp = Qmp(folder / "other2.sock")
    while not log.exists() or b"vm_state_notify" not in log.read_bytes():
        qmp("cont")
        qmp("stop")
        time.sleep(0.5)
    qmp("quit")
    other.wait()
    return process


def told(what: object) -> None:
    """Print a line, and wait for one."""
    print(json.dumps(what), flush=True)
    sys.stdin.readline()


def main() -> None:
    """Do all of it."""
    folder, words = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir()
    probes = [witness(folder, sys.argv[3])] if sys.argv[3:] else []
    uri = f"unix:{folder}/stream"
    machine = ("-machine", "q35,accel=tcg", "-m", "64")
    qemus = []
    for side, functions in VFS.items():
        devices = [
            word
            for vf in functions
            for word in (
                "-device",
                f"vfio-pci,host={vf},enable-migration=on,x-no-mmap=on",
            )
        ]
        incoming = ("-incoming", "defer") if side == "destination" else ()
        traced = (words % side).split() if "%" in words else words.split()
        qemus.append(
            qemu(folder, side, *machine, *traced, *devices, *incoming)
        )
    source, destination = (Qmp(folder / f"{side}2.sock") for side in VFS)
    before = source.enabled(), destination.enabled()
    # Without hardware for it, all of the memory is dirty all the time.
    source("migrate-set-parameters", **{
        "downtime-limit": 60_000, "max-bandwidth": 0,
    })  # fmt: skip
    told({"pids": [x.pid for x in qemus]})
    destination("migrate-incoming", uri=uri)
    source("migrate", uri=uri)
    status = ""
    while status not in ("completed", "failed"):
        time.sleep(0.2)
        status = source("query-migrate")["status"]
    while not destination("query-status")["running"]:
        time.sleep(0.2)
    told({"status": status})
    after = source.enabled(), destination.enabled()
    told({"put back": before == after, "events": len(before[0])})
    for qmp in (source, destination):
        qmp("quit")
    for process in qemus:
        process.wait()
    for process in probes:
        process.send_signal(signal.SIGINT)
        process.wait()


main()
