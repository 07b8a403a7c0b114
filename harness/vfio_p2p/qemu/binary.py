# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU as it is: a build of one's own, a distribution's, an unpacked one.

Everything that can be known of it is found out before anything runs.  A
binary below the root of another system is started with that system's loader
and libraries.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from vfio_p2p.errors import UsageError
from vfio_p2p.machine.process import bound
from vfio_p2p.qemu.examined import (
    EVENTS_SINCE,
    NO_FILE,
    OLDEST,
    unseen,
    version_line,
    writes_log,
)
from vfio_p2p.qemu.program import LOADER, Program, libraries_of
from vfio_p2p.tells import Tells
from vfio_p2p.trace import missing_events
from vfio_p2p.variant import binary_name

NAME = "qemu-system-x86_64"

# Where a folder may have it: a build folder, a source tree, a root.
_FOLDERS = ("", "build", "usr/bin", "bin", "usr/local/bin")
_LIMIT_S = 60.0
# It fails at once, as there is no such file, but after the trace's options
# were used.
_TRACED = (
    *("-machine", "none", "-nodefaults", "-no-user-config"),
    *("-display", "none", "-S", "-trace", "file=/dev/null"),
    *("-object", "secret,id=x,file=/vfio-p2p/none"),
)
_HINT = f"Name a {NAME} of QEMU 8.1 or later, or a folder that has one."

# From elf(5).
_ELF = struct.Struct("<4sBB10xHHIQQQIHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_X86_64 = 62
_MACHINES = {3: "i386", 21: "ppc64", 22: "s390x", 183: "aarch64",
             243: "riscv64"}  # fmt: skip
_INTERPRETER = 3
_PATH = re.compile(rb"(?:/[!-.0-~]{1,255})+")


def find_binary(path: Path) -> tuple[Program, tuple[str, ...]]:
    """Examine a QEMU.

    :param path: The binary, or a folder: a build folder, a source tree, or
        the root of an unpacked system.
    :return: The program, and what there is to say of it, in whole sentences.
    :raise UsageError: When it is none, or its runs could not be judged.
    :raise SourceError: When it lacks a library.
    """
    binary = _file(path)
    interpreter = _examine(binary)
    libraries: dict[str, Path] = {}
    launch: tuple[str, ...] = (str(binary),)
    if interpreter:
        loader = _own_loader(binary, interpreter)
        if loader is None:
            libraries = libraries_of(binary)
        else:
            root, own = loader
            searched = ":".join(map(str, _library_folders(root)))
            launch = (str(own), "--library-path", searched, str(binary))
            libraries = libraries_of(
                binary, [*launch[:-1], "--list"]
            ) | {LOADER: own}
    version, tells, events = _check(binary, launch)
    program = Program.at(
        binary,
        variant="",
        version=version,
        tells=tells,
        libraries=libraries,
        launch=launch,
    )
    name = binary_name(version, program.what.sha256)
    if tells is Tells.EVENTS:
        return program.named(name), (
            f"{binary} was built without the trace backends 'log' and "
            "'simple', so the order is judged by QMP's events alone",
        )
    absent = missing_events(version, events.split())
    remarks: tuple[str, ...] = ()
    if absent:
        remarks = (
            f"{binary} has no trace event {', '.join(absent)}, as its "
            "release has; what they tell is not seen",
        )
    return program.named(name), remarks


def _file(path: Path) -> Path:
    path = path.absolute()
    if path.is_dir():
        for folder in _FOLDERS:
            if (path / folder / NAME).is_file():
                return path / folder / NAME
        raise UsageError(f"{path} has no {NAME} in it", _HINT)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file", _HINT)
    return path


def _examine(binary: Path) -> str:
    """Return the path of a program's loader, without starting it.

    :return: Empty if it is static.
    """
    try:
        with binary.open("rb") as file:
            head = file.read(_ELF.size)
            if head[:2] == b"#!":
                raise UsageError(
                    f"{binary} is a script, and not the QEMU that it starts",
                    _HINT,
                )
            if len(head) < _ELF.size or head[:4] != b"\x7fELF":
                raise UsageError(f"{binary} is no program", _HINT)
            _, bits, order, _, machine, _, _, at, *_, size, count = (
                _ELF.unpack(head)
            )
            if (bits, order, machine) != (2, 1, _X86_64):
                other = _MACHINES.get(machine, f"machine {machine}")
                raise UsageError(
                    f"{binary} is a program for {other}, and not for x86_64",
                    _HINT,
                )
            for number in range(count):
                file.seek(at + number * size)
                segment = _SEGMENT.unpack(file.read(_SEGMENT.size))
                if segment[0] == _INTERPRETER:
                    file.seek(segment[2])
                    text = file.read(min(segment[5], 4096)).rstrip(b"\0")
                    if not _PATH.fullmatch(text):
                        raise ValueError("this is no path")
                    return text.decode()
    except (struct.error, OverflowError, ValueError):
        raise UsageError(f"{binary} is a damaged program", _HINT) from None
    except OSError as err:
        raise UsageError(f"{binary}: {err.strerror}", _HINT) from err
    return ""


def _own_loader(
    binary: Path, interpreter: str
) -> tuple[Path, Path] | None:
    """Find the root of another system around a binary, and its loader."""
    name = Path(interpreter).name
    ours = Path(interpreter).resolve()
    # The outermost folder, since a root has a folder usr.
    for root in reversed(binary.parents[:-1]):
        for folder in (
            Path(interpreter).parent.relative_to("/"),
            *map(Path, ("usr/lib64", "usr/lib/x86_64-linux-gnu",
                        "lib/x86_64-linux-gnu")),
        ):  # fmt: skip
            own = (root / folder / name).resolve()
            if own == ours:
                return None
            if own.is_file() and own.is_relative_to(root.resolve()):
                return root, own
    return None


def _library_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of a system's root that have libraries."""
    for folder in (
        *("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"),
        *("lib64", "usr/lib64", "lib", "usr/lib", "usr/local/lib"),
    ):
        if (root / folder).is_dir():
            yield root / folder
            # Some packages have a folder of their own, e.g. pulseaudio.
            yield from sorted(
                {x.parent for x in (root / folder).glob("*/*.so*")}
            )


def _check(
    binary: Path, launch: Sequence[str]
) -> tuple[str, Tells, str]:
    """See that runs can be made and judged.

    :return: The version, how it tells of its migrations, and what it says of
        its trace events; empty if it writes no trace.
    """
    found = version_line(_ask(binary, launch, "--version"))
    if found is None:
        raise UsageError(f"{binary} does not tell QEMU's version", _HINT)
    line, release = found
    if release < OLDEST:
        raise UsageError(
            f"{binary} is QEMU {release[0]}.{release[1]}, and 8.1 is the "
            "first release that can be judged",
            _HINT,
        )
    tells = _tells(binary, launch, release)
    events = why = ""
    if tells is not Tells.EVENTS:
        events = _ask(binary, launch, "-trace", "help")
        why = unseen(events)
    if why:
        raise UsageError(
            f"{binary} {why}, so that nothing could be seen of a run", _HINT
        )
    if "tcg" not in _ask(binary, launch, "-accel", "help").split():
        raise UsageError(
            f"{binary} has no accelerator 'tcg', and the testbed has no KVM",
            "Build it with --enable-tcg.",
        )
    if "q35" not in _ask(binary, launch, "-machine", "help").split():
        raise UsageError(f"{binary} has no machine q35", _HINT)
    return line, tells, events


def _tells(
    binary: Path, launch: Sequence[str], release: tuple[int, int]
) -> Tells:
    """Find out how a QEMU can tell of its migrations."""
    if writes_log(_ask(binary, launch, "-d", "help")):
        return Tells.LOG
    if release < EVENTS_SINCE:
        raise UsageError(
            f"{binary} was built without the trace backend 'log', and before "
            "9.1 QMP has no events about devices, so that nothing could be "
            "seen of a run",
            "Build it with --enable-trace-backends=log, as Debian does.",
        )
    if NO_FILE in _ask(binary, launch, *_TRACED):
        return Tells.EVENTS
    return Tells.SIMPLE


def _ask(binary: Path, launch: Sequence[str], *arguments: str) -> str:
    try:
        done = subprocess.run(
            bound([*launch, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{binary} {' '.join(arguments)} does not end", _HINT
        ) from None
    except OSError as err:
        raise UsageError(f"{binary}: {err.strerror}", _HINT) from err
    # QEMU exits with 1 after the help of -d.
    if done.returncode and arguments not in (("-d", "help"), _TRACED):
        lines = done.stdout.strip().splitlines() or ["it printed nothing"]
        how = f"exit status {done.returncode}"
        if done.returncode < 0:
            how = f"signal {-done.returncode}"
        raise UsageError(
            f"{binary} {' '.join(arguments)} fails ({how}): {lines[-1][:200]}",
            _HINT,
        )
    return done.stdout
