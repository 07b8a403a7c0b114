# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor of a domain of libvirt, through libvirt.

libvirt holds the monitor of its QEMUs.  It passes commands on, and events.
On the destination of a migration, it passes events on at once, and no command
until the migration is over.
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from typing import Any
from xml.etree import ElementTree

from vfio_p2p.attach.monitor import AGAIN, COMMAND_S, LOST, OnEvent
from vfio_p2p.errors import (
    CommandError,
    ConnectionLostError,
    HarnessError,
    HostError,
    MissingToolError,
    SkipError,
    StepTimeoutError,
    UsageError,
    VMError,
)
from vfio_p2p.machine.qemu import TRACE_EVENTS

try:
    import libvirt
    import libvirt_qemu
except ImportError:
    libvirt = None

PACKAGE = "python3-libvirt"
_QEMU_SPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
_INSTALL = (
    "Install the extra 'libvirt' with 'pip install \"vfio-p2p[libvirt]\"', "
    "which needs libvirt-dev, pkg-config and gcc; or, for a vfio-p2p that "
    f"runs with the system's Python, the Debian package {PACKAGE}."
)
_TRY = "'virsh -c URI list' tries a URI."
_WRITE = (
    "Name a socket that permits writing (libvirt-sock, and not "
    "libvirt-sock-ro) with --libvirt URI, and run this as root or as a "
    "member of the group libvirt."
)
# A libvirt that has said nothing for 15 s is gone.
_KEEPALIVE = (5, 3)
_lock = threading.Lock()
_registered = False


class DomainMonitor:
    """A domain's monitor; use `domain_monitor`.

    :param name: What messages call it.
    :param connection: The connection, as libvirt's binding has it.
    :param domain: The name of the domain.
    """

    def __init__(self, name: str, connection: Any, domain: str) -> None:
        self.name = name
        self.domain = domain
        self.closed = False
        #: Whether events come on another way.
        self.muted = False
        #: Whether libvirt has started a QEMU to migrate to that nobody
        #: listens to yet.
        self.pending = False
        self._connection = connection
        self._found: Any = None
        self._busy = asyncio.Lock()
        self._changed = asyncio.Event()

    async def running(self) -> str:
        """Take the domain, and return its UUID.

        :raise SkipError: When there is no such domain, or it does not run,
            or it is being migrated to.
        """
        try:
            found = await self._call(
                self._connection.lookupByName, self.domain
            )
            active = await self._call(found.isActive)
            arriving = await self._call(_is_arriving, found)
        except libvirt.libvirtError as err:
            raise _no_domain(self.name, err) from err
        if not active:
            raise SkipError(
                f"{self.name}: the domain {self.domain} is shut off",
                f"Start it with 'virsh start {self.domain}', or wait for it "
                "with --follow.",
            )
        if arriving:
            raise SkipError(
                f"{self.name}: the domain {self.domain} is being migrated to",
                "libvirt passes no command on until that is over. Then start "
                "this again, or wait with --follow.",
            )
        self._found = found
        return str(found.UUIDString())

    async def arriving(self) -> str:
        """Wait until the domain is being migrated to; return its UUID.

        No command can be executed until the migration is over.

        :raise VMError: When libvirt is gone.
        """
        while not self.closed:
            self._changed.clear()
            if self.pending or await self._is_arriving():
                return str(self._found.UUIDString())
            await self._changed.wait()
        raise VMError(self.name, LOST, AGAIN)

    async def _is_arriving(self) -> bool:
        """Return whether the domain is being migrated to now."""
        # Usually there is no such domain before.
        with suppress(libvirt.libvirtError):
            found = await self._call(
                self._connection.lookupByName, self.domain
            )
            if await self._call(_is_arriving, found):
                self._found, self.pending = found, True
        return self.pending

    async def active(self) -> bool:
        """Return whether the domain runs, or is being migrated to."""
        with suppress(libvirt.libvirtError):
            return bool(await self._call(self._found.isActive))
        return False

    def taken(self) -> None:
        """Take notice that its QEMU is listened to, or has ended."""
        self.pending = False

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = COMMAND_S,
        files: Sequence[int] = (),
    ) -> Any:
        """Execute a QMP command; see `Monitor`.

        :param files: Descriptors to pass to QEMU.
        """
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = dict(arguments)
        try:
            async with asyncio.timeout(limit_s), self._busy:
                if files:
                    # What QEMU passes back is none of ours.
                    text, _ = await self._call(
                        libvirt_qemu.qemuMonitorCommandWithFiles,
                        self._found,
                        json.dumps(request),
                        list(files),
                        0,
                    )
                else:
                    text = await self._call(
                        libvirt_qemu.qemuMonitorCommand,
                        self._found,
                        json.dumps(request),
                        0,
                    )
        except libvirt.libvirtError as err:
            if (refused := _refused(f"{self.name}: libvirt", err)) is not None:
                raise refused from err
            raise ConnectionLostError(
                self.name, f"libvirt: {err.get_error_message()}"
            ) from err
        except TimeoutError:
            raise StepTimeoutError(self.name, command, limit_s) from None
        answer = json.loads(text)
        if "error" in answer:
            raise CommandError(
                self.name, f"{command}: {answer['error'].get('desc')}"
            )
        return answer.get("return")

    def changed(self, domain: Any, event: int, detail: int) -> None:
        """Take notice that the domain has begun to run, or has ended.

        A short migration may be over before libvirt can be asked.

        :param domain: The domain, as libvirt's binding has it.
        :param event: What has happened to it, VIR_DOMAIN_EVENT_*.
        :param detail: The details, VIR_DOMAIN_EVENT_STARTED_* for a start.
        """
        if (event, detail) == (
            libvirt.VIR_DOMAIN_EVENT_STARTED,
            libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED,
        ):
            self._found, self.pending = domain, True
        self._changed.set()

    def close(self) -> None:
        """Take notice that libvirt is gone."""
        self.closed = True
        self._changed.set()

    @staticmethod
    async def _call(function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)


def _is_arriving(domain: Any) -> bool:
    state, reason = domain.state()
    return state == libvirt.VIR_DOMAIN_PAUSED and reason in (
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
    )


@asynccontextmanager
async def domain_monitor(
    name: str, uri: str, domain: str, on_event: OnEvent
) -> AsyncIterator[DomainMonitor]:
    """Reach libvirt for as long as the block lasts.

    The domain need not exist yet.

    :param name: What messages call it.
    :param uri: The URI of libvirt; empty for libvirt's default.
    :param domain: The name of the domain.
    :param on_event: Called with each QMP event of the domain.
    :raise MissingToolError: When libvirt's binding is missing.
    :raise UsageError: When the URI is wrong, or permits no writing.
    :raise SkipError: When no libvirt listens there.
    :raise HostError: When libvirt cannot be reached otherwise.
    """
    async with _connected(name, uri) as connection:
        monitor = DomainMonitor(name, connection, domain)
        loop = asyncio.get_running_loop()

        def on_qmp(
            conn: Any, dom: Any, event: str, sec: int, usec: int,
            details: str | None, opaque: Any,
        ) -> None:
            if dom.name() != domain or monitor.muted:
                return
            document: dict[str, Any] = {
                "timestamp": {"seconds": sec, "microseconds": usec},
                "event": event,
            }
            if details:
                document["data"] = json.loads(details)
            _tell(loop, on_event, document)

        def on_change(
            conn: Any, dom: Any, event: int, detail: int, opaque: Any
        ) -> None:
            if dom.name() == domain:
                _tell(loop, monitor.changed, dom, event, detail)

        def on_close(conn: Any, reason: int, opaque: Any) -> None:
            _tell(loop, monitor.close)

        try:
            qmp_id = libvirt_qemu.qemuMonitorEventRegister(
                connection, None, None, on_qmp, None, 0
            )
            changes_id = connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_change, None
            )
            connection.registerCloseCallback(on_close, None)
            connection.setKeepAlive(*_KEEPALIVE)
        except libvirt.libvirtError as err:
            raise _unreachable(name, uri, err) from err
        try:
            yield monitor
        finally:
            # libvirt may be gone.
            with suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()
                connection.domainEventDeregisterAny(changes_id)
                libvirt_qemu.qemuMonitorEventDeregister(connection, qmp_id)


async def destination_xml(name: str, uri: str, domain: str) -> str:
    """Return the XML of a domain for the destination of a migration.

    It is the domain's own, with trace events on QEMU's command line.

    :param name: What messages call it.
    :param uri: The URI of libvirt; empty for libvirt's default.
    :param domain: The name of the domain.
    :raise MissingToolError: When libvirt's binding is missing.
    :raise UsageError: When the URI is wrong, or permits no writing.
    :raise SkipError: When no libvirt listens there, or there is no such
        domain.
    :raise HostError: When libvirt cannot be reached otherwise.
    """
    async with _connected(name, uri) as connection:
        try:
            found = await asyncio.to_thread(connection.lookupByName, domain)
            # Without VIR_DOMAIN_XML_SECURE, passwords would be missing there.
            text = await asyncio.to_thread(
                found.XMLDesc,
                libvirt.VIR_DOMAIN_XML_MIGRATABLE
                | libvirt.VIR_DOMAIN_XML_SECURE,
            )
        except libvirt.libvirtError as err:
            raise _no_domain(name, err) from err
    return with_trace_events(text)


def with_trace_events(
    text: str, events: Iterable[str] = TRACE_EVENTS
) -> str:
    """Add trace events to QEMU's command line in the XML of a domain.

    :param text: The XML.
    :param events: Names of events, with ``*`` for any text.
    """
    # All else keeps its prefix.
    for prefix, space in re.findall(r"xmlns:(\w+)=['\"]([^'\"]+)", text):
        ElementTree.register_namespace(prefix, space)
    ElementTree.register_namespace("qemu", _QEMU_SPACE)
    root = ElementTree.fromstring(text)
    line = root.find(f"{{{_QEMU_SPACE}}}commandline")
    if line is None:
        line = ElementTree.SubElement(root, f"{{{_QEMU_SPACE}}}commandline")
    for event in events:
        for word in ("-trace", f"enable={event}"):
            ElementTree.SubElement(
                line, f"{{{_QEMU_SPACE}}}arg", {"value": word}
            )
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _tell(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any
) -> None:
    """Call a function in the loop, which may have been closed meanwhile."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)


@asynccontextmanager
async def _connected(name: str, uri: str) -> AsyncIterator[Any]:
    """Connect to libvirt for as long as the block lasts."""
    if libvirt is None:
        raise MissingToolError("libvirt's Python binding", PACKAGE, _INSTALL)
    _run_events()
    try:
        connection = await asyncio.to_thread(libvirt.open, uri or None)
    except libvirt.libvirtError as err:
        raise _unreachable(name, uri, err) from err
    try:
        yield connection
    finally:
        with suppress(libvirt.libvirtError):
            await asyncio.to_thread(connection.close)


def _run_events() -> None:
    """Let a thread of its own serve libvirt's events.

    libvirt knows one event loop for the whole process, which must be there
    before the first connection and can never be replaced; an asyncio loop
    comes and goes.
    """
    global _registered
    with _lock:
        if _registered:
            return
        _registered = True
        # Otherwise, it prints each error.
        libvirt.registerErrorHandler(lambda opaque, error: None, None)
        libvirt.virEventRegisterDefaultImpl()

    def serve() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=serve, name="libvirt", daemon=True).start()


def _refused(where: str, err: Any) -> UsageError | None:
    """Return the error if libvirt does not permit what we need."""
    if err.get_error_code() in (
        libvirt.VIR_ERR_OPERATION_DENIED,
        libvirt.VIR_ERR_ACCESS_DENIED,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    ):
        return UsageError(f"{where}: {err.get_error_message()}", _WRITE)
    return None


def _no_domain(name: str, err: Any) -> HarnessError:
    """Return the error for a domain that could not be asked for."""
    where, what = f"{name}: libvirt", err.get_error_message()
    if err.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
        return _refused(where, err) or ConnectionLostError(
            name, f"libvirt: {what}"
        )
    return SkipError(
        f"{where}: {what}",
        "'virsh -c URI list --all' lists the domains of a libvirt, and "
        "--libvirt URI names it.",
    )


def _unreachable(name: str, uri: str, err: Any) -> HarnessError:
    """Return the error for a libvirt that could not be connected to."""
    where = f"{name}: {uri or 'libvirt'}"
    if (refused := _refused(where, err)) is not None:
        return refused
    what = f"{where}: {err.get_error_message()}"
    code = err.get_error_code()
    if code == libvirt.VIR_ERR_SYSTEM_ERROR:
        number = err.get_int1()
        if number in (errno.EACCES, errno.EPERM):
            return UsageError(what, _WRITE)
        if number in (errno.ENOENT, errno.ECONNREFUSED):
            return SkipError(
                what,
                f"Start libvirt's daemon, or name another libvirt with "
                f"--libvirt URI. {_TRY}",
            )
    elif code in (
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_INTERNAL_ERROR,
    ):
        return UsageError(
            what,
            "Give a URI of libvirt's QEMU driver, such as qemu:///system or "
            f"qemu:///session. {_TRY}",
        )
    return HostError(what, f"Check the URI. {_TRY}")
