# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys and certificates with which a pair encrypts a migration.

They are made anew for each run, and removed after it.  Both QEMUs get a
certificate as a server and one as a client, since the destination of one
migration may be the source of the next one.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vfio_p2p.errors import HostError
from vfio_p2p.machine.host_protocol import Host
from vfio_p2p.side import Side

_SERVER = "vfio-p2p-server"
_CLIENT = "vfio-p2p-client"

#: The credentials that a QEMU needs for a QMP command, by its name.
CREDENTIALS = {"migrate-incoming": _SERVER, "migrate": _CLIENT}

# QEMU goes by its host's clock, which may be off by some hours.
_VALID = timedelta(hours=12)
_LIMIT_S = 60.0


class _Authority:
    """The authority that signs the certificates of one run."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("vfio-p2p, for one run")
        self.certificate = _pem(
            self._unsigned(self._name, self._key)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=0), critical=True
            )
            .add_extension(_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def sign(self, address: str, *, server: bool) -> tuple[bytes, bytes]:
        """Make a certificate, and its key.

        :param address: The address of its host.
        :param server: Whether it is for a server.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH
        if server:
            purpose = ExtendedKeyUsageOID.SERVER_AUTH
        certificate = (
            self._unsigned(_named("vfio-p2p"), key)
            .add_extension(
                x509.BasicConstraints(ca=False, path_length=None),
                critical=True,
            )
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([_alternative(address)]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return _pem(certificate), secret

    def _unsigned(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALID)
            .not_valid_after(now + _VALID)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        # QEMU 8.1 to 10.1 warn if it is missing.
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_files(
    addresses: Mapping[Side, str],
) -> dict[Side, dict[str, bytes]]:
    """Make everything that the QEMUs of both sides need.

    :param addresses: The addresses of both hosts in the link.
    :return: The files by their names, as QEMU wants them, by side.
    """
    authority = _Authority()
    found: dict[Side, dict[str, bytes]] = {}
    for side, address in addresses.items():
        files = {"ca-cert.pem": authority.certificate}
        for role in ("server", "client"):
            certificate, key = authority.sign(address, server=role == "server")
            files[f"{role}-cert.pem"] = certificate
            files[f"{role}-key.pem"] = key
        found[side] = files
    return found


@asynccontextmanager
async def credentials(
    hosts: Mapping[Side, Host], addresses: Mapping[Side, str]
) -> AsyncIterator[dict[Side, tuple[str, ...]]]:
    """Give both hosts keys and certificates while the block lasts.

    :param hosts: The host of each side.
    :param addresses: Its address in the link.
    :return: The arguments of the QEMU of each side.
    :raise HostError: When a host does not take them.
    :raise NoSpaceError: When a host has no room for them.
    """
    folders: dict[Side, str] = {}
    try:
        for side, files in make_files(addresses).items():
            host = hosts[side]
            private = await host.private_folder()
            folder = f"{private}/tls-{secrets.token_hex(4)}"
            folders[side] = folder
            done = await host.run(
                ["mkdir", "-m", "700", folder], limit_s=_LIMIT_S
            )
            if done.status:
                said = done.stderr.decode(errors="backslashreplace").strip()
                raise HostError(
                    f"{host.name}: no folder for keys could be made: {said}",
                    "Check the room for temporary files there.",
                )
            for name, data in files.items():
                await host.put(data, f"{folder}/{name}", 0o600)
        yield {side: _arguments(x) for side, x in folders.items()}
    finally:
        for side, folder in folders.items():
            # The private folder of a host that is gone ends with its
            # session.
            with suppress(HostError):
                await hosts[side].run(["rm", "-rf", folder], limit_s=_LIMIT_S)


def _arguments(folder: str) -> tuple[str, ...]:
    """Return QEMU's arguments for both kinds of credentials."""
    where = folder.replace(",", ",,")
    return tuple(
        word
        for name, endpoint in ((_SERVER, "server"), (_CLIENT, "client"))
        for word in (
            "-object",
            f"tls-creds-x509,id={name},dir={where},endpoint={endpoint}",
        )
    )
