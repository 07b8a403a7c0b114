# SPDX-License-Identifier: GPL-2.0-or-later
"""The single changes that prepare a host, each of which can be undone.

An operation knows the value that was there before and the one that is
wanted. Undoing it compares with the present value, so that it can be repeated,
and is right whether the operation was done, was not done, or was undone.

An operation whose two values are the same is noted and never done: undoing it
puts the value back if another change has lost it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vfio_p2p.agent import files
from vfio_p2p.agent.eswitch import caps_of, eswitch_mode, port_of
from vfio_p2p.agent.failure import HOST, INPUT, AgentError
from vfio_p2p.agent.functions import (
    driver_of,
    folder_of,
    group_node,
    override_of,
    own_node,
    vfs_of,
)
from vfio_p2p.agent.holders import holders_of
from vfio_p2p.agent.kernel import Kernel
from vfio_p2p.agent.roots import Roots

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Operation(ABC):
    """A change of one value.

    :param pf: The address of the physical function.
    :param old: The value before.
    :param new: The value that is wanted.
    """

    op: ClassVar[str]

    pf: str
    old: Any
    new: Any

    def fields(self) -> dict[str, Any]:
        """Return what a note needs to say about the operation."""
        return {
            x.name: getattr(self, x.name)
            for x in dataclasses.fields(self)
            if x.name != "pf"
        }

    def do(self, kernel: Kernel) -> None:
        """Make the change.

        :raise AgentError: When the kernel does not make it.
        """
        self._set(kernel, self.new)

    def undo(self, kernel: Kernel) -> None:
        """Put the old value back, if it is not there.

        What is gone, such as a virtual function, needs nothing: if it was
        there before, an earlier operation has the note for it.

        :raise AgentError: When the kernel does not do it.
        """
        if self.present(kernel) not in (None, self.old):
            self._set(kernel, self.old)

    def holds(self, kernel: Kernel) -> bool:
        """Whether the wanted value is there."""
        return bool(self.present(kernel) == self.new)

    @abstractmethod
    def present(self, kernel: Kernel) -> Any:
        """Return the value now; None if there is nothing that has one."""

    @abstractmethod
    def put(self, kernel: Kernel, value: Any) -> None:
        """Change the value.

        :raise OSError: When the kernel refuses.
        """

    @abstractmethod
    def about(self) -> str:
        """Name the value in an error."""

    def _set(self, kernel: Kernel, value: Any) -> None:
        try:
            self.put(kernel, value)
        except OSError as err:
            raise AgentError(
                f"{self.about()} cannot be set to {_shown(value)}: "
                f"{err.filename or ''}: {err.strerror}",
                "Read the kernel's messages (dmesg) on the host.",
            ) from err
        found = self.present(kernel)
        if found != value:
            raise AgentError(
                f"{self.about()} was set to {_shown(value)} and is "
                f"{_shown(found)}",
                "Read the kernel's messages (dmesg) on the host.",
            )


def _shown(value: Any) -> str:
    if value is None:
        return "gone"
    return repr(value) if value == "" else str(value)


@dataclass(frozen=True)
class Attribute(Operation):
    """A file of a physical function that takes a number.

    :param name: The name of the file.
    """

    op: ClassVar[str] = "attribute"

    name: str

    def about(self) -> str:
        """Name the file."""
        return f"{self.name} of {self.pf}"

    def _path(self, kernel: Kernel) -> Path:
        return folder_of(kernel.roots, self.pf) / self.name

    def present(self, kernel: Kernel) -> Any:
        """Return what the file says."""
        path = self._path(kernel)
        return files.text(path) if path.exists() else None

    def put(self, kernel: Kernel, value: Any) -> None:
        """Write the number."""
        kernel.write(self._path(kernel), value)


@dataclass(frozen=True)
class NumVFs(Attribute):
    """The number of virtual functions; one of the two values is 0."""

    op: ClassVar[str] = "numvfs"

    name: str = "sriov_numvfs"

    def put(self, kernel: Kernel, value: Any) -> None:
        """Remove virtual functions, or make them."""
        def holders() -> str:
            return holders_of(kernel.roots, vfs_of(kernel.roots, self.pf))

        kernel.write(self._path(kernel), value, holders)


@dataclass(frozen=True)
class EswitchMode(Operation):
    """The mode of the switch in the card, "legacy" or "switchdev"."""

    op: ClassVar[str] = "eswitch"

    def about(self) -> str:
        """Name the switch."""
        return f"the eswitch mode of {self.pf}"

    def present(self, kernel: Kernel) -> Any:
        """Return the mode."""
        return eswitch_mode(kernel, self.pf)

    def put(self, kernel: Kernel, value: Any) -> None:
        """Change the mode."""
        kernel.devlink(
            "dev", "eswitch", "set", f"pci/{self.pf}", "mode", value
        )


@dataclass(frozen=True)
class _OfVF(Operation):
    """A value of a virtual function.

    :param vf: Its address.
    """

    vf: str

    def _folder(self, kernel: Kernel) -> Path:
        return folder_of(kernel.roots, self.vf)

    def _holders(self, kernel: Kernel) -> str:
        return holders_of(kernel.roots, [self.vf])


@dataclass(frozen=True)
class PortCap(_OfVF):
    """A capability of the function behind a port of the card's switch.

    :param cap: The capability's name, such as "migratable".
    """

    op: ClassVar[str] = "cap"

    cap: str

    def about(self) -> str:
        """Name the capability."""
        return f"the port function cap {self.cap} of {self.vf}"

    def present(self, kernel: Kernel) -> Any:
        """Return the capability's value."""
        return caps_of(kernel, self.pf, self.vf).get(self.cap)

    def put(self, kernel: Kernel, value: Any) -> None:
        """Change the capability."""
        port = port_of(kernel, self.pf, self.vf)
        if port is None:
            raise AgentError(
                f"{self.vf} has no devlink port",
                "The eswitch mode 'switchdev' gives virtual functions "
                "ports: '--eswitch switchdev'.",
                INPUT,
            )
        kernel.devlink(
            "port", "function", "set", port["handle"], self.cap, value
        )


@dataclass(frozen=True)
class Override(_OfVF):
    """The one driver that a function may be bound to; "" for any."""

    op: ClassVar[str] = "override"

    def about(self) -> str:
        """Name the override."""
        return f"the driver_override of {self.vf}"

    def present(self, kernel: Kernel) -> Any:
        """Return the driver's name."""
        if not self._folder(kernel).exists():
            return None
        return override_of(kernel.roots, self.vf)

    def put(self, kernel: Kernel, value: Any) -> None:
        """Set the driver's name, or clear it."""
        kernel.write(
            self._folder(kernel) / "driver_override", value or "\n"
        )


@dataclass(frozen=True)
class Binding(_OfVF):
    """The driver of a function; "" for none."""

    op: ClassVar[str] = "driver"

    def about(self) -> str:
        """Name the function."""
        return f"the driver of {self.vf}"

    def present(self, kernel: Kernel) -> Any:
        """Return the driver's name."""
        if not self._folder(kernel).exists():
            return None
        return driver_of(kernel.roots, self.vf)

    def put(self, kernel: Kernel, value: Any) -> None:
        """Take the function from its driver, and give it to another."""
        if driver_of(kernel.roots, self.vf):
            kernel.write(
                self._folder(kernel) / "driver/unbind",
                self.vf,
                lambda: self._holders(kernel),
            )
        if value:
            load(kernel, value)
            self._bind(kernel, value)

    def _bind(self, kernel: Kernel, driver: str) -> None:
        path = driver_folder(kernel, driver) / "bind"
        with suppress(OSError):
            kernel.write(path, self.vf)
        if driver_of(kernel.roots, self.vf) == driver:
            return
        # The driver may have come by an override that is cleared since, or
        # while new virtual functions were probed.
        before = override_of(kernel.roots, self.vf)
        override = Override(self.pf, before, driver, self.vf)
        override.put(kernel, driver)
        try:
            kernel.write(path, self.vf)
        finally:
            override.put(kernel, before)


@dataclass(frozen=True)
class Ownership(_OfVF):
    """Who may open the node of a function's group.

    The value is a table of uid, gid and mode. The node comes and goes with
    the driver.
    """

    op: ClassVar[str] = "owner"

    def about(self) -> str:
        """Name the node."""
        return f"the owner of the group of {self.vf}"

    @staticmethod
    def node(roots: Roots, vf: str) -> Path | None:
        """Return the node; None if the function can have none now."""
        return group_node(roots, vf)

    def present(self, kernel: Kernel) -> Any:
        """Return the owner of the node."""
        return owner_of(self.node(kernel.roots, self.vf))

    def put(self, kernel: Kernel, value: Any) -> None:
        """Change the owner of the node."""
        node = self.node(kernel.roots, self.vf)
        assert node is not None
        os.chown(node, value["uid"], value["gid"])
        os.chmod(node, value["mode"])


@dataclass(frozen=True)
class OwnNodeOwnership(Ownership):
    """Who may open the node that a function has for itself, if it has one."""

    op: ClassVar[str] = "own_node"

    def about(self) -> str:
        """Name the node."""
        return f"the owner of the node of {self.vf} in /dev/vfio/devices"

    @staticmethod
    def node(roots: Roots, vf: str) -> Path | None:
        """Return the node; None if there is none now."""
        return own_node(roots, vf)


def owner_of(node: Path | None) -> dict[str, int] | None:
    """Return the owner of a node as a value; None if it is missing."""
    if node is None:
        return None
    try:
        found = node.stat()
    except OSError:
        return None
    return {
        "uid": found.st_uid,
        "gid": found.st_gid,
        "mode": stat.S_IMODE(found.st_mode),
    }


def driver_folder(kernel: Kernel, driver: str) -> Path:
    """Return the folder of a driver, which need not exist."""
    return kernel.roots.sys / "bus/pci/drivers" / driver


def load(kernel: Kernel, driver: str) -> bool:
    """Load the module of a driver, if the driver is not there.

    :return: Whether it was loaded.
    :raise AgentError: When there is no such driver.
    """
    folder = driver_folder(kernel, driver)
    if folder.exists():
        return False
    why = kernel.modprobe(driver)
    if not why and folder.exists():
        return True
    raise AgentError(
        f"there is no driver {driver} on the host"
        + (f": {why}" if why else ""),
        "Install its kernel module, or name another driver.",
        INPUT,
    )


def checked_driver(text: object) -> str:
    """Return the name of a driver.

    :raise AgentError: When no driver can have that name.
    """
    if isinstance(text, str) and _NAME.fullmatch(text):
        return text
    raise AgentError(
        f"not the name of a driver: {text!r}",
        "Name a kernel module such as mlx5_vfio_pci.",
        INPUT,
    )


_KINDS: dict[str, type[Operation]] = {
    x.op: x
    for x in (
        Attribute, NumVFs, EswitchMode, PortCap, Override, Binding, Ownership,
        OwnNodeOwnership,
    )
}


def from_note(pf: str, op: str, fields: Mapping[str, Any]) -> Operation:
    """Return the operation that a note announces.

    :raise AgentError: When the note announces none.
    """
    try:
        return _KINDS[op](pf=pf, **fields)
    except (KeyError, TypeError) as err:
        raise AgentError(
            f"the ledger has an operation {op!r} that makes no sense",
            "Nothing was changed. Restore the host by hand or restart it.",
            HOST,
        ) from err
