# SPDX-License-Identifier: GPL-2.0-or-later
"""The outer VM of the sealed place: its image, its selftest, a shell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vfio_p2p.choice import VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places.sealed.image import Image, get_image
from vfio_p2p.places.sealed.load import job_files, write_initramfs
from vfio_p2p.places.sealed.outer import Outer, get_outer
from vfio_p2p.places.sealed.selftest import SelfTest, run_selftest
from vfio_p2p.places.sealed.shell import run_shell
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import build_all, choose, choose_variants
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.qemu.program import Program
from vfio_p2p.scenario.model import Scenario


def build_image(
    driver: Driver,
    kernel: VmKernel = VmKernel.DEBIAN,
    reporter: Reporter = SILENT,
) -> Image:
    """Build the image of the outer VM, or find it in the cache.

    :param driver: The kernel module whose devices it has.
    :param kernel: The kernel that it has.
    :raise HostError: When a package cannot be downloaded.
    :raise BuildError: When the module does not build.
    """
    task = reporter.task("testbed")
    image = get_image(task, driver, kernel)
    task.end("ready")
    return image


@dataclass(frozen=True)
class SelfTested:
    """The result of the simulated device's selftest.

    :param found: Its cases.
    :param console: The file with the whole output.
    """

    found: SelfTest
    console: Path

    @property
    def verdict(self) -> Verdict:
        """FAIL if any case failed or was skipped."""
        return Verdict.FAIL if self.found.failed else Verdict.PASS


def selftest(
    kernel: VmKernel = VmKernel.DEBIAN, reporter: Reporter = SILENT
) -> SelfTested:
    """Run p2psim's own test of what VFIO promises of a device.

    :param kernel: The kernel of the VM.
    :raise BuildError: When it does not build.
    :raise TestbedError: When it does not come to its end.
    """
    task = reporter.task("selftest")
    found, console = run_selftest(task, kernel)
    task.end("done")
    return SelfTested(found, console)


@dataclass(frozen=True)
class ShellRequest:
    """A request for a shell in the outer VM, and the files in it.

    :param origin: The source.
    :param driver: The kernel module whose devices there are.
    :param kernel: The kernel of the VM.
    :param variant: The tree of the QEMU that is taken along.
    :param scenario: The scenario that is taken along.
    """

    origin: Origin = Origin()
    driver: Driver = Driver.P2PSIM
    kernel: VmKernel = VmKernel.DEBIAN
    variant: str = "patched"
    scenario: str = "two-devices"


@dataclass(frozen=True)
class Shell:
    """A shell that is ready to run.

    :param outer: The QEMU that runs the outer VM.
    :param image: The image of the outer VM.
    :param program: The QEMU that is taken along.
    :param scenario: The scenario that is taken along.
    """

    outer: Outer
    image: Image
    program: Program
    scenario: Scenario

    def run(self) -> None:
        """Give the terminal to the shell until the VM ends.

        :raise TestbedError: When the VM does not run.
        """
        with temporary_folder() as name:
            path = Path(name, "initramfs.cpio")
            write_initramfs(
                path,
                self.image,
                job_files(
                    self.program.files(),
                    course=self.scenario.course.to_json(),
                ),
            )
            run_shell(self.outer, self.image, path)


def prepare_shell(
    request: ShellRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Shell:
    """Build what a shell in the outer VM needs.

    :raise InputError: When a name or the source is wrong.
    :raise BuildError: When something does not build.
    """
    setting = replace(Setting(), driver=request.driver)
    scenario = load_for(request.scenario, setting, reporter)
    chosen = choose(request.origin, reporter, workshop)
    (variant,) = choose_variants(chosen, [request.variant], workshop)
    (made,) = build_all(chosen.source, [variant], reporter, workshop)
    image = build_image(request.driver, request.kernel, reporter)
    return Shell(get_outer(image.kit), image, Program.of(made), scenario)
