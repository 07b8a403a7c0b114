# SPDX-License-Identifier: GPL-2.0-or-later
"""List the scenarios that come with the program, and show one as a file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from vfio_p2p.scenario import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.strict import read


@dataclass(frozen=True)
class ListedScenario:
    """A scenario that comes with the program.

    :param name: Its name.
    :param summary: Its summary, one line.
    :param file: The file that defines it.
    :param case: The name of its case in that file; empty if the file has no
                 cases.
    """

    name: str
    summary: str
    file: Path
    case: str


def list_scenarios() -> tuple[ListedScenario, ...]:
    """Return the scenarios that come with the program, sorted by name."""
    places = {name: load.locate(name) for name in load.names()}
    files = {path: load.load_cases(path) for path, _ in places.values()}
    return tuple(
        ListedScenario(name, files[path][case].summary, path, case)
        for name, (path, case) in places.items()
    )


def show(name: str) -> str:
    """Return a scenario as the text of a file that can be edited and run.

    A scenario that has a file of its own is returned as it is, with all
    comments.  A case is written out as if it had a file of its own.

    :param name: The name of a scenario that comes with the program, the
        path of a file, or ``PATH:CASE``.
    :raise UsageError: When there is no such scenario, file or case.
    :raise ScenarioError: When the file is not a scenario.
    """
    path, case = load.locate(name)
    if case:
        tree = _spelled_out(load.load(name))
        tree["devices"] = [_device(x) for x in tree["devices"]]
        return tomli_w.dumps(tree)
    data = read(path)
    load.parse(data, path)
    return data.decode()


def as_json(name: str) -> str:
    """Return a scenario as a JSON document, with all defaults spelled out.

    :param name: The name of a scenario that comes with the program, the
        path of a file, or ``PATH:CASE``.
    :raise UsageError: When there is no such scenario, file or case.
    :raise ScenarioError: When the file is not a scenario.
    """
    return load.load(name).to_json().decode()


def _spelled_out(value: Any) -> Any:
    """Return a scenario's values as TOML has them, without the defaults."""
    if isinstance(value, msgspec.Struct):
        tree: dict[str, Any] = {}
        config = value.__struct_config__
        if isinstance(value, Scenario):
            tree["format"] = value.format
        if config.tag_field is not None:
            tree[config.tag_field] = config.tag
        for field in msgspec.structs.fields(value):
            each = getattr(value, field.name)
            if each != field.default and each != _made(field):
                tree[field.encode_name] = _spelled_out(each)
        return tree
    if isinstance(value, dict):
        return {key: _spelled_out(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_spelled_out(each) for each in value]
    return value.value if isinstance(value, Enum) else value


def _made(field: msgspec.structs.FieldInfo) -> object:
    """Return the default that a field's factory makes, if it has one."""
    if field.default_factory is msgspec.NODEFAULT:
        return msgspec.NODEFAULT
    return field.default_factory()


def _device(tree: dict[str, Any]) -> dict[str, Any]:
    """Drop the profile of a device, whose latencies are all spelled out."""
    return {key: each for key, each in tree.items() if key != "profile"}
