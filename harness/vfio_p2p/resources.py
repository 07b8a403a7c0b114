# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that come with the package: patches, image sources, profiles.

They are package data, so that an installed wheel has them as a checkout has
them.  In a checkout ``data/`` holds links to the folders at the top.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from vfio_p2p.errors import HostError

_PACKAGE = "vfio_p2p"


def resource(*parts: str) -> Path:
    """The path of a file or folder that comes with the package.

    :param parts: Where it is, from the package's own folder down.
    :raise HostError: When the package was not installed as plain files.
    """
    found = resources.files(_PACKAGE).joinpath(*parts)
    if not isinstance(found, Path):
        raise HostError(
            f"{found} is not a plain file",
            "Install vfio-p2p with pip, and not as a zip archive.",
        )
    return found


def images() -> Path:
    """The folder of what runs in the virtual machines."""
    return resource("data", "images")


def patches() -> Path:
    """The folder of the series, its mutants and its follow-ups."""
    return resource("data", "qemu-patches")


def checkout() -> Path | None:
    """The top of the checkout that we run from; None when installed."""
    linked = resource("data", "images")
    return linked.resolve().parent if linked.is_symlink() else None
