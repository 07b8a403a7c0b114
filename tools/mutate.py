#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Make mutants of the series, and see which of them the suite kills.

    tools/mutate.py make DIR     writes each mutant as a patch, and a list
    tools/mutate.py judge DIR    builds and runs what the list does not judge

In the functions that the series adds or changes, each statement of a block is
dropped, each one that calls something is doubled, and each two neighbours
change places.  Declarations, and what is below #ifdef, are left alone.  What
is moved keeps its line where it can, since assertions have line numbers: so a
mutant whose binary is that of the patched tree is known to be the same
program.
DIR/fates.csv is the list; 'judge' can be ended and started again.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import tree_sitter
import tree_sitter_c
from vfio_p2p.machine.files import write_whole
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.plans.runs import job_of
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import (
    TREE,
    Chosen,
    build_all,
    build_on_top,
    choose,
)
from vfio_p2p.plans.workshop import LOCAL
from vfio_p2p.progress import SILENT
from vfio_p2p.qemu import Build
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import apply_patches, load_mutants, parse_variant

LIST = "fates.csv"
RUNS = "runs"
KILLED = "killed"
NOT_JUDGED = "not judged"

PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_c.language()))
_PLAIN = "expression_statement"
_LEAVES = {"return_statement", "break_statement", "goto_statement"}
_STATEMENTS = {
    _PLAIN,
    *_LEAVES,
    "if_statement",
    "for_statement",
    "while_statement",
    "do_statement",
    "switch_statement",
}
_BLOCKS = {"compound_statement", "case_statement"}


@dataclass(frozen=True)
class Fate:
    """A mutant, and what has become of it.

    :param name: Its name, which is that of its file without ``.patch``.
    :param file: The file of QEMU that it changes.
    :param line: The first line that it changes there.
    :param text: What that line is.
    :param fate: ``killed``, ``survived``, ``same`` (its binary is that of the
        patched tree), ``not built`` or ``not judged`` (the infrastructure
        failed); empty before it was judged.
    :param scenario: The scenario that has killed it.
    :param rules: The rules that have.
    """

    name: str
    file: str
    line: int
    text: str
    fate: str = ""
    scenario: str = ""
    rules: str = ""


@dataclass(frozen=True)
class Span:
    """A statement.

    :param start: Where its text begins, in bytes.
    :param end: Where its text ends.
    :param kind: What it is to the parser.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Mutation:
    """One change of a file.

    :param how: ``drop``, ``double`` or ``swap``.
    :param function: The function that is changed.
    :param line: The first line that is changed, from 1.
    :param text: The whole file, changed.
    """

    how: str
    function: str
    line: int
    text: bytes


def functions(text: bytes) -> dict[str, tree_sitter.Node]:
    """Return the definitions of the functions of a file by their names.

    :param text: The file.
    """
    found = {}
    for node in PARSER.parse(text).root_node.children:
        if node.type == "function_definition":
            name = node
            while name.type != "identifier":
                inner = name.child_by_field_name("declarator")
                if inner is None:
                    break
                name = inner
            found[_text(name)] = node
    return found


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode(errors="replace")


def touched(before: bytes, after: bytes) -> list[str]:
    """Return the names of functions that are new or differ.

    :param before: The file without the series.
    :param after: The file with it.
    """
    old = functions(before)
    return [
        name
        for name, node in functions(after).items()
        if name not in old or _text(old[name]) != _text(node)
    ]


def blocks(node: tree_sitter.Node) -> Iterator[list[Span]]:
    """Yield the statements of each block of a function, in order.

    Declarations are left out, as what uses them would not compile.

    :param node: The function.
    """
    for child in node.children:
        yield from blocks(child)
    if node.type in _BLOCKS:
        spans: list[Span] = []
        loop: tree_sitter.Node | None = None
        for child in node.named_children:
            if loop and child.type == "compound_statement":
                # A macro that is a loop is to the parser a call without its
                # semicolon, and then a block.
                spans.append(
                    Span(loop.start_byte, child.end_byte, "for_statement")
                )
            elif child.type in _STATEMENTS and not _is_loop(child):
                spans.append(
                    Span(child.start_byte, child.end_byte, child.type)
                )
            loop = child if _is_loop(child) else None
        yield spans


def _is_loop(node: tree_sitter.Node) -> bool:
    return node.type == _PLAIN and not _text(node).endswith(";")


def mutations(text: bytes, function: str) -> Iterator[Mutation]:
    """Yield all mutations of a function.

    :param text: The file.
    :param function: The name of the function.
    """
    node = functions(text)[function]
    last = node.end_byte

    def made(how: str, start: int, end: int, new: bytes) -> Mutation:
        line = text.count(b"\n", 0, start) + 1
        return Mutation(
            how, function, line, text[:start] + new + text[end:]
        )

    for spans in blocks(node):
        for span in spans:
            old = text[span.start : span.end]
            # Nothing but a compiler's warning is behind the last statement.
            ends = not text[span.end : last].strip(b" \n}")
            if not (ends and span.kind == "return_statement"):
                yield made(
                    "drop", span.start, span.end,
                    b";" + b"\n" * old.count(b"\n"),
                )  # fmt: skip
            if span.kind == _PLAIN and b"(" in old:
                yield made(
                    "double", span.start, span.end,
                    old + b" " + b" ".join(old.split()),
                )  # fmt: skip
        for one, two in pairwise(spans):
            if one.kind in _LEAVES or two.kind in _LEAVES:
                continue
            yield made(
                "swap", one.start, two.end,
                text[two.start : two.end]
                + text[one.end : two.start]
                + text[one.start : one.end],
            )  # fmt: skip


def patch(path: str, before: bytes, after: bytes, subject: str) -> str:
    """Return a mutant as a patch.

    :param path: The file of QEMU.
    :param before: The file as it is.
    :param after: The file with the mutation.
    :param subject: What the mutation is.
    """
    lines = difflib.unified_diff(
        before.decode().splitlines(keepends=True),
        after.decode().splitlines(keepends=True),
        f"a/{path}",
        f"b/{path}",
    )
    return (
        f"Subject: [PATCH] mutant: {subject}\n\n---\n"
        f"diff --git a/{path} b/{path}\n{''.join(lines)}"
    )


def function_of(name: str) -> str:
    """Return the function that a mutant changes, as its name spells it.

    :param name: The name of the mutant.
    """
    return name.rsplit("-", 2)[0]


def make(chosen: Chosen, folder: Path) -> list[Fate]:
    """Write all mutants of a tree.

    :param chosen: The source and its base.
    :param folder: A folder, which need not exist.
    :return: The mutants, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = chosen.source
    variants = [
        parse_variant(chosen.base, x) for x in chosen.default_variants
    ]
    before, after = (apply_patches(source, x.patches) for x in variants)
    fates = []
    for path, text in sorted(after.items()):
        if text is None or not path.endswith(".c"):
            continue
        old = before.get(path) or source.read(path)
        lines = text.decode().splitlines()
        number: Counter[str] = Counter()
        for function in touched(old, text):
            for mutation in mutations(text, function):
                stem = f"{function}-{mutation.how}"
                number[stem] += 1
                name = f"{stem}-{number[stem]}".replace("_", "-")
                line = lines[mutation.line - 1].strip()
                subject = f"{mutation.how} '{line}' in {function}()"
                write_whole(
                    folder / f"{name}.patch",
                    patch(path, text, mutation.text, subject).encode(),
                )
                fates.append(Fate(name, path, mutation.line, line))
    return fates


def read_fates(folder: Path) -> list[Fate]:
    """Read the list of a folder.

    :param folder: The folder of 'make'.
    """
    with (folder / LIST).open(newline="") as file:
        return [
            Fate(**{**row, "line": int(row["line"])})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]


def write_fates(folder: Path, fates: Iterable[Fate]) -> None:
    """Write the list of a folder.

    :param folder: The folder of 'make'.
    :param fates: The mutants.
    """
    path = folder / LIST
    new = path.with_suffix(".new")
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, [x.name for x in fields(Fate)])
        writer.writeheader()
        writer.writerows(asdict(x) for x in fates)
    new.rename(path)


def scenarios_of(base: str, more: Iterable[str]) -> dict[str, Scenario]:
    """Return the scenarios that kill the mutants written by hand, and others.

    :param base: The name of the base.
    :param more: The names of the others.
    """
    names = [
        name
        for mutant in load_mutants()
        if mutant.base == base and not mutant.waits_for
        for name in mutant.scenarios
    ]
    # What kills many is tried first.
    often = [name for name, _ in Counter(names).most_common()]
    return {name: load(name) for name in dict.fromkeys([*often, *more])}


def judge(
    chosen: Chosen,
    folder: Path,
    scenarios: Mapping[str, Scenario],
    setting: Setting,
    say: Callable[[str], None] = print,
) -> None:
    """Judge each mutant of a list that has no fate yet.

    :param chosen: The source and its base.
    :param folder: The folder of 'make'.
    :param scenarios: The scenarios to try, by name.
    :param setting: Where and how runs are made.
    :param say: Told of each fate.
    """
    tree = parse_variant(chosen.base, TREE)
    (plain,) = build_all(chosen.source, [tree], SILENT, LOCAL)
    scenarios = _passing(plain, scenarios, setting)
    fates = read_fates(folder)
    for index, fate in enumerate(fates):
        if fate.fate not in ("", NOT_JUDGED):
            continue
        path = str(folder / f"{fate.name}.patch")
        built = build_on_top(chosen, [path], SILENT, LOCAL)
        if path in built.failed:
            found = replace(fate, fate="not built")
        elif built.builds[path].sha256 == plain.sha256:
            found = replace(fate, fate="same")
        else:
            found = _tried(
                fate,
                built.builds[path],
                {x: scenarios[x] for x in _order(scenarios, fate, fates)},
                setting,
            )
        fates[index] = found
        write_fates(folder, fates)
        say(f"{found.name}: {found.fate} {found.scenario} {found.rules}")


def _passing(
    build: Build, scenarios: Mapping[str, Scenario], setting: Setting
) -> dict[str, Scenario]:
    """Return the scenarios, all of which must pass without a mutant."""
    cells = [
        Cell(job_of(build, x, setting.seed, LOCAL))
        for x in scenarios.values()
    ]
    found = {}
    for (name, scenario), result in zip(
        scenarios.items(), LOCAL.run(cells, setting, SILENT), strict=True
    ):
        match result.assessment.verdict:
            case Verdict.PASS:
                found[name] = scenario
            case Verdict.SKIP:
                pass
            case other:
                sys.exit(f"{name} must pass without a mutant: {other}")
    return found


def _order(
    scenarios: Iterable[str], fate: Fate, fates: Iterable[Fate]
) -> list[str]:
    """Sort scenarios: what killed mutants of the same function is first."""
    killed = [x for x in fates if x.fate == KILLED]
    everywhere = Counter(x.scenario for x in killed)
    here = Counter(
        x.scenario
        for x in killed
        if function_of(x.name) == function_of(fate.name)
    )
    return sorted(scenarios, key=lambda x: (-here[x], -everywhere[x]))


def _tried(
    fate: Fate,
    build: Build,
    scenarios: Mapping[str, Scenario],
    setting: Setting,
) -> Fate:
    """Run a mutant until a scenario has killed it.

    :param scenarios: The scenarios, in the order in which they are tried.
    """
    unjudged = ""
    for name, scenario in scenarios.items():
        cell = Cell(job_of(build, scenario, setting.seed, LOCAL))
        (result,) = LOCAL.run([cell], setting, SILENT)
        match result.assessment.verdict:
            case Verdict.FAIL:
                rules = {x.rule for x in result.assessment.findings}
                return replace(
                    fate,
                    fate=KILLED,
                    scenario=name,
                    rules=" ".join(sorted(rules)),
                )
            case Verdict.PASS | Verdict.SKIP:
                pass
            case _:
                unjudged = name
    return replace(
        fate, fate=NOT_JUDGED if unjudged else "survived",
        scenario=unjudged,
    )  # fmt: skip


def main() -> int:
    """Run this program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["make", "judge"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", help="the base; by default v10.0's")
    parser.add_argument("--source", type=Path, help="a tree or a tarball")
    parser.add_argument(
        "--scenario", action="append", default=[], help="try this one, too"
    )
    args = parser.parse_args()
    origin = Origin(base=args.base, source=args.source)
    chosen = choose(origin, SILENT, LOCAL)
    if args.what == "make":
        fates = make(chosen, args.folder)
        write_fates(args.folder, fates)
        print(f"{len(fates)} mutants are in {args.folder}")
        return 0
    judge(
        chosen,
        args.folder,
        scenarios_of(chosen.base.name, args.scenario),
        Setting(out=args.folder / RUNS),
    )
    counts = Counter(x.fate for x in read_fates(args.folder))
    print(", ".join(f"{count} {fate}" for fate, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
