# SPDX-License-Identifier: GPL-2.0-or-later
"""Kits are kept in the cache, and made again when they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p.errors import UsageError
from vfio_p2p.places.sealed.kit import Kit, stored_kit

PACKAGES = {"linux-image-6.1.0-1-amd64": "6.1"}


def make(folder: Path) -> dict[str, str]:
    (folder / "root").mkdir()
    return PACKAGES


def never(folder: Path) -> dict[str, str]:
    pytest.fail("it is made again")


def kit() -> Kit:
    return stored_kit("some kit", make)


def test_a_kit_is_made_once() -> None:
    assert kit().release == "6.1.0-1-amd64"
    assert stored_kit("some kit", never) == kit()


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"a": 1}', b"\xff", None])
def test_a_damaged_kit_is_made_again(damage: bytes | None) -> None:
    listing = kit().path / "packages.json"
    if damage is None:
        listing.unlink()
    else:
        listing.write_bytes(damage)
    assert kit().packages == PACKAGES
    assert stored_kit("some kit", never) == kit()


def test_a_kit_of_a_newer_version_is_left_alone() -> None:
    listing = kit().path / "packages.json"
    listing.write_text('{"format": 1, "packages": []}')
    with pytest.raises(UsageError, match="a newer vfio-p2p") as caught:
        stored_kit("some kit", never)
    assert "XDG_CACHE_HOME" in caught.value.hint
    assert listing.read_text() == '{"format": 1, "packages": []}'
