# SPDX-License-Identifier: GPL-2.0-or-later
"""All that determines a build."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from vfio_p2p.qemu.recipe import Toolchain
from vfio_p2p.qemu.source import Source

# Of the store and of build.json. It is in every key, so that a store with
# another format holds nothing for us.
FORMAT = 1


@dataclass(frozen=True)
class Job:
    """One build to make.

    :param source: What is compiled.
    :param overlay: The files that differ from the source; None is gone.
    :param arguments: Of QEMU's configure.
    :param device_list: Content of the ``.mak`` file with the devices.
    :param toolchain: What compiles.
    """

    source: Source
    overlay: Mapping[str, bytes | None]
    arguments: tuple[str, ...]
    device_list: bytes
    toolchain: Toolchain

    def inputs(self) -> dict[str, Any]:
        """Everything that makes a difference, as plain data."""
        return self._settings() | {
            "source": self.source.key,
            # Not the patches: what they make of the files. A reworded
            # message, or a patch split in two, is the same build.
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
    def key(self) -> str:
        """Name of the build in the store."""
        return _digest(self.inputs())

    @property
    def work_key(self) -> str:
        """Name of the folder to compile in.

        What can be rebuilt from one another shares a folder. The
        interpreter is in it since configure writes its path everywhere.
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
