#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the commands that README and docs show, and renew what they print.

    tools/outputs.py                 runs all commands of COMMANDS
    tools/outputs.py 'vfio-p2p demo' runs those that begin with this

A line of a page is replaced by the line of the output that differs from it
in numbers alone, so that an output may be shown in part.  Lines that have no
counterpart are printed, and are left for a person to write.  Numbers with
three decimals that have changed everywhere alike are replaced in the prose of
the page as well.  The exit code is 1 if anything is left.  Commands run in
out/outputs, which is kept, and in the order of the pages, since some read
what others have left.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vfio_p2p.machine.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "out" / "outputs"
PAGES = (
    "docs/getting-started.md",
    "docs/guide.md",
    "docs/exactness.md",
    "docs/python-api.md",
    "README.md",
)
EXAMPLE = "python docs/examples/two_devices.py"
# Commands that make sealed runs, or read what those have left.
COMMANDS = (
    "vfio-p2p validate",
    "vfio-p2p run two-devices",
    "vfio-p2p demo",
    "vfio-p2p compare base patch-1",
    "vfio-p2p check source/trace.log",
    "vfio-p2p bisect --qemu",
    "vfio-p2p reproduce",
    EXAMPLE,
)
# Outputs that do not stand below their command, by how they begin.
ELSEWHERE = {
    "QEMU emulator version ": "vfio-p2p validate",
    "patched  ": "vfio-p2p demo",
    "patched, two-devices: ": EXAMPLE,
}
# What commands read that they have not made.
LINKS = {
    "source": "out/patched-two-devices-s42/source",
    "destination": "out/patched-two-devices-s42/destination",
    "stop-early.patch": "../../docs/examples/stop-early.patch",
    "refactor.patch": "../../docs/examples/refactor.patch",
}
# Those of them that need what only their readers have.
_NEEDS_MORE = re.compile(r"~/|--at |A/ B/")
_NUMBER = re.compile(r"\b[0-9a-f]{12,}\b|(?:(?<=\s)[+-])?\d+(?:\.\d+)?")
_FIGURE = re.compile(r"(?<![\d.])\d+\.\d{3}(?!\d)")


@dataclass
class Shown:
    """A command of a page, and what it printed.

    :param command: The command, as one line.
    :param first: The number of the output's first line in the page, from 0.
    :param lines: The lines of the output, with their indentation.
    """

    command: str
    first: int
    lines: list[str]


@dataclass
class Renewal:
    """What becomes of a page.

    :param lines: Its lines.
    :param figures: The new figures for each old one, by the old one.
    :param odd: The lines without a counterpart, with their commands.
    """

    lines: list[str]
    figures: dict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set)
    )
    odd: list[tuple[str, str]] = field(default_factory=list)


def shown(lines: Sequence[str]) -> Iterator[Shown]:
    """Yield the commands of a page that are followed by their output.

    :param lines: The page.
    """
    index = 0
    while index < len(lines):
        words: list[str] = []
        while index < len(lines) and lines[index].startswith("    "):
            words.append(lines[index].strip())
            index += 1
            if not words[-1].endswith("\\"):
                break
        if not words:
            index += 1
            continue
        command = " ".join(x.removesuffix("\\").strip() for x in words)
        first = index + 1
        if not command.startswith("vfio-p2p "):
            found = [y for x, y in ELSEWHERE.items() if command.startswith(x)]
            if not found or lines[index - 2].strip():
                continue
            (command,), first = found, index - 1
        elif lines[index : index + 1] != [""]:
            continue
        end = first
        while end < len(lines) and _goes_on(lines, end):
            end += 1
        if end > first:
            yield Shown(command, first, list(lines[first:end]))
        index = end


def _goes_on(lines: Sequence[str], index: int) -> bool:
    """Return whether an output goes on with a line, or behind an empty one."""
    if not lines[index].strip():
        index += 1
    line = lines[index] if index < len(lines) else ""
    return line.startswith("    ") and not line.startswith("    vfio-p2p ")


def renew(page: Renewal, output: Shown, printed: str) -> None:
    """Put the lines that a command prints in the place of the old ones.

    :param page: The page, which is changed.
    :param output: What it shows.
    :param printed: What the command prints now.
    """
    old = output.lines
    new = printed.splitlines()
    matcher = difflib.SequenceMatcher(
        None, [_form(x) for x in old], [_form(x) for x in new], autojunk=False
    )
    for what, start, end, there, _ in matcher.get_opcodes():
        if what == "insert":
            continue
        for index in range(start, end):
            if what != "equal":
                page.odd.append((output.command, old[index].strip()))
                continue
            line = new[there + index - start].strip()
            indent = old[index][: len(old[index]) - len(old[index].lstrip())]
            before, after = (
                _FIGURE.findall(x) for x in (old[index], line)
            )
            for one, two in zip(before, after, strict=False):
                page.figures[one].add(two)
            page.lines[output.first + index] = (indent + line).rstrip()


def _form(line: str) -> str:
    """Return what two lines have in common that differ in numbers alone."""
    return re.sub(r"[\s─]+", " ", _NUMBER.sub("#", line)).strip()


def renew_prose(page: Renewal) -> list[str]:
    """Renew the figures in the prose of a page.

    :param page: The page, which is changed.
    :return: The figures that have more than one new value, or that no
        output has.
    """
    unclear = []
    for index, line in enumerate(page.lines):
        if line.startswith("    "):
            continue
        for old in _FIGURE.findall(line):
            new = sorted(page.figures.get(old, ["in no output"]))
            if old not in page.figures or len(new) > 1:
                unclear.append(f"{old}: {', '.join(new)}")
        page.lines[index] = _FIGURE.sub(
            lambda found: _only(page.figures, found[0]), line
        )
    return unclear


def _only(figures: Mapping[str, set[str]], old: str) -> str:
    new = figures.get(old, set())
    return next(iter(new)) if len(new) == 1 else old


def run(command: str) -> str:
    """Run a command, and return what it prints.

    :param command: A command of a page.
    """
    words = command.split()
    program = f"{sys.executable} -m vfio_p2p"
    if command == EXAMPLE:
        program, words = sys.executable, ["", str(ROOT / words[1])]
    done = subprocess.run(
        " ".join([program, *words[1:]]),
        shell=True,
        cwd=WORK,
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return done.stdout


def main() -> int:
    """Run this program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("commands", nargs="*", default=COMMANDS)
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    for link, target in LINKS.items():
        if not (WORK / link).is_symlink():
            (WORK / link).symlink_to(target)
    printed: dict[str, str] = {}
    left = 0
    for name in PAGES:
        path = ROOT / name
        page = Renewal(path.read_text().split("\n"))
        for output in list(shown(page.lines)):
            command = output.command
            if not command.startswith(tuple(args.commands)):
                continue
            if _NEEDS_MORE.search(command):
                continue
            if command not in printed:
                print(f"$ {command}", flush=True)
                printed[command] = run(command)
            renew(page, output, printed[command])
        unclear = renew_prose(page)
        left += len(unclear) + len(page.odd)
        for figure in unclear:
            print(f"{name}: {figure}")
        for command, line in page.odd:
            print(f"{name}: {command}: {line}")
        write_whole(path, "\n".join(page.lines).encode(), 0o644)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
