# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios and latency profiles, by name or from a file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from vfio_p2p import resources
from vfio_p2p.errors import ScenarioError, UsageError
from vfio_p2p.scenario.case import Cases
from vfio_p2p.scenario.model import Scenario, check_format
from vfio_p2p.scenario.profile import Profile
from vfio_p2p.scenario.strict import TomlDocument, read

_LIBRARY = resources.resource("scenario", "library")


@cache
def _library() -> dict[str, tuple[Path, str]]:
    """By name: the file of a scenario, and its case in it, if it is one."""
    found = {path.stem: (path, "") for path in _LIBRARY.glob("*.toml")}
    for path in _LIBRARY.glob("cases/*.toml"):
        for scenario, case in _parse(read(path), path):
            found[scenario.name] = path, case
    return found


def names() -> list[str]:
    """Names of the scenarios that come with the tool."""
    return sorted(_library())


def load(what: str | Path) -> Scenario:
    """Read a scenario.

    :param what: Name of one that comes with the tool, or a file's path; of
        a file with cases ``PATH:CASE``.
    :raise UsageError: When there is neither.
    :raise ScenarioError: When the file is not a scenario.
    """
    path, case = _library().get(str(what), (Path(what), ""))
    if not path.exists():
        text, _, case = str(what).rpartition(":")
        path = Path(text)
    try:
        found = _parse(read(path), path)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            f"no scenario {str(what)!r}",
            f"give a file, or one of: {', '.join(names())}",
        ) from None
    for scenario, name in found:
        if name == case:
            return scenario
    cases = [name for _, name in found if name]
    raise UsageError(
        f"{path}: no case {case!r}" if case else f"{path} is all cases",
        f"give one of: {', '.join(f'{path}:{x}' for x in cases)}"
        if cases
        else "leave the colon out, and what follows: it has no cases",
    )


def profiles() -> list[str]:
    """Names of the latency profiles that come with the tool."""
    return sorted(path.stem for path in _profiles().glob("*.toml"))


def load_profile(what: str | Path) -> Profile:
    """Read a latency profile.

    :param what: Name of one that comes with the tool, or a file's path.
    :raise UsageError: When there is neither.
    :raise ScenarioError: When the file is not a profile.
    """
    path = Path(what)
    if str(what) in profiles():
        path = _profiles() / f"{what}.toml"
    try:
        data = read(path)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            f"no profile {str(what)!r}",
            f"give a file, or one of: {', '.join(profiles())}",
        ) from None
    return _known(data, path).convert(Profile)


def _profiles() -> Path:
    return resources.images() / "p2psim" / "profiles"


def parse(data: bytes, path: Path | str) -> tuple[Scenario, ...]:
    """Decode the text of a scenario, or of one with cases.

    :param path: Where it is from, for messages.
    :return: One for each case; without any, that one.
    :raise ScenarioError: When it is not a scenario.
    """
    return tuple(scenario for scenario, _ in _parse(data, path))


def _parse(
    data: bytes, path: Path | str
) -> list[tuple[Scenario, str]]:
    """All scenarios in a file, each with the name of its case, if any."""
    file = _known(data, path)
    scenario = _filled_in(file.convert(Scenario, "cases"), file)
    if "cases" not in file.tree:
        return [(scenario, "")]
    made: list[tuple[Scenario, str]] = []
    cases = {"cases": file.tree["cases"]}
    found = TomlDocument(path, file.text, cases).convert(Cases).cases
    for number, case in enumerate(found):
        keys: list[str | int] = ["cases", number]
        if case.name in [name for _, name in made]:
            raise file.wrong([*keys, "name"], "another case has it")
        try:
            made.append((case.of(scenario), case.name))
        except ValueError as err:
            raise file.wrong(keys, str(err)) from None
    return made


def _known(data: bytes, path: Path | str) -> TomlDocument:
    """A file of a format that we know."""
    file = TomlDocument.of(data, path)
    try:
        check_format(file.tree.get("format", 1))
    except ValueError as err:
        raise file.wrong(["format"], str(err)) from None
    return file


def _filled_in(scenario: Scenario, file: TomlDocument) -> Scenario:
    """With what the profiles say that its devices name."""
    devices = list(scenario.devices)
    for number, device in enumerate(devices):
        if not device.profile:
            continue
        try:
            devices[number] = load_profile(device.profile).of(device)
        except (UsageError, ScenarioError, ValueError) as err:
            hint = f"; {err.hint}" if isinstance(err, UsageError) else ""
            keys: list[str | int] = ["devices", number, "profile"]
            raise file.wrong(keys, f"{err}{hint}") from None
    return msgspec.structs.replace(scenario, devices=tuple(devices))
