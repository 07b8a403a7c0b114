# SPDX-License-Identifier: GPL-2.0-or-later
"""What a preparation is asked for."""

from __future__ import annotations

import json
import pwd
import re
from dataclasses import dataclass
from typing import Any

from vfio_p2p.agent.failure import INPUT, AgentError
from vfio_p2p.agent.functions import checked_address
from vfio_p2p.agent.operations import checked_driver

FORMAT = 1

ESWITCH_MODES = ("legacy", "switchdev")

_KEYS = {
    "format", "pf", "count", "pfs", "vfs", "driver", "owner", "eswitch",
    "port_caps", "replace", "who",
}
_WORD = re.compile(r"[a-z0-9_]+")
_ID_LIMIT = 1 << 32
_HINT = "The request comes from a vfio-p2p of another version."


@dataclass(frozen=True)
class Preparation:
    """The virtual functions that are wanted, and how.

    :param driver: The driver that they are bound to.
    :param counts: Physical functions, with how many of their virtual ones
        are wanted.
    :param vfs: Virtual functions that are named.
    :param uid: The user who may open them; None changes no owner.
    :param gid: The group of that user.
    :param eswitch: The mode of the card's switch; None keeps it.
    :param port_caps: The port function caps, with their values.
    :param replace: Whether what is there may be taken away for a while.
    :param who: On whose behalf.
    """

    driver: str
    counts: tuple[tuple[str, int], ...] = ()
    vfs: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None
    eswitch: str | None = None
    port_caps: tuple[tuple[str, str], ...] = ()
    replace: bool = False
    who: str = ""

    def wish(self) -> dict[str, Any]:
        """Return what is wanted, to compare with another request."""
        return {
            "pfs": dict(self.counts),
            "vfs": list(self.vfs),
            "driver": self.driver,
            "uid": self.uid,
            "gid": self.gid,
            "eswitch": self.eswitch,
            "port_caps": dict(self.port_caps),
        }


def parse(text: bytes) -> Preparation:
    """Read a request.

    :raise AgentError: When it makes no sense.
    """
    try:
        document = json.loads(text)
    except ValueError as err:
        raise _wrong("not JSON") from err
    if not isinstance(document, dict):
        raise _wrong("not a table")
    unknown = sorted(set(document) - _KEYS)
    if unknown:
        raise _wrong(f"unknown key {unknown[0]!r}")
    if document.get("format") != FORMAT:
        raise _wrong(f"format {document.get('format')!r}")
    counts = _counts(document)
    vfs = _vfs(document.get("vfs", []))
    if not counts and not vfs:
        raise AgentError(
            "the request names no functions",
            "Name a physical function and a count, or virtual functions.",
            INPUT,
        )
    uid, gid = _owner(document.get("owner"))
    eswitch = document.get("eswitch")
    if eswitch is not None and eswitch not in ESWITCH_MODES:
        raise AgentError(
            f"there is no eswitch mode {eswitch!r}",
            f"The modes are {' and '.join(ESWITCH_MODES)}.",
            INPUT,
        )
    return Preparation(
        driver=checked_driver(document.get("driver")),
        counts=counts,
        vfs=vfs,
        uid=uid,
        gid=gid,
        eswitch=eswitch,
        port_caps=_caps(document.get("port_caps", {})),
        replace=document.get("replace", False) is True,
        who=str(document.get("who", "")),
    )


def _wrong(why: str) -> AgentError:
    return AgentError(f"the request is wrong: {why}", _HINT, INPUT)


def _counts(document: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    given = document.get("pfs", {})
    if not isinstance(given, dict):
        raise _wrong("'pfs' is not a table of counts")
    # One physical function may be given without the table.
    if "pf" in document:
        given = {**given, document["pf"]: document.get("count")}
    elif "count" in document:
        raise _wrong("'count' without 'pf'")
    for count in given.values():
        if type(count) is not int or count < 1:
            raise AgentError(
                f"not a number of virtual functions: {count!r}",
                "The number is 1 or more.",
                INPUT,
            )
    return tuple(
        sorted((checked_address(pf), count) for pf, count in given.items())
    )


def _vfs(vfs: Any) -> tuple[str, ...]:
    if not isinstance(vfs, list):
        raise _wrong("'vfs' is not a list of addresses")
    return tuple(dict.fromkeys(checked_address(x) for x in vfs))


def _owner(owner: Any) -> tuple[int | None, int | None]:
    if owner is None:
        return None, None
    if isinstance(owner, dict) and isinstance(owner.get("user"), str):
        try:
            found = pwd.getpwnam(owner["user"])
        except KeyError as err:
            raise AgentError(
                f"there is no user {owner['user']!r} on the host",
                "Name a user who exists there.",
                INPUT,
            ) from err
        return found.pw_uid, found.pw_gid
    if not isinstance(owner, dict) or set(owner) != {"uid", "gid"}:
        raise _wrong("'owner' has no uid and gid, and no user")
    for number in owner.values():
        if type(number) is not int or not 0 <= number < _ID_LIMIT - 1:
            raise _wrong(f"{number!r} is not the number of a user or group")
    return owner["uid"], owner["gid"]


def _caps(caps: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(caps, dict):
        raise _wrong("'port_caps' is not a table")
    for pair in caps.items():
        for word in pair:
            if not isinstance(word, str) or not _WORD.fullmatch(word):
                raise AgentError(
                    f"not a port function cap or its value: {word!r}",
                    "A cap is set as in 'migratable=enable'.",
                    INPUT,
                )
    return tuple(sorted(caps.items()))
