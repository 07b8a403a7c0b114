# SPDX-License-Identifier: GPL-2.0-or-later
"""All formats of a report, by name.

Each renderer is a module with a function `render`.
"""

from __future__ import annotations

from typing import Protocol

from vfio_p2p.report import (
    html,
    junit,
    mail,
    markdown,
    perfetto,
    text,
)
from vfio_p2p.report.document import Document, to_json
from vfio_p2p.report.exports import bencher, github_action, kcidb, lava


class Renderer(Protocol):
    """Renders a document, and takes nothing else into account."""

    def __call__(self, document: Document, /) -> str:
        """Render a whole document, which ends with a line feed."""


def _prometheus(document: Document) -> str:
    # Importing its client takes as long as all others together.
    from vfio_p2p.report.exports import prometheus

    return prometheus.render(document)


#: Those that show a whole document.
REPORTS: dict[str, Renderer] = {
    "text": mail.render,
    "table": text.render,
    "html": html.render,
    "markdown": markdown.render,
    "junit": junit.render,
    "json": to_json,
    "perfetto": perfetto.render,
}

#: Those that take from it what a service keeps.
SERVICES: dict[str, Renderer] = {
    "bencher": bencher.render,
    "github-action": github_action.render,
    "lava": lava.render,
    "kcidb": kcidb.render,
    "prometheus": _prometheus,
}

FORMATS: dict[str, Renderer] = {**REPORTS, **SERVICES}


def render(name: str, document: Document) -> str:
    """Render a document.

    :param name: The name of a format.
    :param document: The document.
    """
    return FORMATS[name](document)
