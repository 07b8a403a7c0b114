# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cache keeps of builds is damaged, or of a newer version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from vfio_p2p.errors import UsageError
from vfio_p2p.qemu import Build, build, find_source
from vfio_p2p.series import Variant

pytestmark = pytest.mark.usefixtures("cache")


def make(tree: Path) -> Build:
    return build(find_source(tree, "10.0"), Variant("stock", ()))


@pytest.mark.parametrize("text", ["{", "[]", "\0" * 9])
def test_a_damaged_state_of_a_work_folder(
    cache: Path, tree: Path, text: str
) -> None:
    made = make(tree)
    (state,) = (cache / "work").glob("*/tree.json")
    state.write_text(text)
    shutil.rmtree(made.directory)
    assert make(tree).sha256 == made.sha256


@pytest.mark.parametrize(
    "where", ["builds/*/build.json", "work/*/tree.json"]
)
def test_what_a_newer_version_has_made_is_left_alone(
    cache: Path, tree: Path, where: str
) -> None:
    made = make(tree)
    (path,) = cache.glob(where)
    path.write_text('{"format": 99}')
    if path.name == "tree.json":
        shutil.rmtree(made.directory)
    with pytest.raises(UsageError, match="a newer vfio-p2p") as caught:
        make(tree)
    assert str(path) in caught.value.what
    assert path.read_text() == '{"format": 99}'
