# SPDX-License-Identifier: GPL-2.0-or-later
"""The file ``hosts.toml``: the user's machines, and the places that they are.

Each ``[host.NAME]`` is one machine, and a place as well if it names virtual
functions for both sides.  Each ``[pair.NAME]`` is a place of two machines.
docs/hosts.md describes every key.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vfio_p2p.errors import ConfigError, ScenarioError, UsageError
from vfio_p2p.names import suggest
from vfio_p2p.paths import config_dir
from vfio_p2p.places.hosts.guest import GuestEntry, differences
from vfio_p2p.scenario.strict import TomlDocument, read
from vfio_p2p.scenario.values import Integer, Name, Strict

FORMAT: Literal[1] = 1
FILE = "hosts.toml"
VARIABLE = "VFIO_P2P_HOSTS"

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_SPACE = re.compile(r"\s")

Repeat = Annotated[int, Meta(ge=1, le=1024)]

# The machine on which vfio-p2p runs needs no SSH.
THIS_MACHINE = ""


class Functions(Strict, frozen=True, kw_only=True):
    """The virtual functions of one side.

    They are either the first ones of a physical function, or named one by
    one.

    :param pf: The PCI address of the physical function.
    :param count: The number of its virtual functions to use.
    :param vfs: The PCI addresses of virtual functions.
    """

    pf: str = ""
    count: Annotated[int, Meta(ge=1, le=256)] | None = None
    vfs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.pf) is bool(self.vfs):
            raise ValueError("give either 'pf' and 'count', or 'vfs'")
        if bool(self.pf) is not bool(self.count):
            raise ValueError("'pf' and 'count' belong together")
        for address in filter(None, (self.pf, *self.vfs)):
            if not _ADDRESS.fullmatch(address):
                raise ValueError(
                    f"{address!r} is not a PCI address such as "
                    "'0000:01:00.0', in lower case"
                )
        if len(set(self.vfs)) != len(self.vfs):
            raise ValueError("vfs: a function is named twice")

    @property
    def most(self) -> int:
        """The number of devices that they are enough for."""
        return self.count or len(self.vfs)


class HostEntry(Strict, frozen=True, kw_only=True):
    """One machine.

    :param ssh: ``[USER@]HOST[:PORT]``, or a host of the user's SSH
        configuration; empty means this machine.
    :param ssh_config: An SSH configuration in place of ``~/.ssh/config``.
    :param known_hosts: A file of host keys in place of
        ``~/.ssh/known_hosts``.
    :param identity: The file of a private key.
    :param python: The Python of that machine, 3.9 or later.
    :param sudo: Whether changes to the host are made through ``sudo -n``.
    :param qemu: The path of a QEMU that is installed on that machine.  The
        variant ``installed`` runs it as it is, with its own libraries and
        firmware.
    :param driver: The variant driver of the functions: ``mlx5``, ``qat``,
        ``hisi_acc``, ``pds``, ``xe``, ``virtio`` or ``p2pvf``; see the table
        in docs/hosts.md, "What a host needs".
    :param source: The functions for the QEMU of the source.  A pair takes
        those of both its machines from this key.
    :param destination: The functions for the QEMU of the destination.
    :param parameters: Migration parameters, which add to those of a scenario
        and override them.
    :param properties: Properties of QEMU's vfio-pci, which add to those that
        the driver needs and override them; a scenario's override both.
    :param guest: The user's own guest.
    :param kvm: Whether QEMU uses KVM; by default it does if a guest of ours
        runs on it, on both sides.
    :param repeat: The number of runs of each kind if ``--seeds`` is not
        given.
    """

    ssh: str = THIS_MACHINE
    ssh_config: str = ""
    known_hosts: str = ""
    identity: str = ""
    python: str = "python3"
    sudo: bool = False
    qemu: str = ""
    driver: Annotated[str, Meta(min_length=1)]
    source: Functions
    destination: Functions | None = None
    parameters: dict[str, Integer | str | bool] = msgspec.field(
        default_factory=dict
    )
    properties: dict[str, str] = msgspec.field(
        default_factory=dict
    )
    guest: GuestEntry | None = None
    kvm: bool | None = None
    repeat: Repeat | None = None

    def __post_init__(self) -> None:
        if _SPACE.search(self.ssh) or self.ssh.startswith("-"):
            raise ValueError(f"ssh: {self.ssh!r} is not [USER@]HOST[:PORT]")
        if self.qemu and not self.qemu.startswith("/"):
            raise ValueError(
                f"qemu: {self.qemu!r} is not an absolute path of the host"
            )
        other = self.destination
        if other and set(self.source.vfs) & set(other.vfs):
            raise ValueError("destination: it has a function of the source")
        if other and other.pf and other.pf == self.source.pf:
            raise ValueError(
                "destination: it has the functions of the source; name "
                "the functions of each side with 'vfs'"
            )


class Link(Strict, frozen=True, kw_only=True):
    """The network over which a pair migrates.

    :param source: The address of the source's machine.
    :param destination: The address of the destination's machine, to which
        the migration connects.
    """

    source: Annotated[str, Meta(min_length=1)]
    destination: Annotated[str, Meta(min_length=1)]


class PairEntry(Strict, frozen=True, kw_only=True):
    """Two machines, from one of which QEMU migrates to the other.

    :param source: The name of the source's machine.
    :param destination: The name of the destination's machine.
    :param link: The network over which they migrate.
    :param tls: Whether the migration is encrypted.  The keys and
        certificates are made anew for each run, and both QEMUs need TLS; see
        the host's key ``qemu``.
    :param repeat: The number of runs of each kind if ``--seeds`` is not
        given.
    """

    source: Name
    destination: Name
    link: Link
    tls: bool = False
    repeat: Repeat | None = None

    def __post_init__(self) -> None:
        if self.source == self.destination:
            raise ValueError("destination: it is the source")


class HostsFile(Strict, frozen=True, kw_only=True):
    """The content of ``hosts.toml``.

    :param format: The version of the format.
    :param host: The machines by name.
    :param pair: The pairs by name.
    """

    format: Literal[1]
    host: dict[Name, HostEntry] = msgspec.field(
        default_factory=dict
    )
    pair: dict[Name, PairEntry] = msgspec.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        for name in self.pair.keys() & self.host.keys():
            raise ValueError(f"pair: {name!r} is the name of a host, too")
        for name, pair in self.pair.items():
            for key in ("source", "destination"):
                if getattr(pair, key) not in self.host:
                    raise ValueError(
                        f"pair: {key} of {name!r} is {getattr(pair, key)!r}, "
                        "which is no host of this file"
                    )
            why = differences(
                *(self.host[x].guest for x in (pair.source, pair.destination))
            )
            if why:
                raise ValueError(f"pair: {name!r}: {why}")

    @property
    def places(self) -> tuple[str, ...]:
        """The names of all places, in the order of the file."""
        hosts = (x for x, host in self.host.items() if host.destination)
        return (*hosts, *self.pair)


def hosts_path(given: Path | None) -> Path:
    """Return the path of the file.

    :param given: The path that the user gave on the command line; None takes
        ``$VFIO_P2P_HOSTS``, or else the user's configuration folder.
    """
    if given is not None:
        return given
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return config_dir() / FILE


def options_of(name: str, given: Path | None) -> str:
    """Return the options of the command line that name a host or a place.

    :param name: Its name in the file.
    :param given: See `hosts_path`.
    :return: The options, after a space.
    """
    file = ["--hosts", str(given)] if given else []
    return f" {shlex.join(['--at', name, *file])}"


def load_hosts(given: Path | None) -> HostsFile:
    """Read the file; a missing one that nobody named is empty.

    :param given: See `hosts_path`.
    :raise ConfigError: When it is wrong, or was named and is missing.
    """
    path = hosts_path(given)
    try:
        return parse_hosts(read(path), path)
    except FileNotFoundError as err:
        if given is None and VARIABLE not in os.environ:
            return HostsFile(format=FORMAT)
        raise ConfigError(f"{path}: there is no such file") from err
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}") from err
    except ScenarioError as err:
        raise ConfigError(err.what) from err


def parse_hosts(data: bytes, path: Path | str) -> HostsFile:
    """Decode the file.

    Relative paths in it are relative to its folder.

    :param data: Its content.
    :param path: Its path.
    :raise ConfigError: When it is wrong.
    """
    try:
        file = TomlDocument.of(data, path)
        newer = file.tree.get("format")
        if isinstance(newer, int) and newer > FORMAT:
            raise ConfigError(
                f"{path}: format {newer} is newer than this program, which "
                f"knows up to {FORMAT}"
            )
        found = file.convert(HostsFile)
    except ScenarioError as err:
        raise ConfigError(err.what) from err
    folder = Path(path).parent
    hosts = {name: _located(x, folder) for name, x in found.host.items()}
    return msgspec.structs.replace(found, host=hosts)


def _located(host: HostEntry, folder: Path) -> HostEntry:
    paths = {
        key: str(folder / Path(getattr(host, key)).expanduser())
        for key in ("ssh_config", "known_hosts", "identity")
        if getattr(host, key)
    }
    return msgspec.structs.replace(host, **paths)


def find_place(
    name: str, hosts: HostsFile, others: Mapping[str, object]
) -> HostEntry | PairEntry:
    """Find a place by its name.

    :param name: The name.
    :param hosts: The file.
    :param others: The names of the places that are not in the file.
    :raise UsageError: When there is no such place.
    """
    if name in hosts.pair:
        return hosts.pair[name]
    if name not in hosts.host:
        raise UsageError(
            f"there is no place {name!r}",
            suggest(name, (*others, *hosts.places))
            + f" Places of real devices are described in {FILE}.",
        )
    host = hosts.host[name]
    if host.destination is None:
        raise UsageError(
            f"the host {name!r} is no place by itself: it has no functions "
            "for a destination",
            f"Add the key 'destination' to [host.{name}], or use a pair.",
        )
    return host


def repeat_of(name: str, given: Path | None) -> int | None:
    """Return how many runs of each kind a place makes by default.

    :param name: The name of the place.
    :param given: See `hosts_path`.
    :return: None if the file does not say.
    :raise ConfigError: When the file is wrong.
    """
    hosts = load_hosts(given)
    place = hosts.pair.get(name) or hosts.host.get(name)
    return place.repeat if place else None
