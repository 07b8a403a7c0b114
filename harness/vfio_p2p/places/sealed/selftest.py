# SPDX-License-Identifier: GPL-2.0-or-later
"""Build p2psim's own test, and run it in the testbed.

It runs sealed like every run, so its times are exact and do not depend on the
machine.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p import resources
from vfio_p2p.choice import VmKernel
from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.files import room_for, write_whole
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.compiler import call, compiler
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.image import get_image
from vfio_p2p.places.sealed.kit import get_kit, read_recipe
from vfio_p2p.places.sealed.mailbox import made
from vfio_p2p.places.sealed.outer import CONSOLE, INITRAMFS, get_outer
from vfio_p2p.places.sealed.splat import splats
from vfio_p2p.places.sealed.vm import run_booted
from vfio_p2p.progress import Progress, silent
from vfio_p2p.trace import printable

LIMIT_S = 900.0

_PROGRAM = "p2psim-selftest"
_JOB = "testbed=selftest"
_NEEDED_BYTES = 300 << 20
_SEED = 42

# If memory is refused, Linux's vfio_create_group() releases a group that still
# has its IOMMU group, and vfio_group_release() warns about that (in 6.12).
_REFUSING = " - mkdir: each of "
_EXPECTED = " at vfio_group_release+"

_CASE = re.compile(r"(ok|not ok) (\d+) - (.*)")
_SKIP = re.compile(r"#\s*(skip|todo)\b", re.IGNORECASE)
_PLAN = re.compile(r"1\.\.(\d+)")
_END = re.compile(r"testbed: the selftest ended with (\d+)")


@dataclass(frozen=True)
class SelfTest:
    """The result of the selftest.

    :param passed: The number of cases that passed.
    :param failed: The names of the cases that failed or were skipped, each
        with its diagnostics, and the errors that the kernel has found.
    """

    passed: int
    failed: tuple[str, ...]


def run_selftest(
    progress: Progress = silent,
    kernel: VmKernel = VmKernel.DEBIAN,
    limit_s: float = LIMIT_S,
) -> tuple[SelfTest, Path]:
    """Build the selftest, and run it in the testbed.

    :param progress: Told of each step.
    :param kernel: The kernel of the VM.
    :param limit_s: The limit in seconds of the host's time.
    :return: The result, and the file with the whole output.
    :raise BuildError: When the selftest does not build.
    :raise TestbedError: When the selftest does not reach its end.
    :raise NoSpaceError: When the disk is too full.
    """
    image = get_image(progress, kernel=kernel)
    parent = cache_dir() / "testbed"
    kept = cache_dir() / "logs" / "selftest.console.txt"
    with (
        room_for(parent, _NEEDED_BYTES),
        tempfile.TemporaryDirectory(dir=parent, prefix=".selftest.") as name,
    ):
        work = Path(name)
        progress(0, 2, "building the selftest")
        layer = Layer()
        layer.add(f"selftest/{_PROGRAM}", _build(work), executable=True)
        shutil.copy(image.initramfs, work / INITRAMFS)
        with (work / INITRAMFS).open("ab") as file:
            file.write(layer.to_bytes())
        progress(1, 2, "running the selftest")
        console = b""
        try:
            with made() as mailbox:
                asyncio.run(
                    run_booted(
                        get_outer(image.kit),
                        image,
                        _SEED,
                        mailbox,
                        work,
                        limit_s,
                        _JOB,
                        initramfs=Path(INITRAMFS),
                    )
                )
        finally:
            if (work / CONSOLE).exists():
                console = (work / CONSOLE).read_bytes()
            write_whole(kept, console)
    # The kept file is not read: another process may have replaced it.
    try:
        return read_console(console.decode(errors="replace")), kept
    except TestbedError as err:
        raise TestbedError(err.what, f"Read its console: {kept}") from None


def _build(work: Path) -> bytes:
    recipe = read_recipe()
    kit = get_kit(recipe, silent)
    with compiler(recipe, kit) as tools:
        call(
            [
                *("make", "selftest", f"OUT={work}"),
                f"CC=gcc --sysroot={kit.root.resolve()}",
                f"HEADERS={kit.root.resolve()}",
                f"VERSION={kit.release}",
            ],
            resources.images() / "p2psim",
            cache_dir() / "testbed" / "selftest.log",
            package="make",
            environment=tools.environment,
        )
    return (work / _PROGRAM).read_bytes()


def read_console(text: str) -> SelfTest:
    """Read TAP from a console that has other output as well.

    :param text: The text of the console.
    :raise TestbedError: When the selftest did not reach its end.
    """
    numbers: list[int] = []
    wrong = 0
    failed: list[str] = []
    plan = status = None
    about_failed = False
    for line in text.splitlines():
        line = line.rstrip()
        if case := _CASE.fullmatch(line):
            numbers.append(int(case[2]))
            wrong += case[1] != "ok"
            about_failed = case[1] != "ok" or bool(_SKIP.search(case[3]))
            if about_failed:
                failed.append(case[3])
        elif line.startswith("#") and about_failed:
            failed[-1] += f"; {line[1:].strip()}"
        elif line.startswith("Bail out!"):
            raise TestbedError(f"the selftest gave up: {printable(line)}")
        elif found := _PLAN.fullmatch(line):
            plan = int(found[1])
            about_failed = False
        elif found := _END.fullmatch(line):
            status = int(found[1])
    if status is None or plan != len(numbers) or not plan:
        raise TestbedError(
            f"the selftest broke off after {len(numbers)} cases"
        )
    if numbers != list(range(1, plan + 1)):
        raise TestbedError(
            f"the selftest's cases are not those from 1 to {plan}"
        )
    if bool(status) != bool(wrong):
        raise TestbedError(
            f"the selftest ended with {status}, and {wrong} cases failed"
        )
    before, _, refusing = text.partition(_REFUSING)
    said = (*splats(before), *splats(refusing, _EXPECTED))
    return SelfTest(
        len(numbers) - len(failed),
        (*failed, *(f"the kernel says: {x}" for x in said)),
    )
