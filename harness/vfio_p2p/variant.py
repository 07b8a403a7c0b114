# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of variants: which patches a tree has.

This is grammar alone: whether a mutant of that name exists, or a base has
that many patches, is for `vfio_p2p.series` to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vfio_p2p.errors import UsageError
from vfio_p2p.names import suggest

SERIES_LENGTH = 6

# The source as it is.
STOCK = "stock"
# A QEMU that is not built from a tree: the hosts of a place have it.
INSTALLED = "installed"
# A QEMU that was built elsewhere: users name it by its path, or by Debian's
# version.  In bundles it has a name that tells its release and its content.
QEMU = "qemu:"
DEBIAN = "debian:"
_BINARY = re.compile(r"binary-\d{1,4}\.\d{1,4}(?:\.\d{1,4})?-[0-9a-f]{8}")

# The first release of QEMU that has the series, as upstream has it.
UPSTREAM = (8, 2)

VARIANTS = (
    f"stock, base, patch-1 to patch-{SERIES_LENGTH}, patched, each with "
    "+NAME for a mutant, a follow-up or a patch file; or, at a place of real "
    f"devices, {INSTALLED}: the QEMU that its hosts have themselves; or a "
    f"QEMU as it is, {QEMU}PATH or {DEBIAN}VERSION"
)


@dataclass(frozen=True)
class TreeName:
    """The name of a variant, taken apart.

    :param tree: ``stock`` (the source as it is), ``base`` (without the
        series), ``patch-1`` and so on, ``patched`` (with the whole series),
        ``installed``, or ``binary-RELEASE-HASH``.
    :param patches: How many patches of the series the tree has.  A stock
        tree has all of them, as they are upstream, and so has an installed
        QEMU of release 8.2 or later.
    :param on_top: What is applied on top: the name of a mutant or a
        follow-up, or the path of a patch file.  Empty if nothing is.
    """

    tree: str
    patches: int
    on_top: str = ""

    def __str__(self) -> str:
        return f"{self.tree}+{self.on_top}" if self.on_top else self.tree


def tree_names(length: int = SERIES_LENGTH) -> tuple[str, ...]:
    """Return the names of the trees without anything on top.

    :param length: How many patches the series has.
    """
    return (
        STOCK,
        "base",
        *(f"patch-{n + 1}" for n in range(length)),
        "patched",
        INSTALLED,
    )


def parse_tree(name: str, length: int = SERIES_LENGTH) -> TreeName:
    """Take the name of a variant apart.

    The last patch completes the series, so ``patch-6`` is ``patched``.

    :param name: E.g. ``patched+one-pass``.
    :param length: How many patches the series has.
    :raise UsageError: When it is not the name of a variant.
    """
    if _BINARY.fullmatch(name):
        return TreeName(name, length)
    tree, plus, on_top = name.partition("+")
    if tree not in tree_names(length):
        raise UsageError(
            f"unknown variant {tree!r}",
            suggest(tree, tree_names(length)),
        )
    if plus and not on_top:
        raise UsageError(
            f"nothing follows the '+' of variant {name!r}",
            "Give the name of a mutant or a follow-up, or the path of a "
            "patch file.",
        )
    if tree == INSTALLED:
        if plus:
            raise UsageError(
                f"nothing can go on top of variant {tree!r}",
                "That QEMU is run as it is. Build one with --source and "
                f"--variant stock+{on_top}.",
            )
        return TreeName(tree, length)
    number = re.fullmatch(r"patch-(\d+)", tree)
    if number and int(number[1]) < length:
        return TreeName(tree, int(number[1]), on_top)
    if tree == "base":
        return TreeName(tree, 0, on_top)
    return TreeName(STOCK if tree == STOCK else "patched", length, on_top)


def is_tree(name: str) -> bool:
    """Return whether this is the name of a variant.

    :param name: E.g. ``patch-1``.
    """
    if is_named_binary(name):
        return True
    try:
        parse_tree(name)
    except UsageError:
        return False
    return True


def is_named_binary(name: str) -> bool:
    """Return whether users name a QEMU so that is run as it is.

    :param name: E.g. ``qemu:/usr/bin/qemu-system-x86_64``.
    """
    return name.startswith((QEMU, DEBIAN))


def is_built(name: str) -> bool:
    """Return whether users name a QEMU so that has to be built.

    :param name: E.g. ``patched``.
    """
    return name != INSTALLED and not is_named_binary(name)


def is_as_it_is(name: str) -> bool:
    """Return whether a variant was not built here.

    :param name: The name of a variant, as bundles have it.
    """
    return name == INSTALLED or _BINARY.fullmatch(name) is not None


def binary_name(version: str, sha256: str) -> str:
    """Return the name of a variant that was built elsewhere.

    :param version: QEMU's version string.
    :param sha256: The SHA-256 of the binary.
    :raise ValueError: When the version tells no release.
    """
    found = re.search(
        r"(?<![\d.])\d{1,4}\.\d{1,4}(?:\.\d{1,4})?(?![\d.])", version
    )
    if found is None:
        raise ValueError(f"{version!r} tells no release")
    return f"binary-{found[0]}-{sha256[:8]}"


def release_of(version: str) -> tuple[int, int] | None:
    """Return the numbers of the release that a version string names.

    :param version: What QEMU prints, e.g. ``QEMU emulator version 10.0.2
        (Debian 1:10.0.2+ds-2)``.
    :return: None if it names no release.
    """
    found = re.search(r"(?<![\d.])(\d{1,4})\.(\d{1,4})(?!\d)", version)
    return (int(found[1]), int(found[2])) if found else None


def has_series(version: str) -> bool:
    """Return whether a release of QEMU has the series as upstream has it.

    :param version: What QEMU prints.
    """
    number = release_of(version)
    return number is not None and number >= UPSTREAM
