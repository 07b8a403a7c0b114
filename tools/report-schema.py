# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints docs/report.schema.json, the schema of `vfio-p2p report` in JSON."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec
from vfio_p2p.report.document import Document


def _flow(values: dict[str, Any]) -> dict[str, Any]:
    """Docstrings as running text."""
    text = values.get("description")
    if isinstance(text, str):
        values["description"] = " ".join(inspect.cleandoc(text).split())
    return values


schema = json.dumps(msgspec.json.schema(Document))
print(json.dumps(json.loads(schema, object_hook=_flow), indent=1))
