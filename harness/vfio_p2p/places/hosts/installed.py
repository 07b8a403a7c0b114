# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that a host has itself: the key ``qemu`` of ``hosts.toml``.

It is run as it is, with its own libraries and firmware.  Everything that can
be known of it is found out before anything runs.
"""

from __future__ import annotations

import re

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.errors import HostError, UsageError
from vfio_p2p.machine.host_protocol import Completed, Host
from vfio_p2p.qemu.examined import OLDEST, blindness, version_line
from vfio_p2p.variant import INSTALLED

# An emulated host takes a second.
_LIMIT_S = 60.0
_SHA256 = re.compile(rb"[0-9a-f]{64}")

# A QEMU without GnuTLS says this of any credentials (crypto/tlscredsx509.c).
# Others say that the folder is not there.
_NO_TLS = "requires GNUTLS"
_CREDENTIALS = "tls-creds-x509,id=tls,dir=/nonexistent,endpoint=server"


async def examine(host: Host, path: str) -> ProgramInput:
    """Find out which QEMU a host has, and whether it can be judged.

    :param host: The host.
    :param path: The path of the QEMU.
    :raise UsageError: When it cannot be run, is no QEMU that we can judge,
        or writes no trace events.
    :raise HostError: When the host is gone.
    """
    found = await host.run(
        ["test", "-f", path, "-a", "-x", path], limit_s=_LIMIT_S
    )
    if found.status:
        raise UsageError(
            f"{host.name}: its QEMU {path} is missing, or cannot be run",
            f"Install QEMU there, or correct 'qemu' in [host.{host.name}] of "
            "hosts.toml.",
        )
    version = await _version(host, path)
    await _check_traces(host, path)
    return ProgramInput(
        variant=INSTALLED,
        build="",
        version=version,
        sha256=await sha256_of(host, path),
        libraries={},
    )


async def sha256_of(
    host: Host, path: str, limit_s: float = _LIMIT_S
) -> str:
    """Hash a file of a host.

    :param host: The host.
    :param path: The path of the file.
    :param limit_s: The limit in seconds, for files that may be large.
    :raise HostError: When the host cannot do it.
    """
    # The path is no argument of sha256sum, which would escape some.
    done = await host.run(
        ["sh", "-c", 'exec sha256sum <"$1"', "sh", path], limit_s=limit_s
    )
    words = done.stdout.split()
    if done.status or not words or not _SHA256.fullmatch(words[0]):
        raise HostError(
            f"{host.name}: {path} cannot be hashed: {_said(done)}",
            "Check that the host has sha256sum, and that its login may read "
            "the file.",
        )
    return words[0].decode()


async def check_tls(host: Host, pair: str, path: str) -> None:
    """See that a QEMU of a host can encrypt a migration.

    :param host: The host.
    :param pair: The name of the pair that wants it.
    :param path: The path of the QEMU.
    :raise UsageError: When it cannot.
    :raise HostError: When the host is gone.
    """
    # This QEMU always ends at once: there is no such folder.
    done = await _ask(host, path, "-object", _CREDENTIALS)
    if not done.status or _NO_TLS in _said(done):
        raise UsageError(
            f"{host.name}: its QEMU {path} has no TLS, but [pair.{pair}] of "
            "hosts.toml has 'tls = true'",
            "Install a QEMU there that was built with GnuTLS, or remove "
            f"'tls' from [pair.{pair}].",
        )


async def _version(host: Host, path: str) -> str:
    done = await host.run([path, "--version"], limit_s=_LIMIT_S)
    found = version_line(done.stdout.decode(errors="backslashreplace"))
    if done.status or found is None:
        raise UsageError(
            f"{host.name}: {path} does not tell QEMU's version: "
            f"{_said(done)!r}",
            "Name a qemu-system-x86_64 that runs there: try "
            f"'{path} --version'.",
        )
    line, release = found
    if release < OLDEST:
        raise UsageError(
            f"{host.name}: {path} is QEMU {release[0]}.{release[1]}, and 8.1 "
            "is the first release that can be judged",
            "Install a later QEMU there.",
        )
    return line


async def _check_traces(host: Host, path: str) -> None:
    items, events = [
        (await host.run([path, *words], limit_s=_LIMIT_S)).stdout.decode(
            errors="backslashreplace"
        )
        for words in (["-d", "help"], ["-trace", "help"])
    ]
    if why := blindness(items, events):
        raise UsageError(
            f"{host.name}: {path} {why}, so that nothing could be seen of a "
            "run",
            "Install a QEMU there that was built with "
            "--enable-trace-backends=log, as Debian's is.",
        )


async def _ask(host: Host, path: str, *arguments: str) -> Completed:
    return await host.run(
        [
            path,
            *("-machine", "none", "-nodefaults", "-no-user-config"),
            *("-display", "none", "-S"),
            *arguments,
        ],
        limit_s=_LIMIT_S,
    )


def _said(done: Completed) -> str:
    """Return the last thing that a program said."""
    for data in (done.stderr, done.stdout):
        lines = data.decode(errors="backslashreplace").strip().splitlines()
        if lines:
            return "".join(x if x.isprintable() else "?" for x in lines[-1])
    return "it printed nothing"
