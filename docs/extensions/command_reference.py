# SPDX-License-Identifier: GPL-2.0-or-later
"""The command reference, from the parsers of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from vfio_p2p.cli.entry import COMMANDS, make_parser

from .pages import UndocumentedError, code, escape, flow

_WIDTH = 79


def parsers() -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Return the parser of each command, with the command's summary."""
    for name, summary in COMMANDS.items():
        for child, _ in _children(make_parser(name)):
            if child.prog.split()[-1] == name:
                yield child, summary


def render(
    commands: Iterable[tuple[argparse.ArgumentParser, str]] | None = None,
) -> str:
    """Return a section for each command, and for each of its actions.

    :param commands: Parsers with their summaries; by default those of
        `vfio-p2p`.
    :raise UndocumentedError: When a command or an option has no help.
    """
    commands = list(parsers() if commands is None else commands)
    if missing := sorted(_undocumented(commands)):
        raise UndocumentedError(missing)
    return "\n\n".join(
        part
        for each, summary in commands
        for part in _section(each, summary, 2)
    )


def _children(
    parent: argparse.ArgumentParser,
) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Return the actions of a command, each with its summary."""
    for action in parent._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {
                x.dest: x.help or "" for x in action._choices_actions
            }
            for name, child in action.choices.items():
                yield child, summaries.get(name, "")


def _arguments(
    of: argparse.ArgumentParser,
) -> Iterator[argparse.Action]:
    for action in of._actions:
        if not isinstance(
            action, argparse._SubParsersAction | argparse._HelpAction
        ) and action.help is not argparse.SUPPRESS:
            yield action


def _undocumented(
    commands: Iterable[tuple[argparse.ArgumentParser, str]],
) -> Iterator[str]:
    for each, summary in commands:
        if not (each.description or summary):
            yield each.prog
        for action in _arguments(each):
            if not action.help:
                yield f"{each.prog} {_name(each, action)}"
        yield from _undocumented(_children(each))


def _section(
    each: argparse.ArgumentParser, summary: str, level: int
) -> Iterator[str]:
    name = each.prog.removeprefix("vfio-p2p ")
    yield f"{'#' * level} {name}"
    sentence = f"{summary[:1].upper()}{summary[1:]}."
    yield _text(each, each.description or sentence)
    yield f"```text\n{_usage(each)}\n```"
    arguments = [
        f"{code(_name(each, action))}\n: {escape(_help(each, action))}"
        for action in _arguments(each)
    ]
    yield from arguments
    if each.epilog:
        yield _text(each, each.epilog)
    for child, below in _children(each):
        yield from _section(child, below, level + 1)


def _text(of: argparse.ArgumentParser, text: str) -> str:
    # argparse does the same: other texts may contain a percent sign.
    if "%(prog)" in text:
        text = text % {"prog": of.prog}
    if of.formatter_class is argparse.RawDescriptionHelpFormatter:
        return f"```text\n{text.strip()}\n```"
    return flow(text)


def _usage(of: argparse.ArgumentParser) -> str:
    formatter = _formatter(of)
    groups = of._mutually_exclusive_groups
    formatter.add_usage(of.usage, of._actions, groups)
    return formatter.format_help().strip()


def _name(of: argparse.ArgumentParser, action: argparse.Action) -> str:
    return _formatter(of)._format_action_invocation(action)


def _help(of: argparse.ArgumentParser, action: argparse.Action) -> str:
    return " ".join(_formatter(of)._expand_help(action).split())


def _formatter(of: argparse.ArgumentParser) -> argparse.HelpFormatter:
    """Return a formatter of a fixed width, for any terminal."""
    return argparse.HelpFormatter(of.prog, width=_WIDTH)
