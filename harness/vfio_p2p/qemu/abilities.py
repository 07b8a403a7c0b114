# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU knows: machine types, properties, capabilities, statuses.

The QEMU is asked over QMP, without a machine, which takes a fifth of a
second.  The answers were the same kind with QEMU 10.0.13, 10.2.2 and Debian's
11.1.3.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from vfio_p2p.errors import UsageError
from vfio_p2p.foreign import NOT_JSON, format_in
from vfio_p2p.machine.files import write_whole
from vfio_p2p.machine.process import bound
from vfio_p2p.paths import cache_dir

FORMAT = 2
VFIO = "vfio-pci"

_LIMIT_S = 60.0
_OPTIONS = (
    *("-machine", "none", "-S", "-nodefaults", "-no-user-config"),
    *("-display", "none", "-qmp", "stdio"),
)
_SCHEMA = "query-qmp-schema"
# Every QEMU has this type.  One without GnuTLS says so when it is asked for
# such an object, and any other one, that there is no such folder.
_CREDENTIALS = {
    "qom-type": "tls-creds-psk",
    "id": "probe",
    "dir": "/nonexistent/vfio-p2p",
    "endpoint": "client",
}
_GNUTLS = "GNUTLS"


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What one QEMU knows, by the names that QMP has for it.

    :param machines: The machine types, aliases included.
    :param capabilities: The migration capabilities.
    :param parameters: The migration parameters.
    :param statuses: The statuses that a migration can have.
    :param properties: The properties of the types that were asked about;
        none for a type that the QEMU does not have.
    :param tls: Whether it can encrypt migrations.
    """

    format: int = FORMAT
    tls: bool = False
    machines: frozenset[str]
    capabilities: frozenset[str]
    parameters: frozenset[str]
    statuses: frozenset[str]
    properties: dict[str, frozenset[str]]


def abilities_of(
    argv: Sequence[str], content: str, types: Iterable[str] = ()
) -> Abilities:
    """Ask a QEMU what it knows, or look up what it said before.

    :param argv: The beginning of its command line on this machine.
    :param content: The hash of the program, under which its answers are kept.
    :param types: The types whose properties are wanted, besides vfio-pci.
    :raise UsageError: When it does not answer.
    """
    path = cache_dir() / "abilities" / f"{content}.json"
    wanted = {VFIO, *types}
    data = path.read_bytes() if path.exists() else b""
    try:
        kept = msgspec.json.decode(data, type=Abilities)
    except NOT_JSON:
        pass
    else:
        if kept.format == FORMAT:
            if wanted <= kept.properties.keys():
                return kept
            wanted |= kept.properties.keys()
    found = ask(argv, wanted)
    if format_in(data) <= FORMAT:
        # What a newer vfio-p2p has kept is not ours to replace.
        write_whole(path, msgspec.json.encode(found, order="deterministic"))
    return found


def ask(argv: Sequence[str], types: Iterable[str]) -> Abilities:
    """Ask a QEMU what it knows.

    :param argv: The beginning of its command line.
    :param types: The types whose properties are wanted.
    :raise UsageError: When it does not answer.
    """
    names = sorted(types)
    requests: list[tuple[str, dict[str, str]]] = [
        ("qmp_capabilities", {}),
        ("query-machines", {}),
        ("query-migrate-capabilities", {}),
        (_SCHEMA, {}),
        ("object-add", _CREDENTIALS),
        *(("qom-list-properties", {"typename": x}) for x in names),
        ("quit", {}),
    ]
    answers = _converse(argv, requests)
    try:
        _, machines, capabilities, schema, credentials, *listed = (
            answers[number] for number in range(len(requests) - 1)
        )
        tree = {x["name"]: x for x in schema["return"]}
        settable = tree[tree["migrate-set-parameters"]["arg-type"]]
        return Abilities(
            machines=frozenset(
                name
                for x in machines["return"]
                for name in (x["name"], x.get("alias"))
                if name
            ),
            capabilities=frozenset(
                x["capability"] for x in capabilities["return"]
            ),
            parameters=frozenset(x["name"] for x in settable["members"]),
            statuses=frozenset(_statuses(tree)),
            tls=_GNUTLS not in credentials["error"]["desc"].upper(),
            properties={
                name: frozenset(x["name"] for x in answer.get("return", ()))
                for name, answer in zip(names, listed, strict=True)
            },
        )
    except (KeyError, TypeError, ValueError) as err:
        raise UsageError(
            f"{argv[-1]} does not say over QMP what it knows: {err!r}",
            f"Try it: '{argv[-1]} {' '.join(_OPTIONS)}'.",
        ) from None


def _statuses(tree: dict[str, Any]) -> Iterator[str]:
    """Yield the values of QAPI's MigrationStatus."""
    for member in tree[tree["query-migrate"]["ret-type"]]["members"]:
        if member["name"] == "status":
            yield from tree[member["type"]]["values"]


def _converse(
    argv: Sequence[str], requests: Sequence[tuple[str, dict[str, str]]]
) -> dict[int, dict[str, Any]]:
    """Send requests, the last of which ends QEMU; return the answers."""
    text = "".join(
        json.dumps({"execute": name, "arguments": values, "id": number})
        + "\n"
        for number, (name, values) in enumerate(requests)
    )
    reading, writing = os.pipe()
    try:
        # The pipe stays open: at its end, QEMU would drop requests that it
        # has read and not answered.
        os.write(writing, text.encode())
        with tempfile.TemporaryFile() as out:
            done = subprocess.run(
                bound([*argv, *_OPTIONS]),
                stdin=reading,
                stdout=out,
                stderr=subprocess.PIPE,
                timeout=_LIMIT_S,
                check=False,
            )
            out.seek(0)
            lines = out.read().splitlines()
    except (OSError, subprocess.TimeoutExpired) as err:
        raise UsageError(
            f"{argv[-1]} does not answer over QMP: {err}",
            f"Try it: '{argv[-1]} {' '.join(_OPTIONS)}'.",
        ) from None
    finally:
        os.close(reading)
        os.close(writing)
    answers = {}
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if "id" in said:
            answers[said["id"]] = said
    if len(answers) < len(requests):
        last = done.stderr.decode(errors="backslashreplace").splitlines()
        raise UsageError(
            f"{argv[-1]} ends before it has answered over QMP: "
            + (last[-1][:200] if last else "it printed nothing"),
            f"Try it: '{argv[-1]} {' '.join(_OPTIONS)}'.",
        )
    return answers
