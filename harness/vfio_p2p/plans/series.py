# SPDX-License-Identifier: GPL-2.0-or-later
"""List the series, apply it to a tree, verify it, and export it as mails.

Every request has a ``folder``: the folder of patches, with its
``series.toml``.  By default that is the project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Reporter
from vfio_p2p.series import (
    Base,
    Folder,
    Followup,
    Mutant,
    Patch,
    SeriesLevel,
    applied_count,
    apply_patches,
    base_for,
    check_patch,
    default_base,
    find_base,
    fitting_base,
    load_bases,
    load_followups,
    load_mutants,
    open_folder,
    parse_variant,
    recognise,
)
from vfio_p2p.series.fit import misfit, stock_error
from vfio_p2p.series.git import commit_patches, local_changes
from vfio_p2p.series.posting import Person, Posting, author_of
from vfio_p2p.series.thread import export
from vfio_p2p.series.tree import replace_files
from vfio_p2p.series.verify import Verified, checkpatch_of, verify


@dataclass(frozen=True)
class ListRequest:
    """A request for `list_series`.

    :param folder: The folder of patches.
    """

    folder: Path | None = None


@dataclass(frozen=True)
class ListedBase:
    """A base with the patches on top of its series.

    :param base: The base.
    :param mutants: Its mutants.
    :param followups: Its follow-ups.
    """

    base: Base
    mutants: tuple[Mutant, ...]
    followups: tuple[Followup, ...]


@dataclass(frozen=True)
class ApplyRequest:
    """A request for `apply_series`.

    :param tree: The QEMU tree.
    :param base: The name of the base that has the patches; by default the
                 one that fits the tree.
    :param upto: The number of patches to apply; 0 is the base.  By default
                 all are applied.
    :param on_top: A mutant, a follow-up or the path of a patch file to
                   apply on top.
    :param am: Make commits with ``git am``; otherwise only files change.
    :param allow_dirty: Accept, and keep, local changes of the tree.  With
                        `am` it has no effect.
    :param folder: The folder of patches.
    """

    tree: Path
    base: str | None = None
    upto: int | None = None
    on_top: str | None = None
    am: bool = False
    allow_dirty: bool = False
    folder: Path | None = None


@dataclass(frozen=True)
class VerifyRequest:
    """A request for `verify_series`.

    :param tree: The QEMU tree.
    :param base: The name of the base that has the patches; by default the
                 one that fits the tree, or else its version.
    :param folder: The folder of patches.
    :param own_checkpatch: Whether the tree's own checkpatch.pl is run, and
                           not that of Debian's QEMU.  It is a program, and
                           can do whatever the user can.
    """

    tree: Path
    base: str | None = None
    folder: Path | None = None
    own_checkpatch: bool = False


@dataclass(frozen=True)
class ExportRequest:
    """A request for `export_series`.

    :param base: The name of the base that has the series.
    :param out: The folder to write to, empty or not there yet.
    :param folder: The folder of patches.
    :param signoff: Who posts it, as ``Name <address>``; by default the mails
                    are those of the authors.
    :param to: The addresses of the recipients.
    :param cover: Write a cover letter to be filled in if the base has none.
    """

    base: str
    out: Path
    folder: Path | None = None
    signoff: str | None = None
    to: tuple[str, ...] = ()
    cover: bool = False


@dataclass(frozen=True)
class ExportedSeries:
    """The result of `export_series`.

    :param files: The files.
    :param nobody: The author of the mails if nobody can have that address,
                   so that nobody can send them.
    """

    files: tuple[Path, ...]
    nobody: str | None


@dataclass(frozen=True)
class TreeStatus:
    """The content of a QEMU tree, as far as the series is concerned.

    :param root: The tree.
    :param version: The version in QEMU's file ``VERSION``.
    :param level: How much of the series it contains, whoever wrote it.
    :param stock: Whether it contains the series as QEMU has it.
    :param base: The base that its patches are counted by; None if no base
                 is for it.
    :param count: How many patches of `Base.sequence` it contains.
    """

    root: Path
    version: str
    level: SeriesLevel
    stock: bool
    base: Base | None
    count: int


@dataclass(frozen=True)
class AppliedSeries:
    """The result of `apply_series`.

    :param before: What the tree contained before.
    :param patches: The patches that were applied; none if the tree
                    contained all of them.
    :param local_changes: The files with local changes, which were kept.
    """

    before: TreeStatus
    patches: tuple[Patch, ...]
    local_changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifiedSeries:
    """The result of `verify_series`.

    :param status: What the tree contains.
    :param patches: The result for each patch of `Base.sequence`, in order;
                    none if there is no base for the tree.
    """

    status: TreeStatus
    patches: tuple[Verified, ...]

    @property
    def good(self) -> bool:
        """Whether no patch conflicts and the style of all is clean."""
        return all(x.good for x in self.patches)


def list_series(request: ListRequest) -> tuple[ListedBase, ...]:
    """Return all bases with their mutants and follow-ups.

    :param request: See `ListRequest`.
    :raise UsageError: When ``series.toml`` is damaged, or has a newer
                       format.
    """
    mutants = load_mutants(request.folder)
    followups = load_followups(request.folder)
    return tuple(
        ListedBase(
            base,
            tuple(x for x in mutants if x.base == base.name),
            tuple(x for x in followups if x.base == base.name),
        )
        for base in load_bases(request.folder)
    )


def apply_series(request: ApplyRequest) -> AppliedSeries:
    """Apply the series to a tree, all of it or nothing.

    Patches that the tree contains already are not applied again.

    :param request: See `ApplyRequest`.
    :raise UsageError: When there is no such base, patch or mutant.
    :raise SourceError: When the tree is not QEMU, or no base fits it, or it
                        contains more patches than were asked for or local
                        changes that were not allowed, or git refuses.
    :raise PatchError: When a patch is malformed or does not apply.
    :raise MissingToolError: When git is missing.
    """
    tree = open_folder(request.tree)
    if request.base:
        base = find_base(request.base, request.folder)
    else:
        base = fitting_base(tree, request.folder)
    if not base.sequence:
        raise stock_error(tree)
    for patch in base.sequence:
        check_patch(patch)
    wanted = _wanted(base, request)
    status = _status(tree, base)
    if status.count > len(wanted) - (1 if request.on_top else 0):
        raise SourceError(
            f"{tree.root} has more of the series than that already",
            "Use a fresh tree: this command does not revert patches.",
        )
    patches = wanted[status.count :]
    if not patches:
        return AppliedSeries(status, ())
    changed = _local_changes(tree, request)
    changes = apply_patches(tree, patches)
    if request.am:
        commit_patches(tree.root, patches)
    else:
        replace_files(tree.root, changes)
    return AppliedSeries(status, patches, changed)


def verify_series(
    request: VerifyRequest, reporter: Reporter, workshop: Workshop
) -> VerifiedSeries:
    """Try every patch on a tree, and check its style; the tree stays as is.

    :param request: See `VerifyRequest`.
    :param reporter: Told of the download of Debian's QEMU, if there is one.
    :param workshop: Finds Debian's QEMU.
    :raise UsageError: When there is no such base.
    :raise SourceError: When the tree is not QEMU, or no base is for its
                        version, or checkpatch.pl fails.
    :raise PatchError: When a patch is malformed.
    :raise MissingToolError: When git or perl is missing.
    """
    tree = open_folder(request.tree)
    if request.base:
        base: Base | None = find_base(request.base, request.folder)
    else:
        base = _base_of(tree, request.folder)
    if not base:
        return VerifiedSeries(_status(tree, base), ())
    root = tree.root
    if not request.own_checkpatch:
        root = workshop.find_source(
            None, default_base().qemu, reporter.task("source")
        ).tree
    results = verify(tree, base, checkpatch_of(root))
    return VerifiedSeries(_status(tree, base), tuple(results))


def export_series(request: ExportRequest) -> ExportedSeries:
    """Write the series as mails.

    :param request: See `ExportRequest`.
    :raise UsageError: When there is no such base, or it has no series, or
                       the folder is not empty, or an address is none.
    :raise PatchError: When a patch is not a mail, or cannot be signed off.
    """
    base = find_base(request.base, request.folder)
    poster = None
    if request.signoff is not None:
        poster = Person.parse(request.signoff, named=True)
    posting = Posting(
        poster=poster,
        to=tuple(Person.parse(x, named=False) for x in request.to),
        cover=request.cover,
    )
    files = export(base, request.out, posting)
    authors = [author_of(x.name, x.read_bytes()) for x in files[:-1]]
    nobody = [str(x) for x in authors if x.nobody]
    return ExportedSeries(tuple(files), nobody[0] if nobody else None)


def _wanted(base: Base, request: ApplyRequest) -> tuple[Patch, ...]:
    """Return the patches that a request asks for, from the source on."""
    last = len(base.patches)
    upto = last if request.upto is None else request.upto
    if not 0 <= upto <= last:
        raise UsageError(
            f"--upto {upto}: there is no such patch",
            f"Give a number from 0 to {last}: {base.name} has {last} patches, "
            "and 0 is the base.",
        )
    name = f"patch-{upto}" if upto else "base"
    plus = "" if request.on_top is None else f"+{request.on_top}"
    return parse_variant(base, f"{name}{plus}").patches


def _local_changes(tree: Folder, request: ApplyRequest) -> tuple[str, ...]:
    """Return the files with local changes, if those are allowed."""
    changed = tuple(local_changes(tree.root))
    if not changed or (request.allow_dirty and not request.am):
        return changed
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    other = "" if request.am else ", or give --allow-dirty"
    raise SourceError(
        f"{tree.root} has local changes: {changed[0]}{more}",
        f"Commit or stash them{other}.",
    )


def _status(tree: Folder, base: Base | None) -> TreeStatus:
    level = recognise(tree)
    stock = level is SeriesLevel.SERIES
    count = applied_count(tree, base) if base else 0
    return TreeStatus(
        root=tree.root,
        version=tree.version,
        level=level,
        stock=stock and (base is None or misfit(tree, base) is None),
        base=base,
        count=count,
    )


def _base_of(tree: Folder, folder: Path | None) -> Base | None:
    """Return the base to verify with; None for a stock tree without one."""
    covered = any(x.covers(tree.version) for x in load_bases(folder))
    if not covered and recognise(tree) is SeriesLevel.SERIES:
        return None
    try:
        return fitting_base(tree, folder)
    except SourceError:
        # To show what does not fit is what the user asks for.
        return base_for(tree.version, folder)
