# SPDX-License-Identifier: GPL-2.0-or-later
"""A Sphinx extension that writes the references from the code.

A line ``<!-- generated: NAME -->`` in a page is replaced by the Markdown
that the function NAME in `GENERATORS` returns.  Nothing generated is kept
in the repository, so it cannot differ from the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import (
    bearing_reference,
    command_reference,
    defect_reference,
    hosts_reference,
    rule_reference,
    scenario_reference,
)

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

GENERATORS: dict[str, Callable[[], str]] = {
    "bearings": bearing_reference.render,
    "commands": command_reference.render,
    "findings": defect_reference.render,
    "hosts-drivers": hosts_reference.render_drivers,
    "hosts-keys": hosts_reference.render_keys,
    "profile-keys": scenario_reference.render_profile,
    "rules": rule_reference.render,
    "scenario-cases": scenario_reference.render_cases,
    "scenario-keys": scenario_reference.render_keys,
    "scenario-library": scenario_reference.render_library,
    "scenario-steps": scenario_reference.render_steps,
    "scenario-words": scenario_reference.render_words,
}

_MARK = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)


def fill_in(text: str) -> str:
    """Replace the marks in a page.

    :param text: The page, in Markdown.
    :raise ValueError: When there is no such generator, or when something
        that it describes has no documentation.
    """

    def generate(mark: re.Match[str]) -> str:
        if mark[1] not in GENERATORS:
            raise ValueError(
                f"no generator {mark[1]!r}; there are "
                f"{', '.join(sorted(GENERATORS))}"
            )
        return GENERATORS[mark[1]]()

    return _MARK.sub(generate, text)


def _on_source_read(app: Sphinx, page: str, source: list[str]) -> None:
    try:
        source[0] = fill_in(source[0])
    except ValueError as err:
        # Only the unit tests import this module without Sphinx.
        from sphinx.errors import ExtensionError

        raise ExtensionError(f"{page}: {err}") from err


def _on_outdated(
    app: Sphinx,
    env: BuildEnvironment,
    added: set[str],
    changed: set[str],
    removed: set[str],
) -> set[str]:
    """Read pages with marks again, since the code may have changed."""
    return {
        page
        for page in env.found_docs
        if _MARK.search(env.doc2path(page).read_text())
    }


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("env-get-outdated", _on_outdated)
    app.connect("source-read", _on_source_read)
    return {"parallel_read_safe": True}
