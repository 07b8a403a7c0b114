# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host is, as users write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfio_p2p.errors import UsageError
from vfio_p2p.machine.ssh_address import SshAddress, parse_address


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("box", "box", "", None),
        ("box:22", "box", "", 22),
        ("root@box", "box", "root", None),
        ("root@box:65535", "box", "root", 65535),
        ("user@domain@box", "box", "user@domain", None),
        ("us:er@box:1", "box", "us:er", 1),
        ("10.0.0.1:2201", "10.0.0.1", "", 2201),
        ("::1", "::1", "", None),
        ("fe80::1%eth0", "fe80::1%eth0", "", None),
        ("root@::1", "::1", "root", None),
        ("[::1]", "::1", "", None),
        ("root@[fe80::1%eth0]:22", "fe80::1%eth0", "root", 22),
        ("box_1.exämple-x", "box_1.exämple-x", "", None),
        ("$(reboot);'\"", "$(reboot);'\"", "", None),
    ],
)
def test_places(text: str, host: str, user: str, port: int | None) -> None:
    assert parse_address(text) == SshAddress(host, user, port)


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "@box", "root@", ":22", "box:", "box:0", "box:65536",
        "box:x", "box:-1", "box:+1", "box:٢", "[]", "[::1", "::1]",
        "[::1]:", "[::1]x", "-oProxyCommand=x", "root@-x", "-x@box",
        "a box", "box\n", "\x00", "root @box", "[[::1]]",
    ],
)  # fmt: skip
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError, match="is no host") as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)
    assert "root@" in caught.value.hint


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_text_is_a_place_or_none(text: str) -> None:
    try:
        found = parse_address(text)
    except UsageError:
        return
    assert parse_address(str(found)) == found
    assert found.host
