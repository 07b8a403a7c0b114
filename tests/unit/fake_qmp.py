#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU at the protocol's seam: real process, real QMP, no VM.

Started as ``python fake_qmp.py PLAN ...`` with QEMU's own arguments.  PLAN
is a JSON file that says by side where something goes wrong, and how::

    {"source": {"migrate": [["say", "oops"], ["signal", 6]]}}

A point is "start", a QMP command, or a moment of the migration: "active",
"noticed" (the destination is gone), "cleanup", "cleanup 2" (after the second
migration) and "last cleanup" (of the last device) on the source; "incoming"
and "load" on the destination; "deleted" comes after the answer
to device_del, "reset" after that to system_reset, "concluded" after that to
a command that starts a job.  These actions can be planned there:

    say TEXT        writes to stderr
    mark            leaves a file SIDE.mark beside the plan
    child           starts a process that would stay
    exit STATUS     exits
    signal NUMBER   kills itself
    hang            does nothing any more
    skip            leaves out the usual continuation
    send TEXT       sends this instead of an answer or event, as Latin-1; "ID"
                    stands for the command's id
    error TEXT      the command fails
    fail TEXT       the migration fails, or the job

"answers" is no point, but lists the answers to ``query-migrate`` in the end;
the last one is repeated.  "prefix" is the beginning of all lines of the log.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

JOBS = ("blockdev-create", "snapshot-save", "snapshot-load")
GUEST = {"stop": "paused", "cont": "running"}
GREETING = {
    "QMP": {
        "version": {
            "qemu": {"major": 10, "minor": 0, "micro": 99},
            "package": "fake",
        },
        "capabilities": ["oob"],
    }
}


def sends_to_file(uri: str) -> Path | None:
    """Return the file of a URI, if it is one of a file."""
    kind, _, path = uri.partition(":")
    return Path(path) if kind == "file" else None


def socket_of(uri: str) -> tuple[socket.socket, Any]:
    """Return a socket of the right kind, and the address in a URI."""
    kind, _, address = uri.partition(":")
    if kind == "unix":
        return socket.socket(socket.AF_UNIX), address
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.socket(family), (host.strip("[]"), int(port))


def listen(uri: str) -> socket.socket:
    """Return a socket that listens at a URI."""
    stream, address = socket_of(uri)
    stream.bind(address)
    stream.listen(1)
    return stream


class FakeQemu:
    """The process of one side."""

    def __init__(self, argv: list[str]) -> None:
        options = dict(itertools.pairwise(argv))
        folder = Path(argv[1]).parent
        self.side = options["-name"]
        self.plan = json.loads(Path(argv[1]).read_text()).get(self.side, {})
        self.mark = folder / f"{self.side}.mark"
        (folder / f"{self.side}.argv").write_text(json.dumps(argv))
        (folder / f"{self.side}.pid").write_text(str(os.getpid()))
        found = re.fullmatch(r"socket,id=qmp,fd=(\d+)", options["-chardev"])
        assert found, options["-chardev"]
        self.qmp = socket.socket(fileno=int(found[1]))
        self.log = Path(options["-D"])
        self.stream: socket.socket | None = None
        self.sends = False
        self.cleanups = 0
        self.guest = "inmigrate" if "-incoming" in argv else "running"
        self.jobs: list[dict[str, Any]] = []
        self.objects: list[str] = []
        self.devices = sum(word.startswith("vfio-pci,") for word in argv)
        self.answers = self.plan.get("answers") or [
            {"status": "completed", "downtime": 20, "total-time": 300}
        ]
        self.trace("vfio_migration_realize  (src0)")

    def trace(self, text: str) -> None:
        """Write one line of the log."""
        prefix = self.plan.get("prefix", f"4242@{time.time():.6f}:")
        with self.log.open("a") as log:
            log.write(f"{prefix}{text}\n")

    def send(self, message: dict[str, Any]) -> None:
        """Send one QMP message."""
        self.qmp.sendall(json.dumps(message).encode() + b"\r\n")

    def status(self, status: str) -> None:
        """Change the migration's state: trace it, and send an event."""
        self.trace(f"migrate_set_state new state {status}")
        self.event("MIGRATION", status=status)

    def reach(self, point: str, number: object = None) -> bool:
        """Follow the plan; return whether to continue as usual."""
        usual = True
        for what, *arguments in self.plan.get(point, ()):
            match what, arguments:
                case "say", [str(text)]:
                    print(text, file=sys.stderr, flush=True)
                case "mark", []:
                    self.mark.touch()
                case "child", []:
                    child = subprocess.Popen(["sleep", "3600"])
                    path = self.mark.with_name(f"{self.side}-child.pid")
                    path.write_text(str(child.pid))
                case "exit", [int(status)]:
                    os._exit(status)
                case "signal", [int(signum)]:
                    os.kill(os.getpid(), signum)
                case "hang", []:
                    time.sleep(3600)
                case "skip", []:
                    usual = False
                case "send", [str(text)]:
                    text = text.replace('"ID"', json.dumps(number))
                    self.qmp.sendall(text.encode("latin-1"))
                    usual = False
                case "error", [str(text)]:
                    error = {"class": "GenericError", "desc": text}
                    self.send({"error": error, "id": number})
                    usual = False
                case "fail", [str(text)] if point == "concluded":
                    self.jobs[-1]["error"] = text
                case "fail", [str(text)]:
                    self.answers = [{"status": "failed", "error-desc": text}]
                    self.status("failed")
                    if self.stream:
                        self.stream.close()
                        self.stream = None
                    usual = False
                case _:
                    raise ValueError(f"{point}: {what} {arguments}")
        return usual

    def command(self, message: dict[str, Any]) -> None:
        """Carry out one command, and answer it."""
        name, number = message["execute"], message.get("id")
        if not self.reach(name, number):
            return
        result: object = {}
        if name == "query-migrate":
            result = self.answers[0]
            self.answers = self.answers[1:] or self.answers
        arguments = message.get("arguments", {})
        if name == "query-status":
            result = {"status": self.guest}
        if name == "query-jobs":
            result = self.jobs
        uri = arguments.get("uri", "")
        if name == "device-list-properties":
            result = [
                {"name": "sysfsdev", "type": "str"},
                {"name": "migration-events", "type": "bool"},
                {"name": "x-pci-vendor-id", "type": "uint32"},
            ]
        if name == "qom-list":
            result = [{"name": x} for x in self.objects]
        if name == "object-add":
            self.objects.append(arguments["id"])
        if name == "device_add":
            self.devices += 1
        if name == "migrate-incoming" and not sends_to_file(uri):
            self.stream = listen(uri)
            if self.stream.family is not socket.AF_UNIX:
                port = str(self.stream.getsockname()[1])
                self.answers.insert(0, {"socket-address": [{"port": port}]})
        self.guest = GUEST.get(name, self.guest)
        self.send({"return": result, "id": number})
        match name:
            case "quit":
                sys.exit()
            case "migrate-incoming" if path := sends_to_file(uri):
                self.status("active")
                if not path.read_bytes():
                    sys.exit("qemu: load of migration failed")
                if self.reach("load"):
                    self.guest = "running"
                    self.status("completed")
            case "migrate" if path := sends_to_file(uri):
                self.status("active")
                if self.reach("active"):
                    path.write_bytes(b"state")
                    self.guest = "postmigrate"
                    self.status("completed")
                self.clean_up()
            case "migrate":
                self.migrate(uri)
            case "migrate-continue":
                self.finish()
            case "migrate_cancel":
                self.cancel()
            case "device_del" if self.reach("deleted"):
                self.devices -= 1
                self.event("DEVICE_DELETED", device=arguments["id"])
            case "system_reset" if self.reach("reset"):
                self.event("RESET", reason="host-qmp-system-reset")
            case "job-dismiss":
                self.jobs.clear()
            case _ if name in JOBS:
                options = arguments.get("options", {})
                Path(options.get("filename", self.log)).touch()
                self.jobs.append({"id": arguments["job-id"]})
                if self.reach("concluded"):
                    self.event(
                        "JOB_STATUS_CHANGE",
                        id=arguments["job-id"],
                        status="concluded",
                    )

    def event(self, event: str, **data: str) -> None:
        """Send an event."""
        self.send(
            {
                "event": event,
                "data": data,
                "timestamp": {"seconds": 1, "microseconds": 0},
            }
        )

    def cancel(self) -> None:
        """Cancel the migration, if one is running."""
        if not self.stream:
            return
        self.status("cancelling")
        self.stream.close()
        self.stream = None
        self.status("cancelled")
        self.clean_up()

    def migrate(self, uri: str) -> None:
        """Migrate, unless the plan interrupts it."""
        self.sends = True
        self.stream, address = socket_of(uri)
        self.stream.connect(address)
        self.status("setup")
        self.status("active")
        if self.reach("active"):
            self.finish()

    def finish(self) -> None:
        """Complete the source's migration."""
        assert self.stream
        # A destination that was just killed may or may not receive this.
        with suppress(BrokenPipeError):
            self.stream.sendall(b"state")
        self.stream = None
        self.guest = "postmigrate"
        self.status("completed")
        self.clean_up()

    def clean_up(self) -> None:
        """Clean up on the source after the end of a migration."""
        self.cleanups += 1
        if not self.reach("cleanup") or not self.reach(
            f"cleanup {self.cleanups}"
        ):
            return
        self.trace("savevm_state_cleanup ")
        for number in range(self.devices):
            last = number == self.devices - 1
            if not last or self.reach("last cleanup"):
                self.trace(f"vfio_save_cleanup  (src{number})")

    def receive(self) -> None:
        """React to data or to the end of the stream."""
        assert self.stream
        if self.sends:
            self.stream = None
            if not self.reach("noticed"):
                return
            self.answers = [{"status": "failed", "error-desc": "Broken pipe"}]
            self.status("failed")
            self.clean_up()
            return
        if self.stream.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self.stream = self.stream.accept()[0]
            self.status("active")
            self.reach("incoming")
            return
        state = self.stream.recv(64)
        self.stream = None
        if not state:
            sys.exit("qemu: load of migration failed: Input/output error")
        if self.reach("load"):
            self.guest = "running"
            self.status("completed")

    def serve(self) -> None:
        """Live."""
        if self.reach("start"):
            self.send(GREETING)
        while True:
            waiting: list[socket.socket] = [self.qmp]
            if self.stream:
                waiting.append(self.stream)
            for ready in select.select(waiting, (), ())[0]:
                if ready is not self.qmp:
                    self.receive()
                # No delimiter ends a command, and clients wait for the
                # answer before the next.
                elif text := self.qmp.recv(65536):
                    self.command(json.loads(text))
                else:
                    sys.exit()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    FakeQemu(sys.argv).serve()
