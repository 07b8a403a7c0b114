# SPDX-License-Identifier: GPL-2.0-or-later
"""Bases: the QEMU versions that can be judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vfio_p2p.errors import PatchError, SourceError, UsageError
from vfio_p2p.names import suggest
from vfio_p2p.series.data import patches_folder, read_series
from vfio_p2p.series.patch import Patch


@dataclass(frozen=True)
class Base:
    """One QEMU version, and the series for it.

    :param name: E.g. ``v10.0``.
    :param qemu: The release that it is for: ``10.0`` is every 10.0.x.
    :param folder: The folder of the series, with a subfolder ``pre`` if
                   something must be removed from that QEMU first.  None if
                   that QEMU contains upstream's series and is judged as
                   it is.
    :param mutants: The folder of the mutants.
    :param followups: The folder of the follow-ups.
    :param binary: Whether Debian has that QEMU as a binary only, and no
                   source that can be downloaded.
    :param stock: Whether that QEMU is judged as it is although there is a
                  series for it, unless another variant is asked for.
    """

    name: str
    qemu: str
    folder: Path | None
    mutants: Path
    followups: Path
    binary: bool = False
    stock: bool = False

    @cached_property
    def pre(self) -> tuple[Patch, ...]:
        """The patches that are applied before the series, in order."""
        return _load(self.folder / "pre") if self.folder else ()

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """The series, in order."""
        return _load(self.folder) if self.folder else ()

    @property
    def sequence(self) -> tuple[Patch, ...]:
        """All patches between the source and the whole series, in order."""
        return self.pre + self.patches

    @property
    def as_it_is(self) -> bool:
        """Whether that QEMU is judged as it is, with upstream's series."""
        return self.stock or not self.patches

    def covers(self, version: str) -> bool:
        """Return whether the base is for this QEMU version."""
        return version == self.qemu or version.startswith(f"{self.qemu}.")


def _load(folder: Path | None) -> tuple[Patch, ...]:
    """Read the numbered patches of a folder, and refuse gaps."""
    if folder is None:
        return ()
    paths = sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.patch"))
    patches = tuple(map(Patch.load, paths))
    for number, patch in enumerate(patches, 1):
        if int(patch.name[:4]) != number:
            gap = int(patch.name[:4]) > number
            why = (
                f"patch {number:04} is missing before this one"
                if gap
                else f"this patch should have the number {number:04}"
            )
            raise PatchError(patch.name, None, None, why)
    for number, patch in enumerate(patches, 1):
        if patch.position not in (None, (number, len(patches))):
            raise PatchError(
                patch.name, None, None,
                f"its subject begins with {patch.prefix}, but the patch is "
                f"number {number} of {len(patches)}",
            )
    return patches


def load_bases(folder: Path | None = None) -> tuple[Base, ...]:
    """Return all bases, in the order of ``series.toml``.

    :param folder: The folder of patches; by default the project's own.
    :raise UsageError: When ``series.toml`` is damaged, or has a newer
                       format.
    """
    folder = folder or patches_folder()
    data = read_series(folder)
    mutants = folder / data.mutants
    others = {base for mutant in data.mutant for base in mutant.also}
    return tuple(
        Base(
            x.name,
            x.qemu,
            None if x.folder is None else folder / x.folder,
            mutants / x.name if x.name in others else mutants,
            folder / data.followups,
            x.binary,
            x.stock,
        )
        for x in data.base
    )


def default_base(folder: Path | None = None) -> Base:
    """Return the base of users who name none.

    That is the newest on which the series is judged.

    :param folder: The folder of patches; by default the project's own.
    """
    return [base for base in load_bases(folder) if not base.as_it_is][-1]


def find_base(name: str, folder: Path | None = None) -> Base:
    """Return the base of that name.

    :param name: E.g. ``v10.0``.
    :param folder: The folder of patches; by default the project's own.
    :raise UsageError: When there is no such base.
    """
    bases = load_bases(folder)
    for base in bases:
        if base.name == name:
            return base
    raise UsageError(
        f"unknown base {name!r}", suggest(name, [x.name for x in bases])
    )


def base_for(version: str, folder: Path | None = None) -> Base:
    """Return the base for a QEMU version.

    :param version: As in QEMU's file ``VERSION``.
    :param folder: The folder of patches; by default the project's own.
    :raise SourceError: When no base is for that version.
    """
    bases = load_bases(folder)
    for base in bases:
        if base.covers(version):
            return base
    known = ", ".join(f"{x.name} (QEMU {x.qemu}.x)" for x in bases)
    raise SourceError(
        f"no base for QEMU {version}",
        f"Known bases: {known}.  Use --base to try one of them.",
    )


def nearest_base(version: str, folder: Path | None = None) -> Base:
    """Return the base for a QEMU version, or the newest one before it.

    :param version: As in QEMU's file ``VERSION``.
    :param folder: The folder of patches; by default the project's own.
    :raise SourceError: When the version is older than every base.
    """
    bases = [
        base
        for base in load_bases(folder)
        if _numbers(base.qemu) <= _numbers(version)
    ]
    if not bases:
        return base_for(version, folder)
    return max(bases, key=lambda base: _numbers(base.qemu))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(x) for x in version.split(".")[:2])


def stock_base(version: str) -> Base:
    """Return a base for a QEMU that has the series, but no base of ours.

    :param version: As in QEMU's file ``VERSION``.
    """
    release = ".".join(version.split(".")[:2])
    folder = patches_folder()
    return Base(
        f"v{release}", release, None, folder / "mutants", folder / "followups"
    )
