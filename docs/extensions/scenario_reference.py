# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference of scenario files and profiles, from their models.

Types, bounds and defaults are those that msgspec enforces; the meaning of a
key is its ``:param NAME:`` in the docstring of its class.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect
from vfio_p2p.scenario.case import Cases
from vfio_p2p.scenario.load import load, names
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.profile import Profile

from .pages import (
    UndocumentedError,
    code,
    escape,
    flow,
    params_of,
    summary_of,
    table,
)

Struct = type[msgspec.Struct]

# The places where a class is used: the headings of its tables in the file.
Places = dict[Struct, list[str]]

_TOP = "The top of the file"

# A key with more words than this refers to the section that lists them.
_MOST_WORDS = 4


def render_keys() -> str:
    """A section for each table that a scenario file can have."""
    return tables(Scenario)


def render_cases() -> str:
    """A section for each table that only a file with cases has."""
    return tables(Cases, without=_structs(Scenario))


def render_profile() -> str:
    """A section for each table of a profile."""
    return tables(Profile)


def render_steps() -> str:
    """A section for each step."""
    steps = _steps(Scenario)
    _check(steps)
    return "\n\n".join(
        f"### {step.__struct_config__.tag}\n\n{_described(step)}"
        for step in steps
    )


def render_words() -> str:
    """A section for each set of words that a key takes."""
    words = list(
        dict.fromkeys(
            word
            for root in (Scenario, Cases)
            for struct in (*_structs(root), *_steps(root))
            for field in _info(struct).fields
            for word in _enums(field.type)
        )
    )
    missing = [x.__name__ for x in words if not summary_of(x)]
    if missing:
        raise UndocumentedError(missing)
    return "\n\n".join(_word(word) for word in words)


def render_library() -> str:
    """A table of the scenarios that come with the tool."""
    scenarios = [load(name) for name in names()]
    missing = [x.name for x in scenarios if not x.summary]
    if missing:
        raise UndocumentedError(f"scenario {name}" for name in missing)
    return table(
        ("name", "what happens"),
        ((code(x.name), escape(x.summary)) for x in scenarios),
    )


def undocumented(classes: Iterable[Struct]) -> list[str]:
    """Find the parts of some classes that have no documentation.

    :return: A name for each class without a docstring, and for each field
        without a ``:param``.
    """
    missing = []
    for cls in classes:
        if not summary_of(cls):
            missing.append(cls.__name__)
        said = params_of(cls)
        missing += [
            f"{cls.__name__}.{field.name}"
            for field in _info(cls).fields
            if not said.get(field.name)
        ]
    return missing


def _check(classes: Iterable[Struct]) -> None:
    if missing := undocumented(classes):
        raise UndocumentedError(missing)


def _info(cls: Struct) -> inspect.StructType:
    found = inspect.type_info(cls)
    assert isinstance(found, inspect.StructType)
    return found


# --- models --------------------------------------------------------------


def _parts(of: inspect.Type) -> tuple[inspect.Type, ...]:
    """Return the types that a type is made of, one level down."""
    match of:
        case inspect.VarTupleType() | inspect.ListType():
            return (of.item_type,)
        case inspect.DictType():
            return (of.key_type, of.value_type)
        case inspect.UnionType():
            return of.types
    return ()


def _enums(of: inspect.Type) -> Iterator[type[enum.Enum]]:
    if isinstance(of, inspect.EnumType):
        yield of.cls
    for part in _parts(of):
        yield from _enums(part)


def _all_structs(of: inspect.Type, path: str) -> Iterator[tuple[Struct, str]]:
    """Return every struct in a type, with the heading of its table."""
    match of:
        case inspect.StructType():
            yield of.cls, f"[{path}]" if path else _TOP
            for field in of.fields:
                name = field.encode_name
                below = f"{path}.{name}" if path else name
                yield from _all_structs(field.type, below)
        case inspect.VarTupleType() | inspect.ListType():
            for cls, heading in _all_structs(of.item_type, path):
                own = heading == f"[{path}]"
                yield cls, f"[{heading}]" if own else heading
        case inspect.DictType():
            yield from _all_structs(of.value_type, f"{path}.NAME")
        case inspect.UnionType():
            for each in of.types:
                yield from _all_structs(each, path)


def _places(root: Struct) -> Places:
    found: Places = {}
    for cls, heading in _all_structs(_info(root), ""):
        headings = found.setdefault(cls, [])
        if heading not in headings:
            headings.append(heading)
    return found


def _is_step(cls: Struct) -> bool:
    return cls.__struct_config__.tag is not None


def _structs(root: Struct) -> list[Struct]:
    return [cls for cls in _places(root) if not _is_step(cls)]


def _steps(root: Struct) -> list[Struct]:
    return [cls for cls in _places(root) if _is_step(cls)]


# --- Markdown ------------------------------------------------------------


def tables(root: Struct, without: Iterable[Struct] = ()) -> str:
    """Return a section for each table that a file can have.

    :param root: The model of the file.
    :param without: Models of tables that are left out.
    :raise UndocumentedError: When a key has no documentation.
    """
    shown = [cls for cls in _structs(root) if cls not in set(without)]
    _check(shown)
    places = _places(root)
    return "\n\n".join(
        f"### {escape(_heading(places[cls]))}\n\n{_described(cls)}"
        for cls in shown
    )


def _heading(headings: list[str]) -> str:
    return ", ".join(headings)


def _described(cls: Struct) -> str:
    fields = _info(cls).fields
    said = params_of(cls)
    parts = [flow(summary_of(cls))]
    if fields:
        parts.append(
            table(
                ("key", "type", "default", "meaning"),
                (
                    (
                        code(field.encode_name),
                        type_text(field.type),
                        _default(field),
                        escape(said[field.name]),
                    )
                    for field in fields
                ),
            )
        )
    return "\n\n".join(parts)


def _word(word: type[enum.Enum]) -> str:
    values = ", ".join(code(str(x.value)) for x in word)
    return (
        f"### {word.__name__}\n\n{flow(summary_of(word))}\n\n"
        f"Values: {values}."
    )


def type_text(of: inspect.Type) -> str:
    """A type with its bounds, in words.

    :param of: The type, as msgspec sees it.
    """
    match of:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            name = "integer" if isinstance(of, inspect.IntType) else "number"
            return f"{name}{_bounds(of)}"
        case inspect.StrType():
            length = (
                f" of at most {of.max_length} characters"
                if of.max_length is not None
                else ""
            )
            if of.pattern:
                return f"text{length} that matches {_cell_code(of.pattern)}"
            if of.min_length:
                return f"text{length}, not empty"
            return f"text{length}"
        case inspect.EnumType():
            if len(of.cls) > _MOST_WORDS:
                return f"[{of.cls.__name__}](#{of.cls.__name__.lower()})"
            return " or ".join(code(str(x.value)) for x in of.cls)
        case inspect.LiteralType():
            return " or ".join(code(toml(x)) for x in of.values)
        case inspect.VarTupleType() | inspect.ListType():
            if _holds_steps(of.item_type):
                return "list of [steps](#steps)"
            length = ""
            if of.min_length:
                length = f", at least {of.min_length}"
            if of.max_length is not None:
                length += f", at most {of.max_length}"
            return f"list of: {type_text(of.item_type)}{length}"
        case inspect.DictType():
            return (
                f"table from {type_text(of.key_type)} "
                f"to {type_text(of.value_type)}"
            )
        case inspect.UnionType():
            types = [
                x for x in of.types if not isinstance(x, inspect.NoneType)
            ]
            if any(_holds_steps(x) for x in types):
                return "list of [steps](#steps)"
            return " or ".join(type_text(x) for x in types)
        case inspect.StructType():
            return "table"
    raise TypeError(f"no words for {of!r}")


def _holds_steps(of: inspect.Type) -> bool:
    if isinstance(of, inspect.StructType):
        return of.tag is not None
    return any(_holds_steps(part) for part in _parts(of))


def _bounds(of: inspect.IntType | inspect.FloatType) -> str:
    low, high = of.ge, of.le
    above, below = of.gt, of.lt
    words = []
    if low is not None and high is not None:
        return f", {_number(low)} to {_number(high)}"
    if above is not None:
        words.append(f"more than {_number(above)}")
    if low is not None:
        words.append(f"at least {_number(low)}")
    if below is not None:
        words.append(f"less than {_number(below)}")
    if high is not None:
        words.append(f"at most {_number(high)}")
    return f", {' and '.join(words)}" if words else ""


def _number(value: float) -> str:
    # Bounds such as 2^63 - 1 say more than their digits.
    for exponent in (63, 64):
        for offset in (0, -1):
            if abs(value) == (1 << exponent) + offset and value > 1 << 32:
                return f"2^{exponent}{' - 1' if offset else ''}"
            if value == -(1 << exponent):
                return f"-2^{exponent}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is field.default_factory is msgspec.NODEFAULT:
        return "the profile's"
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct) and value == type(value)():
        return "the table's defaults"
    text = toml(value)
    return {'""': "empty", "[]": "empty", "{}": "empty"}.get(
        text, _cell_code(text)
    )


def toml(value: Any) -> str:
    """Return a value as TOML writes it on one line.

    :param value: The value of a model's field.
    """
    match value:
        case enum.Enum():
            return toml(value.value)
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case tuple() | list():
            return f"[{', '.join(toml(x) for x in value)}]"
        case dict():
            inside = ", ".join(f"{k} = {toml(v)}" for k, v in value.items())
            return f"{{{inside}}}"
        case msgspec.Struct():
            config = value.__struct_config__
            keys = {config.tag_field: config.tag} if config.tag_field else {}
            for field in _info(type(value)).fields:
                own = getattr(value, field.name)
                if own != field.default:
                    keys[field.encode_name] = own
            return toml(keys)
    raise TypeError(f"no TOML for {value!r}")


def _cell_code(text: str) -> str:
    """Return code for a cell of a table, where a bar would end it."""
    return code(text.replace("|", r"\|"))
