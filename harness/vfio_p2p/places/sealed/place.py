# SPDX-License-Identifier: GPL-2.0-or-later
"""The sealed place: each job has an outer VM of its own, which is exact.

The job and its programs go in before the VM runs, the bundle comes out after
power-off, and nothing crosses in between.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vfio_p2p.bundle.manifest import RESULT, SCENARIO
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import seal, writing
from vfio_p2p.choice import VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.files import room_for
from vfio_p2p.places.job import Job
from vfio_p2p.places.place import LIMIT_S
from vfio_p2p.places.sealed.image import Image, get_image
from vfio_p2p.places.sealed.inside import ERROR, TELLS
from vfio_p2p.places.sealed.load import job_files
from vfio_p2p.places.sealed.mailbox import collect, made, send
from vfio_p2p.places.sealed.outer import (
    CONSOLE,
    Outer,
    can_be_saved,
    get_outer,
    sealed_arguments,
)
from vfio_p2p.places.sealed.snapshot import (
    Snapshot,
    get_snapshot,
    run_restored,
)
from vfio_p2p.places.sealed.splat import check_console
from vfio_p2p.places.sealed.vm import console_kept, run_booted
from vfio_p2p.progress import Progress, silent
from vfio_p2p.qemu.program import Program, Programs
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.tells import Tells

# With "off", QEMU maps BARs into the VM, as far as they can be mapped.
_MAPPING = "x-no-mmap"
_NEEDED_BYTES = 64 << 20


@dataclass(frozen=True)
class Testbed:
    """What all runs with one kernel share.

    :param image: The image of the VM.
    :param outer: The QEMU that runs it.
    :param snapshot: The VM from which all runs go on; None if each run boots
        a VM of its own.
    """

    image: Image
    outer: Outer
    snapshot: Snapshot | None = None


NO_TESTBEDS: Mapping[VmKernel, Testbed] = {}


class SealedPlace:
    """A VM with a real kernel and real VFIO devices, on an emulated CPU.

    :param driver: The kernel module that provides the devices.
    :param programs: Finds the programs that jobs name.
    :param boot: Whether each run boots a VM, even if it could go on from a
        snapshot.
    :param kernel: The kernel; None takes for each scenario the first one that
        has what it needs.
    :param testbeds: What runs share, by kernel; what is not there, `prepare`
        finds in the cache, or makes.
    """

    name = "sealed"
    exact = True
    capacity = None

    def __init__(
        self,
        driver: Driver,
        programs: Programs,
        *,
        boot: bool = False,
        kernel: VmKernel | None = None,
        testbeds: Mapping[VmKernel, Testbed] = NO_TESTBEDS,
    ) -> None:
        self._driver = driver
        self._programs = programs
        self._boot = boot or not can_be_saved(driver)
        self._kernel = kernel
        self._testbeds = dict(testbeds)

    def check(self) -> None:
        """Check nothing: all that is needed is in the kit; see `Place`."""

    def prepare(
        self, progress: Progress, scenarios: Iterable[Scenario]
    ) -> None:
        """Find the testbed in the cache, or make it; see `Place.prepare`.

        :raise TestbedError: When the VM does not boot, or cannot be saved.
        """
        playable = [x for x in scenarios if not self.refusal(x)]
        for kernel in dict.fromkeys(map(self._kernel_for, playable)):
            self._ready(kernel, progress)

    def _kernel_for(self, scenario: Scenario) -> VmKernel:
        return self._kernel or VmKernel.for_needs(scenario.needed)

    def refusal(self, scenario: Scenario) -> str:
        """Refuse what the kernel or the devices cannot play; see `Place`."""
        kernel = self._kernel_for(scenario)
        if missing := scenario.needed - kernel.offers:
            return f"the kernel {kernel} has no {', '.join(sorted(missing))}"
        if self._driver is Driver.P2PVF:
            if kernel is not VmKernel.DEBIAN:
                return f"the kernel {kernel} has no PCI functions"
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
        testbed = self._ready(self._kernel_for(job.scenario), silent)
        image, outer = testbed.image, testbed.outer
        return SealedProvenance(
            image=image.files,
            outer=outer.version,
            outer_sha256=outer.sha256,
            arguments=sealed_arguments(
                job.seed, image.driver, image.kernel_kind
            ),
            snapshot=testbed.snapshot.digest if testbed.snapshot else "",
            driver=image.driver,
            kernel_kind=image.kernel_kind,
            kernel=image.kernel_package,
            compiler=image.compiler,
        )

    async def run(
        self, job: Job, out: Path, *, limit_s: float = LIMIT_S
    ) -> Bundle:
        """Run a job in a VM of its own; see `Place.run`.

        :raise TestbedError: When the VM fails.
        """
        programs = [
            self._programs.find(what)
            for what in (job.source, job.destination)
        ]
        with room_for(out, _NEEDED_BYTES), writing(out) as partial:
            # It is there, so that nothing stays elsewhere after a kill.
            work = partial / ".work"
            work.mkdir()
            files = job_files(
                *(_files(program) for program in programs),
                course=job.scenario.course.to_json(),
            )
            with console_kept(work, out.name):
                with made() as mailbox:
                    send(mailbox, files, job.seed)
                    await self._run_vm(job, mailbox, work, limit_s)
                    _take(mailbox, partial)
                check_console(work / CONSOLE)
            shutil.copy(work / CONSOLE, partial / CONSOLE)
            shutil.rmtree(work)
            (partial / SCENARIO).write_bytes(job.scenario.to_json())
            seal(partial, job.inputs(self.provenance(job)))
        return open_bundle(out)

    async def _run_vm(
        self, job: Job, mailbox: IO[bytes], work: Path, limit_s: float
    ) -> None:
        testbed = self._ready(self._kernel_for(job.scenario), silent)
        image, outer = testbed.image, testbed.outer
        if testbed.snapshot:
            await run_restored(
                outer, image, testbed.snapshot, job.seed, mailbox, work,
                limit_s,
            )
        else:
            await run_booted(outer, image, job.seed, mailbox, work, limit_s)

    def _ready(self, kernel: VmKernel, progress: Progress) -> Testbed:
        if kernel not in self._testbeds:
            image = get_image(progress, self._driver, kernel)
            outer = get_outer(image.kit)
            snapshot = None
            if not self._boot:
                snapshot = get_snapshot(image, outer, progress)
            self._testbeds[kernel] = Testbed(image, outer, snapshot)
        return self._testbeds[kernel]


def _files(program: Program) -> dict[str, bytes]:
    """Return the files of a program, and how it is to be heard."""
    files = program.files()
    if program.what.tells is not Tells.LOG:
        files[TELLS] = program.what.tells.encode()
    return files


def _take(mailbox: IO[bytes], partial: Path) -> None:
    """Take what the VM left to where the bundle is made."""
    collect(mailbox, partial)
    error = partial / ERROR
    if error.exists():
        what, hint, *_ = [*error.read_text().splitlines(), "", ""]
        raise TestbedError(what, hint)
    if not (partial / RESULT).exists():
        raise TestbedError("the VM left no result", "Look at its console.")
