# SPDX-License-Identifier: GPL-2.0-or-later
"""From a source and a variant to a binary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.machine.files import exclusive, room_for, used
from vfio_p2p.paths import cache_dir
from vfio_p2p.progress import Progress, silent
from vfio_p2p.qemu.job import Job
from vfio_p2p.qemu.recipe import Recipe, find_toolchain
from vfio_p2p.qemu.source import Source
from vfio_p2p.qemu.store import Store, Stored
from vfio_p2p.qemu.worktree import WorkTree
from vfio_p2p.series import Patch, Variant, apply_patches


@dataclass(frozen=True)
class Build:
    """A QEMU to run.

    :param variant: Name of the variant.
    :param key: Its key in the store: equal keys, equal inputs.
    :param directory: Its folder in the store.
    :param path: The binary ``qemu-system-x86_64``.
    :param version: What it says to ``--version``.
    :param sha256: Digest of the binary.
    :param reused: Whether it was there already.
    :param job: What it was made from.
    :param patches: What was applied to the source, in order.
    """

    variant: str
    key: str
    directory: Path
    path: Path
    version: str
    sha256: str
    reused: bool
    job: Job
    patches: tuple[Patch, ...]


def build(
    source: Source,
    variant: Variant,
    progress: Progress = silent,
    *,
    werror: bool = False,
) -> Build:
    """Build a variant, or find it in the store.

    Whoever asks for a build that another process is making waits for it.

    :param source: What the variant's patches apply to.
    :param variant: What to build.
    :param progress: Told how far it is.
    :param werror: Whether compiler warnings are errors.
    :raise PatchError: When a patch does not apply.
    :raise MissingToolError: When the machine lacks something.
    :raise NoSpaceError: When the disk is full, or would be.
    :raise BuildError: When a tool fails.
    """
    overlay = apply_patches(source, variant.patches)
    recipe = Recipe.load()
    job = Job(
        source=source,
        overlay=overlay,
        arguments=recipe.arguments(werror=werror),
        device_list=recipe.device_list(source.version),
        toolchain=find_toolchain(recipe, source.version),
    )
    store = Store(cache_dir() / "builds")
    stored = store.find(job.key)
    if stored:
        return _build(variant, job, stored, reused=True)
    work = WorkTree(cache_dir() / "work" / job.work_key)
    with exclusive(
        work.home.with_name(f"{work.home.name}.lock"),
        lambda: progress(0, 0, "waiting for another build"),
    ) as lock:
        stored = store.find(job.key)
        if stored:
            return _build(variant, job, stored, reused=True)
        # Not by the key alone: what another folder's work is at, with
        # a source of the same content, is not covered by this lock.
        log = cache_dir() / "logs" / f"{work.home.name}-{job.key}.log"
        with room_for(cache_dir(), work.needed_bytes):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
            log.touch()
            used(log)
            binary = work.compile(job, log, lock, progress)
            stored = store.add(job, binary, log)
        log.unlink()
    return _build(variant, job, stored, reused=False)


def _build(
    variant: Variant, job: Job, stored: Stored, *, reused: bool
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
