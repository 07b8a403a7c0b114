# SPDX-License-Identifier: GPL-2.0-or-later
"""The sealed place: each job has an outer VM of its own, which is exact.

The job and its programs go in before power-on, the bundle comes out after
power-off, and nothing crosses in between.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from vfio_p2p.bundle.manifest import RESULT, SCENARIO
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import seal, writing
from vfio_p2p.devices import Driver
from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.files import room_for, write_whole
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.job import Job
from vfio_p2p.places.place import LIMIT_S
from vfio_p2p.places.sealed.image import Image, get_image
from vfio_p2p.places.sealed.inside import ERROR, TELLS
from vfio_p2p.places.sealed.load import write_initramfs
from vfio_p2p.places.sealed.mailbox import collect
from vfio_p2p.places.sealed.outer import (
    CONSOLE,
    INITRAMFS,
    MAILBOX,
    Outer,
    find_outer,
    run_sealed,
    sealed_arguments,
)
from vfio_p2p.progress import Progress, silent
from vfio_p2p.qemu.program import Program, Programs
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.tells import Tells

# With "off", QEMU maps BARs into the VM, as far as they can be mapped.
_MAPPING = "x-no-mmap"
# The mailbox, the initramfs, and the bundle.
_NEEDED_BYTES = 160 << 20


class SealedPlace:
    """A VM with a real kernel and real VFIO devices, on an emulated CPU.

    :param driver: The kernel module that provides the devices.
    :param programs: Finds the programs that jobs name.
    :param outer: The QEMU that runs the VM; by default the distribution's.
    :param image: The VM's image; by default `prepare` finds or builds it.
    """

    name = "sealed"
    exact = True
    capacity = None

    def __init__(
        self,
        driver: Driver,
        programs: Programs,
        *,
        outer: Outer | None = None,
        image: Image | None = None,
    ) -> None:
        self._driver = driver
        self._programs = programs
        self._outer = outer
        self._image = image

    def check(self) -> None:
        """See that there is a QEMU to run the VM; see `Place.check`.

        :raise MissingToolError: When there is none.
        """
        self._found_outer()

    def prepare(self, progress: Progress) -> None:
        """Find the image in the cache, or build it; see `Place.prepare`."""
        self._ready_image(progress)

    def refusal(self, scenario: Scenario) -> str:
        """Refuse what only PCI functions can play; see `Place`."""
        if self._driver is Driver.P2PVF:
            return ""
        for device in scenario.devices:
            if scenario.vfio_properties({}, device).get(_MAPPING) == "off":
                return (
                    f"its devices' BARs are to be mapped ({_MAPPING} = "
                    f"\"off\"), and those of {self._driver} cannot be"
                )
        return ""

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Hold nothing: the VMs share nothing; see `Place`."""
        return nullcontext()

    def provenance(self, job: Job) -> SealedProvenance:
        """Tell what the testbed contributes; see `ExactPlace`."""
        outer = self._found_outer()
        image = self._ready_image(silent)
        return SealedProvenance(
            image=image.files,
            outer=outer.version,
            outer_sha256=outer.sha256,
            arguments=sealed_arguments(job.seed, image.driver),
            driver=image.driver,
            kernel=image.kernel_package,
            compiler=image.compiler,
        )

    async def run(
        self, job: Job, out: Path, *, limit_s: float = LIMIT_S
    ) -> Bundle:
        """Run a job in a VM of its own; see `Place.run`.

        :raise TestbedError: When the VM fails.
        """
        image = self._ready_image(silent)
        programs = [
            self._programs.find(what)
            for what in (job.source, job.destination)
        ]
        with room_for(out, _NEEDED_BYTES), writing(out) as partial:
            # It is there, so that nothing stays elsewhere after a kill.
            work = partial / ".work"
            work.mkdir()
            write_initramfs(
                work / INITRAMFS,
                image,
                *(_files(program) for program in programs),
                course=job.scenario.course.to_json(),
            )
            try:
                await run_sealed(
                    self._found_outer(), image, job.seed, work, limit_s
                )
                _take(work, partial)
            except TestbedError as err:
                raise TestbedError(
                    err.what, f"{err.hint} {_keep(work, out)}".strip()
                ) from err
            shutil.rmtree(work)
            (partial / SCENARIO).write_bytes(job.scenario.to_json())
            seal(partial, job.inputs(self.provenance(job)))
        return open_bundle(out)

    def _found_outer(self) -> Outer:
        if self._outer is None:
            self._outer = find_outer()
        return self._outer

    def _ready_image(self, progress: Progress) -> Image:
        if self._image is None:
            self._image = get_image(progress, self._driver)
        return self._image


def _files(program: Program) -> dict[str, bytes]:
    """Return the files of a program, and how it is to be heard."""
    files = program.files()
    if program.what.tells is not Tells.LOG:
        files[TELLS] = program.what.tells.encode()
    return files


def _take(work: Path, partial: Path) -> None:
    """Move what the VM left to where the bundle is made."""
    collect(work / MAILBOX, partial)
    error = partial / ERROR
    if error.exists():
        what, hint, *_ = [*error.read_text().splitlines(), "", ""]
        raise TestbedError(what, hint)
    if not (partial / RESULT).exists():
        raise TestbedError("the VM left no result", "Look at its console.")
    shutil.copy(work / CONSOLE, partial / CONSOLE)


def _keep(work: Path, out: Path) -> str:
    """Keep the console of a run that failed; says where it is."""
    if not (work / CONSOLE).exists():
        return ""
    kept = cache_dir() / "logs" / f"{out.name}.console.txt"
    write_whole(kept, (work / CONSOLE).read_bytes())
    return f"The VM's console is kept in {kept}."
