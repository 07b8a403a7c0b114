# SPDX-License-Identifier: GPL-2.0-or-later
"""A unit test is a function too: the same examples in every run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadline: a loaded machine must not make a test fail.
settings.register_profile("vfio-p2p", deadline=None, derandomize=True)
settings.load_profile("vfio-p2p")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield
