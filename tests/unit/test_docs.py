# SPDX-License-Identifier: GPL-2.0-or-later
"""README and docs: commands parse, links work, references are complete.

The generators of the references are tested here as well.  The site itself is
built by ``make docs``, with warnings as errors.
"""

from __future__ import annotations

import argparse
import importlib.util
import pkgutil
import re
import sys
import tomllib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated

import msgspec
import pytest
from doc_commands import blocks, commands, parses
from vfio_p2p import plans
from vfio_p2p.cli.entry import COMMANDS
from vfio_p2p.devices.vf.drivers import find_driver, load_drivers
from vfio_p2p.oracle import RULES
from vfio_p2p.places.hosts.config import parse_hosts
from vfio_p2p.scenario.load import parse

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    ROOT / "images" / "guest" / "README.md",
    ROOT / "images" / "p2psim" / "README.md",
)
_IDS = [str(page.relative_to(ROOT)) for page in PAGES]

_COLUMNS = 79
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(params=PAGES, ids=_IDS)
def page(request: pytest.FixtureRequest) -> Path:
    """Return each page in turn."""
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def generators() -> dict[str, ModuleType]:
    """The modules of docs/extensions, by name."""
    folder = DOCS / "extensions"
    spec = importlib.util.spec_from_file_location(
        "docs_extensions",
        folder / "__init__.py",
        submodule_search_locations=[str(folder)],
    )
    assert spec
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    return {
        path.stem: importlib.import_module(f"{spec.name}.{path.stem}")
        for path in folder.glob("[a-z]*.py")
    }


def test_commands_parse(page: Path) -> None:
    for arguments in commands(page.read_text()):
        parses(arguments)


def test_commands_are_found() -> None:
    found = list(commands((ROOT / "README.md").read_text()))
    assert len(found) > 4
    assert [
        "check", "source/trace.log", "--destination",
        "destination/trace.log", "--devices", "2", "--expect-p2p",
    ] in found
    with pytest.raises(pytest.fail.Exception, match="--nonsense"):
        parses(["run", "two-devices", "--nonsense"])
    with pytest.raises(pytest.fail.Exception, match="nonsense"):
        parses(["nonsense"])


def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        path = page.parent / target if target else page
        assert path.exists(), link
        if anchor and "generated:" not in path.read_text():
            assert anchor in _anchors(path.read_text()), link


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub and MyST make of headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }


def test_lines_are_short(page: Path) -> None:
    """Rows of tables, code and the output of commands are exempt."""
    text = page.read_text()
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for line in text.splitlines():
        if not line.startswith(("|", "    ")):
            assert len(line) <= _COLUMNS, line


def test_every_page_is_on_the_site() -> None:
    text = (DOCS / "index.md").read_text()
    trees = re.findall(r"```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)```", text, re.S)
    listed = [name for tree in trees for name in tree.split()]
    assert sorted([*listed, "index"]) == sorted(
        str(path.relative_to(DOCS).with_suffix(""))
        for path in DOCS.rglob("*.md")
    )


def test_scenarios_in_pages_are_valid() -> None:
    found = [
        parse(block.encode(), path)
        for path in DOCS.glob("*.md")
        for block in blocks(path.read_text())
        if block.lstrip().startswith("format = ") and "[host." not in block
    ]
    assert len(found) >= 2


def test_hosts_in_pages_are_valid() -> None:
    found = [
        parse_hosts(block.encode(), path)
        for path in DOCS.glob("*.md")
        for block in blocks(path.read_text())
        if block.lstrip().startswith("format = ") and "[host." in block
    ]
    assert [x.places for x in found] == [("box", "cx7-pair")]
    for file in found:
        for host in file.host.values():
            find_driver(host.driver)


def test_every_plan_is_documented() -> None:
    text = (DOCS / "python-api.md").read_text()
    documented = re.findall(r"automodule:: (\S+)", text)
    for module in pkgutil.walk_packages(plans.__path__, "vfio_p2p.plans."):
        if module.ispkg or module.name.endswith("__main__"):
            continue
        requests = [
            name
            for name, value in vars(
                importlib.import_module(module.name)
            ).items()
            if name.endswith("Request")
            and getattr(value, "__module__", "") == module.name
        ]
        if requests:
            assert module.name in documented


def test_the_newest_version_is_described() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = (DOCS / "changes.md").read_text()
    newest = re.findall(r"^## (\S+)$", text, re.M)[0]
    assert newest == package["project"]["version"]


# --- the generators ------------------------------------------------------


def test_all_marks_can_be_filled_in(
    generators: dict[str, ModuleType],
) -> None:
    generated = generators["generated"]
    used = []
    for path in DOCS.glob("*.md"):
        text = path.read_text()
        used += re.findall(r"^<!-- generated: (\S+) -->$", text, re.M)
        assert "<!-- generated" not in generated.fill_in(text)
    assert sorted(used) == sorted(generated.GENERATORS)


def test_unknown_mark(generators: dict[str, ModuleType]) -> None:
    with pytest.raises(ValueError, match="'nothing'"):
        generators["generated"].fill_in("<!-- generated: nothing -->")


class _Colour(StrEnum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class _Nested(msgspec.Struct, frozen=True, kw_only=True):
    """A nested table.

    :param size_bytes: A size,
        which has two lines.
    """

    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=8)] = 2


class _Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A file.

    It has a second paragraph, with a ``literal`` and a | bar.

    :param name: A name.
    :param colour: A colour.
    :param nested: Tables.
    :param ratio: A ratio.
    :param rest: More tables.
    """

    name: Annotated[str, msgspec.Meta(pattern="^(a|b)$")]
    colour: _Colour | None = None
    nested: Annotated[tuple[_Nested, ...], msgspec.Meta(min_length=1)]
    ratio: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    rest: dict[str, _Nested] = {}


class _Bare(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose field has no documentation."""

    nested: _Nested = _Nested()
    silent: int = 0


def test_reference_of_a_model(generators: dict[str, ModuleType]) -> None:
    text = generators["scenario_reference"].tables(_Whole)
    assert text.splitlines() == [
        "### The top of the file",
        "",
        "A file.",
        "",
        r"It has a second paragraph, with a `literal` and a \| bar.",
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
        r"| `name` | text that matches `^(a\|b)$` | required | A name. |",
        "| `colour` | `red` or `blue` | none | A colour. |",
        "| `nested` | list of: table, at least 1 | required | Tables. |",
        "| `ratio` | number, more than 0 | `0.5` | A ratio. |",
        "| `rest` | table from text to table | empty | More tables. |",
        "",
        r"### \[\[nested\]\], \[rest.NAME\]",
        "",
        "A nested table.",
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
        "| `size_bytes` | integer, 1 to 8 | `2` "
        "| A size, which has two lines. |",
    ]


def test_field_without_documentation(
    generators: dict[str, ModuleType],
) -> None:
    undocumented = generators["pages"].UndocumentedError
    with pytest.raises(undocumented) as caught:
        generators["scenario_reference"].tables(_Bare)
    assert str(caught.value) == (
        "no documentation: _Bare.nested, _Bare.silent"
    )


def test_every_key_of_a_scenario_is_in_the_reference(
    generators: dict[str, ModuleType],
) -> None:
    text = generators["scenario_reference"].render_keys()
    for key in ("size_bytes", "dirty_pages_per_s", "breaks", "since"):
        assert f"| `{key}` |" in text
    steps = generators["scenario_reference"].render_steps()
    for step in ("migrate", "wait", "turn", "loadvm"):
        assert f"### {step}\n" in steps


def test_every_key_of_hosts_is_in_the_reference(
    generators: dict[str, ModuleType],
) -> None:
    text = generators["hosts_reference"].render_keys()
    for key in ("sudo", "known_hosts", "count", "vfs", "link", "repeat"):
        assert f"| `{key}` |" in text
    assert r"### \[pair.NAME.link\]" in text
    assert "| `format` | `1` | required |" in text


def test_every_variant_driver_is_in_the_reference(
    generators: dict[str, ModuleType],
) -> None:
    text = generators["hosts_reference"].render_drivers()
    for name in load_drivers():
        assert f"| `{name}` |" in text
    assert "firmware 28.41.1000 or 32.41.1000" in text


def test_rule_without_source(generators: dict[str, ModuleType]) -> None:
    reference = generators["rule_reference"]
    assert reference.render().count("\n## ") == len(RULES)
    bare = replace(RULES[0], source="")
    with pytest.raises(ValueError, match=f"rule {bare.name}"):
        reference.render((bare, *RULES[1:]))


def test_every_command_is_in_the_reference(
    generators: dict[str, ModuleType],
) -> None:
    text = generators["command_reference"].render()
    for name in COMMANDS:
        assert f"## {name}\n" in text
    assert "`--variant V`\n: " in text
    assert "### series apply\n" in text


def test_option_without_help(generators: dict[str, ModuleType]) -> None:
    parser = argparse.ArgumentParser(prog="vfio-p2p run")
    parser.add_argument("--silent")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    with pytest.raises(ValueError, match="vfio-p2p run --silent") as caught:
        generators["command_reference"].render([(parser, "run it")])
    assert "--hidden" not in str(caught.value)


@dataclass(frozen=True)
class _Inner:
    number: int = 1
    other: int = field(default_factory=lambda: 7)


@dataclass(frozen=True)
class _Outer:
    name: str
    inner: _Inner = _Inner()
    more: _Inner = _Inner(number=2)
    way: Path = Path("out")
    colour: _Colour = _Colour.RED


def test_signature_of_a_request(generators: dict[str, ModuleType]) -> None:
    assert generators["signatures"].signature_of(_Outer) == (
        "(name: str, inner: _Inner = _Inner(), more: _Inner = "
        "_Inner(number=2), way: Path = PosixPath('out'), "
        "colour: _Colour = ...)"
    )
