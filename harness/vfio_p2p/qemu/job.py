# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that determines a build."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from vfio_p2p.qemu.recipe import Toolchain, sanitizes
from vfio_p2p.qemu.source import Source

# The format of the store and of build.json. It is part of every key, so that
# builds in another format are never found.
FORMAT = 1


@dataclass(frozen=True)
class BuildJob:
    """One build to make.

    :param source: The source that is compiled.
    :param overlay: The files that differ from the source; None stands for
                    a file that is removed.
    :param arguments: The arguments of QEMU's configure.
    :param device_list: The content of the ``.mak`` file with the devices.
    :param toolchain: The tools that compile.
    """

    source: Source
    overlay: Mapping[str, bytes | None]
    arguments: tuple[str, ...]
    device_list: bytes
    toolchain: Toolchain

    def inputs(self) -> dict[str, Any]:
        """Return everything that makes a difference, as plain data."""
        return self._settings() | {
            "source": self.source.key,
            # The patched files count, and not the patches: the same build
            # comes of a reworded message, or of a patch split in two.
            "changed": {
                path: data and hashlib.sha256(data).hexdigest()
                for path, data in self.overlay.items()
            },
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "configure": self.arguments,
            "devices": self.device_list.decode(),
            "compiler": self.toolchain.compiler,
            "meson": self.toolchain.meson,
        }

    @property
    def symbols(self) -> bool:
        """Whether the binary keeps its symbols, for a sanitizer to name."""
        return sanitizes(self.arguments)

    @property
    def key(self) -> str:
        """The name of the build in the store."""
        return _digest(self.inputs())

    @property
    def work_key(self) -> str:
        """The name of the folder to compile in.

        Builds that can be made from one another share a folder. The
        interpreter is part of the name, since configure writes its path
        everywhere.
        """
        return _digest(
            self._settings()
            | {
                "lineage": self.source.lineage,
                "python": self.toolchain.python,
            }
        )


def _digest(data: object) -> str:
    text = msgspec.json.encode(data, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:32]
