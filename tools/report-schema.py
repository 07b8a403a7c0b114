# SPDX-License-Identifier: GPL-2.0-or-later
"""Print docs/report.schema.json, the JSON Schema of a report."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import msgspec
from vfio_p2p.report.document import Document

_PARAM = re.compile(r"^:param (\w+): ", re.MULTILINE)


def _described(values: dict[str, Any]) -> dict[str, Any]:
    """Add descriptions to a schema, taken from the docstrings."""
    text = values.get("description")
    if not isinstance(text, str):
        return values
    text, *params = _PARAM.split(inspect.cleandoc(text))
    values["description"] = _flowing(text)
    properties = values.get("properties", {})
    for name, said in zip(params[::2], params[1::2], strict=True):
        if name in properties:
            properties[name]["description"] = _flowing(said)
    return values


def _flowing(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    schema = json.dumps(msgspec.json.schema(Document))
    print(json.dumps(json.loads(schema, object_hook=_described), indent=1))
