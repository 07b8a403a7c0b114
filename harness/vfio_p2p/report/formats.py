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


class Renderer(Protocol):
    """Renders a document, and takes nothing else into account."""

    def __call__(self, document: Document, /) -> str:
        """Render a whole document, which ends with a line feed."""


FORMATS: dict[str, Renderer] = {
    "text": mail.render,
    "table": text.render,
    "html": html.render,
    "markdown": markdown.render,
    "junit": junit.render,
    "json": to_json,
    "perfetto": perfetto.render,
}


def render(name: str, document: Document) -> str:
    """Render a document.

    :param name: The name of a format.
    :param document: The document.
    """
    return FORMATS[name](document)
