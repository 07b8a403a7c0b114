# SPDX-License-Identifier: GPL-2.0-or-later
"""A sealed run: (QEMU build, scenario, seed) in, a bundle out.

The scenario and the QEMU go in before power-on, the bundle comes out after
power-off, and nothing crosses in between.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.bundle.manifest import (
    RESULT,
    SCENARIO,
    Inputs,
    QemuInput,
    TestbedInput,
)
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.bundle.write import seal, writing
from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.files import room_for, write_whole
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed import results
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.inside import ERROR
from vfio_p2p.places.sealed.load import Program, write_initramfs
from vfio_p2p.places.sealed.mailbox import collect
from vfio_p2p.places.sealed.outer import (
    CONSOLE,
    INITRAMFS,
    MAILBOX,
    Outer,
    run_sealed,
    sealed_arguments,
)
from vfio_p2p.scenario.model import Scenario

# Of the host's time. A run takes about 10 s on an idle machine.
LIMIT_S = 900.0

# The mailbox, the initramfs, and the bundle.
_NEEDED_BYTES = 160 << 20


@dataclass(frozen=True)
class Testbed:
    """Where sealed runs happen.

    :param outer: The QEMU that runs the outer VM.
    :param image: The outer VM's image.
    """

    __test__ = False        # not a test class, whatever pytest thinks

    outer: Outer
    image: Image

    async def run(
        self,
        program: Program,
        scenario: Scenario,
        seed: int,
        bundle: Path,
        limit_s: float = LIMIT_S,
        *,
        rerun: bool = False,
    ) -> str:
        """Run one scenario; same inputs, same bundle.

        What was run before is not run again, wherever that was.

        :param program: The QEMU under test.
        :param scenario: What is to happen.
        :param seed: Fixes the rest.
        :param bundle: Folder to leave the bundle in.
        :param limit_s: Limit in seconds of the host's time.
        :param rerun: Run it again, and see that it is the same.
        :return: The bundle's digest.
        :raise TestbedError: When the testbed, not the QEMU under test,
            is at fault: also when a rerun is not the same.
        :raise NoSpaceError: When the disk is too full.
        """
        inputs = self.inputs(program, scenario, seed)
        known = results.find(inputs)
        if known and not rerun:
            with room_for(bundle, _NEEDED_BYTES), writing(bundle) as partial:
                shutil.copytree(known.path, partial, dirs_exist_ok=True)
            return known.digest
        digest = await self.make(program, scenario, seed, bundle, limit_s)
        made = open_bundle(bundle)
        if known:
            results.check_same(known, made)
        else:
            results.keep(made)
        return digest

    def inputs(
        self, program: Program, scenario: Scenario, seed: int
    ) -> Inputs:
        """All that determines a run.

        :param program: The QEMU under test.
        :param scenario: What is to happen.
        :param seed: Fixes the rest.
        """
        return self._inputs(program, program.files(), scenario, seed)

    def _inputs(
        self,
        program: Program,
        files: dict[str, bytes],
        scenario: Scenario,
        seed: int,
    ) -> Inputs:
        return Inputs(
            qemu=QemuInput(
                variant=program.variant,
                build=program.build,
                version=program.version,
                sha256=_sha256(files[program.binary.name]),
                libraries={
                    Path(name).name: _sha256(data)
                    for name, data in files.items()
                    if name.startswith("lib/")
                },
                made_of=program.made_of,
            ),
            scenario=scenario.digest,
            seed=seed,
            testbed=self.input(seed),
        )

    def input(self, seed: int) -> TestbedInput:
        """What of that the testbed is.

        :param seed: See `inputs`.
        """
        return TestbedInput(
            image=self.image.files,
            outer=self.outer.version,
            outer_sha256=self.outer.sha256,
            arguments=sealed_arguments(seed),
            driver=self.image.driver,
            kernel=self.image.kernel_package,
            compiler=self.image.compiler,
        )

    async def make(
        self,
        program: Program,
        scenario: Scenario,
        seed: int,
        bundle: Path,
        limit_s: float = LIMIT_S,
    ) -> str:
        """Run one scenario, and ask nobody what came of it before.

        Parameters, result and errors are those of `run`.
        """
        files = program.files()
        with room_for(bundle, _NEEDED_BYTES), writing(bundle) as partial:
            # In there, so that nothing stays elsewhere if we are killed.
            work = partial / ".work"
            work.mkdir()
            write_initramfs(
                work / INITRAMFS, self.image, files, scenario.to_json()
            )
            try:
                await run_sealed(self.outer, self.image, seed, work, limit_s)
                _take(work, partial)
            except TestbedError as err:
                raise TestbedError(
                    err.what, f"{err.hint} {_keep(work, bundle)}".strip()
                ) from err
            shutil.rmtree(work)
            (partial / SCENARIO).write_bytes(scenario.to_json())
            return seal(
                partial, self._inputs(program, files, scenario, seed)
            )


def _take(work: Path, partial: Path) -> None:
    """Move what the VM left to where the bundle is made."""
    collect(work / MAILBOX, partial)
    error = partial / ERROR
    if error.exists():
        what, hint, *_ = [*error.read_text().splitlines(), "", ""]
        raise TestbedError(what, hint)
    if not (partial / RESULT).exists():
        raise TestbedError("the VM left no result")
    shutil.copy(work / CONSOLE, partial / CONSOLE)


def _keep(work: Path, bundle: Path) -> str:
    """Keep the console of a run that failed; says where it is."""
    if not (work / CONSOLE).exists():
        return ""
    kept = cache_dir() / "logs" / f"{bundle.name}.console.txt"
    write_whole(kept, (work / CONSOLE).read_bytes())
    return f"(the VM's console is kept in {kept})"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
