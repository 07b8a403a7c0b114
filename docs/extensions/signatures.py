# SPDX-License-Identifier: GPL-2.0-or-later
"""A Sphinx extension that shows signatures of requests as one writes them.

Python shows all fields of a default that is a dataclass itself, among them
some that depend on the machine, such as its number of cores.
"""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def signature_of(cls: type) -> str:
    """The signature of a dataclass, with short defaults.

    :param cls: The class.
    """
    return f"({', '.join(_parameter(x) for x in _parameters(cls))})"


def _parameters(cls: type) -> list[inspect.Parameter]:
    return list(inspect.signature(cls).parameters.values())


def _parameter(of: inspect.Parameter) -> str:
    text = f"{of.name}: {inspect.formatannotation(of.annotation)}"
    text = text.replace("'", "")
    if of.default is inspect.Parameter.empty:
        return text
    return f"{text} = {_default(of.default)}"


def _default(value: object) -> str:
    """Return the value with only those fields that were set."""
    if not is_dataclass(value) or isinstance(value, type):
        text = repr(value)
        return "..." if text.startswith("<") else text
    usual = {x.name: x.default for x in _parameters(type(value))}
    given = [
        f"{name}={_default(getattr(value, name))}"
        for name, default in usual.items()
        if getattr(value, name) != default
        and not repr(default).startswith("<")
    ]
    return f"{type(value).__name__}({', '.join(given)})"


def _on_signature(
    app: Sphinx,
    what: str,
    name: str,
    found: object,
    options: Any,
    signature: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    if isinstance(found, type) and is_dataclass(found):
        return signature_of(found), returned
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", _on_signature)
    return {"parallel_read_safe": True}
