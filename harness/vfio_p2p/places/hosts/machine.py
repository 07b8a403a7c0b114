# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine of a place while the place is in use."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path, PurePosixPath

import msgspec

from vfio_p2p.bundle.provenance import (
    FunctionProvenance,
    GuestProvenance,
    MachineProvenance,
)
from vfio_p2p.devices.vf.drivers import VariantDriver
from vfio_p2p.devices.vf.inventory import Inventory, PciFunction, decode
from vfio_p2p.errors import HostError, SkipError, UsageError
from vfio_p2p.machine.host import AgentSession, Host, HostSpec, open_host
from vfio_p2p.places.hosts.accelerator import Accelerator, kvm_works
from vfio_p2p.places.hosts.config import (
    Functions,
    HostEntry,
    options_of,
)
from vfio_p2p.places.hosts.guest_files import GuestFiles
from vfio_p2p.places.hosts.installed import sha256_of
from vfio_p2p.places.hosts.requester import requester
from vfio_p2p.qemu.program import LOADER, Program
from vfio_p2p.scenario.argv import HEARTBEAT, Launcher

_COPY_S = 120.0
# The programs of both sides, and those of the runs that take turns with them.
_COPIES = 4


def spec_of(name: str, entry: HostEntry, given: Path | None) -> HostSpec:
    """Say how a machine of hosts.toml is reached.

    :param name: Its name there.
    :param entry: What the file says of it.
    :param given: The path of the file; None is the usual one.
    """

    def path(text: str) -> Path | None:
        return Path(text) if text else None

    return HostSpec(
        name=name,
        ssh=entry.ssh,
        ssh_config=path(entry.ssh_config),
        known_hosts=path(entry.known_hosts),
        identity=path(entry.identity),
        python=entry.python,
        sudo=entry.sudo,
        options=options_of(name, given),
    )


class Machine:
    """A machine to which a session is open.

    :param name: Its name in hosts.toml.
    :param host: The session.
    :param driver: The variant driver of its functions.
    :param options: The options of the command line that name it, after a
        space.
    """

    def __init__(
        self, name: str, host: Host, driver: VariantDriver, options: str = ""
    ) -> None:
        self.name = name
        self.host = host
        self.driver = driver
        self.options = options
        self._launchers: dict[str, Launcher] = {}
        self._has_firmware = False
        self._kvm_works: bool | None = None
        self._installed: Launcher | None = None
        self.guest_files = GuestFiles(name, host)

    async def inventory(self) -> Inventory:
        """Ask what the machine has now.

        :raise HostError: When it does not answer.
        """
        answer = await self.host.agent(
            ["inventory", "--modules", self.driver.module]
        )
        return decode(answer, self.name)

    @asynccontextmanager
    async def holding(self, pfs: Sequence[str]) -> AsyncIterator[None]:
        """Keep others away from cards for as long as the block lasts.

        :param pfs: The addresses of their PFs; none holds nothing.
        :raise SkipError: When somebody else has one of them.
        """
        if not pfs:
            yield
            return
        hold = ["hold", "--who", requester(), *pfs]
        async with self.host.agent_session(hold) as session:
            await session.receive()
            yield

    @asynccontextmanager
    async def simulating(
        self, settings: Mapping[str, Sequence[tuple[str, str]]]
    ) -> AsyncIterator[AgentSession]:
        """Tell the lab's devices how to behave while the block lasts.

        :param settings: Attributes and their values, by address.
        :return: A session that answers with the devices' logs.
        :raise HostError: When the driver refuses.
        """
        async with self.host.agent_session(
            ["simulate"], root=True
        ) as session:
            await session.send({"devices": settings})
            await session.receive()
            yield session

    async def launcher(
        self, program: Program, firmware: Mapping[str, bytes]
    ) -> Launcher:
        """Make a QEMU ready to be started on the machine.

        A program of this machine is used where it is.  Another machine gets
        a copy, which goes with the session.

        :param program: The QEMU.
        :param firmware: The files of its firmware by name.
        :raise NoSpaceError: When the machine has no room for it.
        """
        folder = PurePosixPath(await self.host.private_folder())
        key = program.content[:16]
        if key not in self._launchers:
            await self._put_firmware(folder, firmware)
            argv = program.argv
            if not self.host.local:
                await self._make_room(folder)
                argv = await self._copied(program, folder / key)
            self._launchers[key] = Launcher(argv, Path(folder))
        # The one that was used last is the last one to go.
        self._launchers[key] = self._launchers.pop(key)
        return self._launchers[key]

    async def installed(
        self, path: str, sha256: str, firmware: Mapping[str, bytes]
    ) -> Launcher:
        """Say how a QEMU is started that is installed on the machine.

        It keeps its own firmware, and gets the guest program alone.

        :param path: Its path there.
        :param sha256: The SHA-256 of the binary when it was examined.
        :param firmware: The files for builds of ours by name.
        :raise HostError: When it is another one by now.
        """
        if self._installed is None:
            if await sha256_of(self.host, path) != sha256:
                raise HostError(
                    f"{self.name}: {path} has changed since it was examined",
                    "Run the command again when nothing changes the file.",
                )
            folder = f"{await self.host.private_folder()}/guest"
            await self.host.run(["mkdir", folder], limit_s=_COPY_S)
            await self.host.put(firmware[HEARTBEAT], f"{folder}/{HEARTBEAT}")
            self._installed = Launcher((path,), Path(folder))
        return self._installed

    async def _put_firmware(
        self, folder: PurePosixPath, firmware: Mapping[str, bytes]
    ) -> None:
        """Copy the firmware, once for all programs."""
        if not self._has_firmware:
            for name, data in firmware.items():
                await self.host.put(data, str(folder / name))
            self._has_firmware = True

    async def has_kvm(
        self, known: Inventory, launcher: Launcher, wanted: bool | None
    ) -> bool:
        """Find out whether guests are to run on KVM.

        :param known: The machine's inventory.
        :param launcher: A QEMU that is ready to be started.
        :param wanted: Whether hosts.toml asks for KVM; None uses it if it
            works.
        :raise UsageError: When it is asked for, and does not work.
        """
        if wanted is False:
            return False
        if known.host.kvm and self._kvm_works is None:
            self._kvm_works = await kvm_works(self.host, launcher)
        works = known.host.kvm and bool(self._kvm_works)
        if wanted and not works:
            raise UsageError(
                f"{self.name}: no guest of ours runs on KVM",
                "Check /dev/kvm and its permissions, or remove 'kvm = true' "
                f"from [host.{self.name}].",
            )
        return works

    async def _make_room(self, folder: PurePosixPath) -> None:
        """Remove the copies that were not used for longest."""
        while len(self._launchers) >= _COPIES:
            key = next(iter(self._launchers))
            del self._launchers[key]
            await self.host.run(
                ["rm", "-rf", str(folder / key)], limit_s=_COPY_S
            )

    async def _copied(
        self, program: Program, here: PurePosixPath
    ) -> tuple[str, ...]:
        """Copy a program, and return the beginning of its command line."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in program.files().items():
                member = tarfile.TarInfo(f"{here.name}/{name}")
                member.size, member.mode = len(data), 0o700
                archive.addfile(member, io.BytesIO(data))
        packed = f"{here}.tar"
        await self.host.put(buffer.getvalue(), packed)
        unpack = 'tar -xf "$1" -C "$2"; done=$?; rm -f "$1"; exit $done'
        done = await self.host.run(
            ["sh", "-c", unpack, "sh", packed, str(here.parent)],
            limit_s=_COPY_S,
        )
        if done.status:
            said = done.stderr.decode(errors="backslashreplace").strip()
            raise HostError(
                f"{self.name}: the QEMU under test could not be unpacked: "
                f"{said}",
                "Check that the host has tar, and room for temporary files.",
            )
        lib = here / "lib"
        if not program.libraries:
            return (str(here / program.binary.name),)
        return (
            str(lib / LOADER),
            "--library-path",
            str(lib),
            str(here / program.binary.name),
        )

    def provenance(
        self,
        known: Inventory,
        functions: Sequence[PciFunction],
        properties: str,
        reasons: Mapping[str, str],
        accelerator: Accelerator,
        guest: GuestProvenance | None,
    ) -> MachineProvenance:
        """Describe the machine as a part of a run's provenance.

        :param known: Its inventory, taken before the run.
        :param functions: The functions that QEMU gets.
        :param properties: The properties of QEMU's vfio-pci.
        :param reasons: Why the driver needs some of them.
        :param accelerator: What ran the guest.
        :param guest: The guest of the user, if it was run.
        """
        return MachineProvenance(
            name=self.name,
            hostname=known.host.name,
            kernel=known.host.kernel,
            cpu=known.host.cpu,
            cores=known.host.cores,
            driver=self.driver.driver,
            functions=tuple(_function(known, x) for x in functions),
            properties=properties,
            reasons=dict(reasons),
            accelerator=accelerator,
            guest=guest or msgspec.UNSET,
            load=known.host.load,
        )


def _function(known: Inventory, function: PciFunction) -> FunctionProvenance:
    pf = known.find(function.pf)
    return FunctionProvenance(
        address=function.address,
        ids=function.id,
        firmware=pf.fw_version if pf else "",
        psid=pf.psid if pf else "",
        numa_node=function.numa_node,
    )


def choose_functions(
    machine: Machine, known: Inventory, wanted: Functions
) -> tuple[PciFunction, ...]:
    """Find the functions that a side of a place uses.

    :param machine: The machine.
    :param known: Its inventory.
    :param wanted: The functions, as hosts.toml names them.
    :raise UsageError: When the machine has no such function.
    :raise SkipError: When it has too few VFs.
    """
    name = machine.name
    if wanted.pf:
        pf = known.find(wanted.pf)
        if pf is None:
            raise UsageError(
                f"{name}: there is no function {wanted.pf} that can have VFs",
                f"'vfio-p2p host list{machine.options}' shows those that "
                "are there.",
            )
        # 'host prepare' takes the same ones.
        vfs = known.vfs_for(pf, machine.driver.driver)[: wanted.most]
        if len(vfs) < wanted.most:
            raise SkipError(
                f"{name}: {wanted.pf} has {len(vfs)} VFs, and {wanted.most} "
                "are wanted",
                f"Make them with 'vfio-p2p host prepare{machine.options}'.",
            )
        return vfs
    found = [known.find(address) for address in wanted.vfs]
    for address, function in zip(wanted.vfs, found, strict=True):
        if function is None:
            raise UsageError(
                f"{name}: there is no VF {address}",
                f"'vfio-p2p host list{machine.options}' shows those that "
                "are there.",
            )
    return tuple(x for x in found if x is not None)


@asynccontextmanager
async def open_machine(
    name: str, entry: HostEntry, driver: VariantDriver, given: Path | None
) -> AsyncIterator[Machine]:
    """Open a session on a machine of hosts.toml.

    :param name: Its name.
    :param entry: What the file says of it.
    :param driver: The driver of its functions.
    :param given: The path of the file; None is the usual one.
    :raise HostError: When it cannot be reached.
    :raise InputError: When it does not let us in.
    """
    async with AsyncExitStack() as stack:
        spec = spec_of(name, entry, given)
        host = await stack.enter_async_context(open_host(spec))
        yield Machine(name, host, driver, spec.options)
