# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage inputs: any bytes, and some kinds whose form is kept.

A damaged zip or JSON file is mostly refused at once.  So inputs of these kinds
are taken apart, one part is damaged, and they are put together again.
"""

from __future__ import annotations

import bz2
import copy
import functools
import gzip
import hashlib
import io
import json
import lzma
import random
import sqlite3
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from contextlib import closing
from typing import Any

import tomli_w

#: No input is larger.
MOST_BYTES = 1 << 20

Draw = random.Random
#: Damages an input, with the help of another of the same kind.
Damage = Callable[[Draw, bytes, bytes], bytes]

_USUAL_BYTES = 64 << 10
# How many of the damaged inputs are made as large as an input can be.
_HUGE_ONE_IN = 2000
_TOKENS = (
    b"", b"\0", b"\n", b"\r\n", b"\r", b" ", b"\xff\xfe", b"\xef\xbb\xbf",
    b"\x80", b"\x1b[2J", b"{", b"}", b"[", b'"', b"\\", b"[" * 3000,
    b'{"a":' * 3000, b"0", b"-1", b"9" * 30, b"9" * 5000, b"1e999", b"NaN",
    b"0x", b"null", b"true", b"(null)", b"%s%n", b"\xe2\x80\xae", b"\xc2\x9b",
    b"\xed\xa0\x80", b"=", b"=?utf-8?q?", b"?=", b"--=-x", b"#", b"'''",
    b"1970-01-01T00:00:00Z ", b"9999-12-31T23:59:59.999999Z ",
    b"0@0.0:", b"99999999999@99999999999999.999999:",
    b"Nov 26 21:31:26 host qemu[1]: ", b"> ", b"(qemu) ",
    b"vfio_migration_set_state  (0000:3b:00.0) state STOP_COPY\n",
    b"vfio_migration_set_device_state  (0000:3b:00.0) state ERROR\n",
    b"vm_state_notify running 0 reason 7 (finish-migrate)\n",
    b"migrate_set_state new state completed\n", b"vfio_save_block  (a) ",
    b"vfio_state_pending_exact  (a) precopy 18446744073709551616 ",
    b'{"event": "STOP", "timestamp": {"seconds": -1, "microseconds": 9}}\n',
    b"From " + b"1" * 40 + b" Mon Sep 17 00:00:00 2001\n",
    b"\nSubject: [PATCH 2/6] x\n", b"\nContent-Type: ", b"multipart/mixed",
    b"; boundary=", b"message/rfc822", b"; charset=", b"utf-16", b"punycode",
    b"\nContent-Transfer-Encoding: ", b"base64", b"; format=flowed",
    b"\ndiff --git a/x b/x\n", b"@@ -1,99999999999 +1 @@\n",
    b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n", b"\\ No newline at end of file\n",
    b"rename from x\n", b"new file mode 100644\n", b"GIT binary patch\n",
    *(n.to_bytes(size, "little") for size in (2, 4, 8)
      for n in (0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)),
)  # fmt: skip
# Values that a decoder accepts and nobody expects.
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**25, 0.5, -0.0,
    1e308, 5e-324, "", "x", "A" * 3000, "\0", "\x1b[31m", "\u202e", "\ud800",
    "]]><b>", "{{ 7 }}", "../..", "nan", [], {}, [[]], {"": None},
)  # fmt: skip


def damaged(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage an input in a few places.

    :param draw: Makes the choices.
    :param data: The input.
    :param other: Another input of the same kind, to take parts of.
    """
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(data) + 1)
        length = draw.choice((0, 0, 1, 2, 8, 80, 2000))
        match draw.randrange(8):
            case 0:
                token = draw.choice(_TOKENS)
            case 1:
                token = draw.randbytes(draw.randint(1, 9))
            case 2 if data:
                # Flip a bit.
                at = draw.randrange(len(data))
                token, length = bytes([data[at] ^ 1 << draw.randrange(8)]), 1
            case 3:
                begin = draw.randrange(len(other) + 1)
                token = other[begin : begin + draw.choice((20, 400, 4000))]
            case 4:
                data = _lines(draw, data)
                continue
            case 5:
                # The end is missing.
                token, length = b"", len(data)
            case 6:
                token = data[at : at + length]
            case _:
                token = b""
        data = data[:at] + token + data[at + length :]
    if draw.randrange(_HUGE_ONE_IN):
        return data[:_USUAL_BYTES]
    return huge(draw, data)


def huge(draw: Draw, data: bytes) -> bytes:
    """Repeat a part of an input until it is as large as one can be."""
    at = draw.randrange(len(data) + 1)
    part = data[at : at + draw.choice((1, 2, 9, 80, 1000, 9000))] or b"\n"
    count = (MOST_BYTES - len(data)) // len(part)
    return data[:at] + part * count + data[at:]


def _lines(draw: Draw, data: bytes) -> bytes:
    """Leave out, repeat or exchange lines."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(3):
        case 0:
            lines[first], lines[second] = lines[second], lines[first]
        case 1:
            lines.insert(first, lines[second])
        case _:
            del lines[first : first + draw.randint(1, 5)]
    return b"".join(lines)


def changed(draw: Draw, tree: Any) -> Any:
    """Change a few values somewhere in a tree of lists and tables.

    :param draw: Makes the choices.
    :param tree: What a JSON or TOML file holds; it is left as it is.
    """
    root = [copy.deepcopy(tree)]
    for _ in range(draw.randint(1, 3)):
        nodes = [*_containers(root)]
        node = draw.choice(nodes)
        if not node:
            continue
        if isinstance(node, dict):
            key: Any = draw.choice(list(node))
        else:
            key = draw.randrange(len(node))
        match draw.randrange(5):
            case 0:
                del node[key]
                if node is root:
                    root.append({})
            case 1 if isinstance(node, dict):
                node[str(draw.choice(_VALUES))] = node[key]
            case 1:
                node.append(node[key])
            case 2:
                # Anything else that the tree has.
                node[key] = copy.deepcopy(draw.choice(nodes))
            case 3 if isinstance(node[key], int):
                node[key] += draw.choice((-1, 1, 1 << 40, -(1 << 40)))
            case _:
                node[key] = copy.deepcopy(draw.choice(_VALUES))
    return root[0]


def _containers(node: Any) -> list[Any]:
    found = [node]
    for inner in node.values() if isinstance(node, dict) else node:
        if isinstance(inner, dict | list):
            found += _containers(inner)
    return found


def _or_its_bytes(damage: Damage) -> Damage:
    """Damage only the bytes of inputs that cannot be taken apart.

    An engine that keeps damaged inputs has them damaged again.
    """

    @functools.wraps(damage)
    def either(draw: Draw, data: bytes, other: bytes) -> bytes:
        try:
            return damage(draw, data, other)
        except Exception:
            return damaged(draw, data, other)

    return either


@_or_its_bytes
def damaged_json(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage a JSON document, or change what it holds."""
    if draw.random() < 0.2:
        return damaged(draw, data, other)
    tree = json.loads(data)
    return json.dumps(changed(draw, tree)).encode()[:MOST_BYTES]


def damaged_lines(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage a file of JSON documents, or change one of them."""
    lines = data.splitlines(keepends=True)
    if not lines or draw.random() < 0.5:
        return damaged(draw, data, other)
    at = draw.randrange(len(lines))
    lines[at] = damaged_json(draw, lines[at], b"") + b"\n"
    return b"".join(lines)[:MOST_BYTES]


@_or_its_bytes
def damaged_toml(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage a TOML file, or change what it holds."""
    if draw.random() < 0.5:
        return damaged(draw, data, other)
    tree = changed(draw, tomllib.loads(data.decode()))
    return tomli_w.dumps(tree).encode()[:MOST_BYTES]


@_or_its_bytes
def damaged_bundle(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage a zip, or one file of a bundle, whose digests then fit."""
    if draw.random() < 0.2:
        return damaged(draw, data, other)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {x: archive.read(x) for x in archive.namelist()}
    manifest = json.loads(files["manifest.json"])
    name = draw.choice(sorted(files))
    form = damaged_json if name.endswith(".json") else damaged
    files[name] = form(draw, files[name], b"")
    if name != "manifest.json":
        manifest["files"][name] = {
            "sha256": hashlib.sha256(files[name]).hexdigest(),
            "size_bytes": len(files[name]),
        }
        files["manifest.json"] = json.dumps(manifest).encode()
    if name != "digest":
        value = hashlib.sha256(files["manifest.json"]).hexdigest()
        files["digest"] = f"{value}\n".encode()
    return zipped(files)


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip file of some files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def damaged_packed(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage a log, and pack it; or damage what is packed."""
    pack = draw.choice((gzip.compress, bz2.compress, lzma.compress))
    if draw.random() < 0.5:
        return pack(damaged(draw, data, other))
    return damaged(draw, pack(data), b"")


@_or_its_bytes
def damaged_database(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage an SQLite file, or change a table of it."""
    if draw.random() < 0.3:
        return damaged(draw, data, other)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
        tables = [
            x
            for (x,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
        ]
        for _ in range(draw.randint(1, 4)):
            table = draw.choice(tables)
            columns = [
                x[1]
                for x in connection.execute(
                    f"PRAGMA table_info({table})"
                )
            ]
            connection.execute(
                f"UPDATE OR IGNORE {table} SET {draw.choice(columns)} = ?"
                " WHERE random() % 2",
                (draw.choice(_VALUES[:20]),),
            )
        connection.commit()
        return connection.serialize()


@_or_its_bytes
def damaged_tarball(draw: Draw, data: bytes, other: bytes) -> bytes:
    """Damage a tarball, or one member, whose checksum then fits."""
    if draw.random() < 0.4:
        return damaged(draw, data, other)
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(
            fileobj=buffer, mode="w", format=draw.choice((0, 1, 2))
        ) as new,
    ):
        members = old.getmembers()
        chosen = draw.randrange(len(members))
        for number, member in enumerate(members):
            content = b""
            if member.isreg():
                content = old.extractfile(member).read()  # type: ignore[union-attr]
            if number == chosen:
                _changed_member(draw, member)
            new.addfile(member, io.BytesIO(content))
    return buffer.getvalue()[:MOST_BYTES]


def _changed_member(draw: Draw, member: tarfile.TarInfo) -> None:
    names = (
        "../x", "/etc/x", "", "a/" * 300, "\n", "x\n- y", "-x", "qemu/\x1b",
        "qemu/link/x", "qemu/VERSION", "qemu/.git/config", ".",
    )  # fmt: skip
    match draw.randrange(4):
        case 0:
            member.name = draw.choice(names)
        case 1:
            member.type = draw.choice((*b"0123456789LKSx",)).to_bytes()
        case 2:
            member.linkname = draw.choice(names)
            member.type = draw.choice((tarfile.SYMTYPE, tarfile.LNKTYPE))
        case _:
            member.mode = draw.choice((0, 0o4777, 0o777, 0o100))
            member.mtime = draw.choice((0, 2**33, -1))
