# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a binary from a source and a variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.machine.files import exclusive, room_for, using
from vfio_p2p.paths import cache_dir
from vfio_p2p.progress import Progress, silent
from vfio_p2p.qemu.job import BuildJob
from vfio_p2p.qemu.recipe import (
    NO_CHECKS,
    BuildRecipe,
    Checks,
    check_tools,
    find_toolchain,
)
from vfio_p2p.qemu.source import Source
from vfio_p2p.qemu.store import Store, Stored
from vfio_p2p.qemu.worktree import WorkTree
from vfio_p2p.series import Changes, Patch, Variant, apply_patches


@dataclass(frozen=True)
class Build:
    """A QEMU that was built.

    :param variant: The name of the variant.
    :param key: The build's key in the store; equal keys mean equal inputs.
    :param directory: The build's folder in the store.
    :param path: The binary ``qemu-system-x86_64``.
    :param version: The version that the binary prints.
    :param sha256: The digest of the binary.
    :param reused: Whether the build was in the store already.
    :param job: What the binary was made from.
    :param patches: The patches that were applied to the source, in order.
    """

    variant: str
    key: str
    directory: Path
    path: Path
    version: str
    sha256: str
    reused: bool
    job: BuildJob
    patches: tuple[Patch, ...]


def build(
    source: Source,
    variant: Variant,
    progress: Progress = silent,
    checks: Checks = NO_CHECKS,
    overlay: Changes | None = None,
) -> Build:
    """Build a variant, or find it in the store.

    If another process is making the same build, this one waits for it.
    A build in the store needs no libraries, and no tools but the compiler,
    whose version is a part of its key.

    :param source: The source that the variant's patches apply to.
    :param variant: The variant to build.
    :param progress: Told how far the build is.
    :param checks: What the build checks.
    :param overlay: What `apply_patches` has made of the source; None if that
        was not done yet.
    :raise PatchError: When a patch does not apply.
    :raise MissingToolError: When the machine lacks a tool or a library.
    :raise NoSpaceError: When the disk is full, or would be.
    :raise BuildError: When a tool fails.
    """
    if overlay is None:
        overlay = apply_patches(source, variant.patches)
    recipe = BuildRecipe.load()
    job = BuildJob(
        source=source,
        overlay=overlay,
        arguments=recipe.arguments(checks, source.version),
        device_list=recipe.device_list(source.version),
        toolchain=find_toolchain(),
    )
    store = Store(cache_dir() / "builds")
    stored = store.find(job.key)
    if stored:
        return _build(variant, job, stored, reused=True)
    check_tools(recipe, source.version)
    work = WorkTree(cache_dir() / "work" / job.work_key)
    with exclusive(
        work.lock,
        lambda: progress(0, 0, "waiting for another build"),
    ) as lock:
        stored = store.find(job.key)
        if stored:
            return _build(variant, job, stored, reused=True)
        # Its name is not the key alone: another work folder, with a
        # source of the same content, is not covered by this lock.
        log = cache_dir() / "logs" / f"{work.home.name}-{job.key}.log"
        with room_for(cache_dir(), work.needed_bytes):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
            log.touch()
            with using(log):
                binary = work.compile(job, log, lock, progress)
                stored = store.add(job, binary, log)
        log.unlink()
    return _build(variant, job, stored, reused=False)


def _build(
    variant: Variant, job: BuildJob, stored: Stored, *, reused: bool
) -> Build:
    return Build(
        variant=variant.name,
        key=stored.directory.name,
        directory=stored.directory,
        path=stored.binary,
        version=stored.info.version,
        sha256=stored.info.binary_sha256,
        reused=reused,
        job=job,
        patches=variant.patches,
    )
