# SPDX-License-Identifier: GPL-2.0-or-later
"""Small pieces of Markdown, and docstrings taken apart."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


class UndocumentedError(ValueError):
    """Raised when a name that users see has no documentation.

    :param names: All such names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(f"no documentation: {', '.join(names)}")


_SPECIAL = re.compile(r"([\\*_<>|\[\]$#])")
_PARAM = re.compile(r"^:param (?P<name>\w+):(?P<text>.*)$")


def escape(text: str) -> str:
    """Escape plain text for Markdown, except for code in backticks.

    :param text: One paragraph.
    """
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    return "".join(
        # reST's ``literal`` is `literal` in Markdown.
        part.replace("``", "`") if number % 2 else _SPECIAL.sub(r"\\\1", part)
        for number, part in enumerate(parts)
    )


def code(text: str) -> str:
    """Return a text as inline code."""
    return f"`{text}`"


def flow(text: str) -> str:
    """Join the lines of each paragraph, and escape the text."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(escape(" ".join(x.split())) for x in paragraphs)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table.

    :param header: The titles of the columns.
    :param rows: The cells in Markdown, each on one line.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(x.replace("\n", " ") for x in cells) + " |"
        for cells in lines
    )


def summary_of(cls: type) -> str:
    """Return the prose of a class's docstring, without its fields."""
    lines = inspect.cleandoc(cls.__dict__.get("__doc__") or "").splitlines()
    kept: list[str] = []
    for line in lines:
        if line.startswith(":"):
            break
        kept.append(line)
    return "\n".join(kept).strip()


def params_of(cls: type) -> dict[str, str]:
    """Collect the fields that a class and its bases document.

    :return: The text of each ``:param name:``, on one line.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        doc = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        name = ""
        for line in doc.splitlines():
            if match := _PARAM.match(line):
                name = match["name"]
                found[name] = match["text"].strip()
            elif name and line.startswith(" "):
                found[name] = f"{found[name]} {line.strip()}".strip()
            else:
                name = ""
    return found
