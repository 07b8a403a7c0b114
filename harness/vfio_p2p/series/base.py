# SPDX-License-Identifier: GPL-2.0-or-later
"""Bases: the QEMU versions that can be judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vfio_p2p.errors import PatchError, SourceError, UsageError
from vfio_p2p.series.data import patches_folder, read_series
from vfio_p2p.series.patch import Patch


@dataclass(frozen=True)
class Base:
    """One QEMU version, and the series for it.

    :param name: E.g. ``v10.0``.
    :param qemu: The versions it is for: ``10.0`` is every 10.0.x.
    :param folder: Has the series, and ``pre/`` if something must be
                   taken out of that QEMU first. None: that QEMU has
                   upstream's series, and is judged as it is.
    :param mutants: Folder of the mutants.
    :param followups: Folder of the follow-up patches.
    """

    name: str
    qemu: str
    folder: Path | None
    mutants: Path
    followups: Path

    @cached_property
    def pre(self) -> tuple[Patch, ...]:
        """What is applied before the series, in order."""
        return _load(self.folder / "pre") if self.folder else ()

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """The series, in order."""
        return _load(self.folder) if self.folder else ()

    @property
    def sequence(self) -> tuple[Patch, ...]:
        """All that lies between the source and the whole series."""
        return self.pre + self.patches

    def covers(self, version: str) -> bool:
        """Whether the base is for this QEMU version."""
        return version == self.qemu or version.startswith(f"{self.qemu}.")


def _load(folder: Path | None) -> tuple[Patch, ...]:
    """Read the numbered patches of a folder, without a gap."""
    if folder is None:
        return ()
    paths = sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.patch"))
    patches = tuple(map(Patch.load, paths))
    for number, patch in enumerate(patches, 1):
        if int(patch.name[:4]) != number:
            gap = int(patch.name[:4]) > number
            why = (
                f"patch {number:04} is missing before it"
                if gap
                else f"number {number:04} should come here"
            )
            raise PatchError(patch.name, None, None, why)
    for number, patch in enumerate(patches, 1):
        if patch.position not in (None, (number, len(patches))):
            raise PatchError(
                patch.name, None, None,
                f"its subject begins with {patch.prefix}, "
                f"and it is number {number} of {len(patches)}",
            )
    return patches


def load_bases(folder: Path | None = None) -> tuple[Base, ...]:
    """All bases, in the order of ``series.toml``.

    :param folder: The folder of patches; by default the project's own.
    :raise UsageError: When ``series.toml`` is damaged or newer than us.
    """
    folder = folder or patches_folder()
    data = read_series(folder)
    return tuple(
        Base(
            x.name,
            x.qemu,
            None if x.folder is None else folder / x.folder,
            folder / data.mutants,
            folder / data.followups,
        )
        for x in data.base
    )


def default_base() -> Base:
    """The base of users who name none: the newest with a series."""
    return [base for base in load_bases() if base.patches][-1]


def find_base(name: str) -> Base:
    """The base of that name.

    :raise UsageError: When there is none.
    """
    bases = load_bases()
    for base in bases:
        if base.name == name:
            return base
    known = ", ".join(x.name for x in bases)
    raise UsageError(f"unknown base {name!r}", f"known bases: {known}")


def base_for(version: str) -> Base:
    """The base for a QEMU version.

    :param version: As in QEMU's file ``VERSION``.
    :raise SourceError: When the series does not exist for it.
    """
    bases = load_bases()
    for base in bases:
        if base.covers(version):
            return base
    known = ", ".join(f"{x.name} (QEMU {x.qemu}.x)" for x in bases)
    raise SourceError(
        f"no base for QEMU {version}",
        f"known bases: {known}; --base tries one all the same",
    )


def stock_base(version: str) -> Base:
    """The base of a QEMU that has the series and none of our bases.

    :param version: As in QEMU's file ``VERSION``.
    """
    release = ".".join(version.split(".")[:2])
    folder = patches_folder()
    return Base(
        f"v{release}", release, None, folder / "mutants", folder / "followups"
    )
