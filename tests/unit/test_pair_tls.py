# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys and certificates of an encrypted migration."""

from __future__ import annotations

import ipaddress
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bench import DESTINATION, DEVICES, SCENARIO, SOURCE, Bench, fakes
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from vfio_p2p.machine.host import LocalHost
from vfio_p2p.places.hosts.play import Stage, Wire, play
from vfio_p2p.places.hosts.station import encrypting
from vfio_p2p.places.hosts.tls import credentials, make_files
from vfio_p2p.scenario.argv import Launcher
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.side import Side

ADDRESSES = {Side.SOURCE: "192.0.2.1", Side.DESTINATION: "192.0.2.2"}
NAMES = {
    "ca-cert.pem",
    "server-cert.pem",
    "server-key.pem",
    "client-cert.pem",
    "client-key.pem",
}


def certificate(files: dict[str, bytes], name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files[f"{name}-cert.pem"])


@pytest.mark.parametrize("side", list(Side))
def test_each_side_can_be_server_and_client(side: Side) -> None:
    files = make_files(ADDRESSES)[side]
    assert set(files) == NAMES
    authority = certificate(files, "ca")
    purposes = {
        "server": ExtendedKeyUsageOID.SERVER_AUTH,
        "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    for name, purpose in purposes.items():
        one = certificate(files, name)
        one.verify_directly_issued_by(authority)
        extensions = one.extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert list(usage.value) == [purpose]
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.IPAddress) == [
            ipaddress.ip_address(ADDRESSES[side])
        ]
        key = load_pem_private_key(files[f"{name}-key.pem"], None)
        assert key.public_key() == one.public_key()
        now = datetime.now(UTC)
        assert one.not_valid_before_utc < now - timedelta(hours=1)
        assert now < one.not_valid_after_utc < now + timedelta(days=1)


def test_nothing_is_used_twice() -> None:
    first, second = make_files(ADDRESSES), make_files(ADDRESSES)
    keys = [
        data
        for made in (first, second)
        for files in made.values()
        for name, data in files.items()
        if name.endswith("-key.pem")
    ]
    assert len(set(keys)) == 8
    authorities = {x[Side.SOURCE]["ca-cert.pem"] for x in (first, second)}
    assert len(authorities) == 2


def test_a_link_may_have_names_in_place_of_addresses() -> None:
    files = make_files({**ADDRESSES, Side.SOURCE: "box.example"})
    one = certificate(files[Side.SOURCE], "server")
    names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["box.example"]


async def test_keys_are_private_and_go_with_the_block() -> None:
    host = LocalHost()
    try:
        folder = Path(await host.private_folder())
        with pytest.raises(ZeroDivisionError):
            await examined(host, folder)
        assert list(folder.iterdir()) == []
    finally:
        await host.close()


async def examined(host: LocalHost, folder: Path) -> None:
    """Look at the keys, and then fail as a run may."""
    hosts = dict.fromkeys(Side, host)
    async with credentials(hosts, ADDRESSES) as arguments:
        made = list(folder.iterdir())
        assert len(made) == 2
        for one in made:
            assert stat.S_IMODE(one.stat().st_mode) == 0o700
            files = list(one.iterdir())
            assert {x.name for x in files} == NAMES
            for file in files:
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
            told = [x for x in arguments.values() if str(one) in x[1]]
            assert len(told) == 1
        raise ZeroDivisionError


async def test_credentials_are_set_before_each_migration(
    bench: Bench,
) -> None:
    host = LocalHost()
    launchers = fakes(bench.plan())
    bench.out.mkdir()
    wire = Wire(dict.fromkeys(Side, "127.0.0.1"), tls=True)
    try:
        folder = Path(await host.private_folder())
        stages = {
            side: Stage(
                host=host,
                folder=folder,
                launcher=launchers[side],
                devices=tuple(DEVICES[side]),
            )
            for side in Side
        }
        async with encrypting(stages, wire) as equipped:
            found = await play(SCENARIO, equipped, bench.out, wire)
    finally:
        await host.close()
    assert found.outcome is Outcome.MIGRATED
    expected = {
        SOURCE: ("migrate", "vfio-p2p-client"),
        DESTINATION: ("migrate-incoming", "vfio-p2p-server"),
    }
    for side, (command, name) in expected.items():
        sent = commands(bench, side)
        at = [x for x, _ in sent].index(command)
        assert sent[at - 1] == (
            "migrate-set-parameters", {"tls-creds": name}
        )  # fmt: skip
        argv = json.loads((bench.folder / f"{side}.argv").read_text())
        objects = [x for x in argv if x.startswith("tls-creds-x509,")]
        assert [x.partition("endpoint=")[2] for x in objects] == [
            "server", "client"
        ]  # fmt: skip


def commands(bench: Bench, side: str) -> list[tuple[str, object]]:
    lines = (bench.out / side / "qmp.jsonl").read_text().splitlines()
    return [
        (x["msg"]["execute"], x["msg"].get("arguments"))
        for x in map(json.loads, lines)
        if x["dir"] == "->"
    ]


async def test_nothing_is_made_without_tls() -> None:
    stage = Stage(
        host=LocalHost(),
        folder=Path("/x"),
        launcher=Launcher((), Path("/x")),
        devices=(),
    )
    stages = dict.fromkeys(Side, stage)
    for wire in (None, Wire(ADDRESSES)):
        async with encrypting(stages, wire) as found:
            assert found == stages
    assert Wire(ADDRESSES).transport == "tcp"
    assert Wire(ADDRESSES, tls=True).transport == "tls"
