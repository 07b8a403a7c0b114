# SPDX-License-Identifier: GPL-2.0-or-later
"""Load scenarios and latency profiles by name or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from vfio_p2p import resources
from vfio_p2p.errors import ScenarioError, UsageError
from vfio_p2p.names import suggest
from vfio_p2p.scenario.case import Cases
from vfio_p2p.scenario.model import Scenario, check_format
from vfio_p2p.scenario.positions import Key, line_of
from vfio_p2p.scenario.profile import Profile
from vfio_p2p.scenario.strict import TomlDocument, read

_LIBRARY = resources.resource("scenario", "library")


@cache
def _alone() -> dict[str, tuple[Path, str]]:
    """Return the files that have one scenario, by its name."""
    return {path.stem: (path, "") for path in _LIBRARY.glob("*.toml")}


@cache
def _cases() -> dict[str, tuple[Path, str]]:
    """Return the file and the case of each other scenario, by its name."""
    return {
        scenario.name: (path, case)
        for path in _LIBRARY.glob("cases/*.toml")
        for scenario, case in _parse(read(path), path)
    }


def names() -> list[str]:
    """Return the names of the scenarios that come with the program."""
    return sorted({*_alone(), *_cases()})


def locate(what: str | Path) -> tuple[Path, str]:
    """Return the file of a scenario, and the name of its case, if any.

    :param what: The name of a scenario that comes with the program, the
        path of a file, or ``PATH:CASE``.
    :raise UsageError: When there is no such scenario or file.
    """
    name = str(what)
    # Files of cases have to be read before their names are known.
    path, case = (
        _alone().get(name) or _cases().get(name) or (Path(what), "")
    )
    if not path.exists():
        text, _, case = str(what).rpartition(":")
        path = Path(text)
    if not path.exists() or path.is_dir():
        raise UsageError(
            f"no scenario {str(what)!r}",
            suggest(str(what), names(), "vfio-p2p scenario list")
            + "  The path of a file will do as well.",
        )
    return path, case


def load(what: str | Path) -> Scenario:
    """Read a scenario.

    :param what: The name of a scenario that comes with the program, the
        path of a file, or ``PATH:CASE`` for a case in a file.
    :raise UsageError: When there is no such scenario, file or case.
    :raise ScenarioError: When the file is not a scenario.
    """
    path, case = locate(what)
    found = load_cases(path)
    if case in found:
        return found[case]
    if "" in found:
        raise UsageError(
            f"{path}: no case {case!r}",
            f"Give {path} alone: it contains one scenario and no cases.",
        )
    raise UsageError(
        f"{path}: no case {case!r}" if case else f"{path} defines only cases",
        f"Choose one as {path}:CASE.  {suggest(case, found)}",
    )


def wrong(
    what: str | Path, keys: Sequence[Key], why: str, hint: str
) -> ScenarioError:
    """Return the error for a value of a scenario that is wrong.

    :param what: The name or file of the scenario, as `load` takes it.
    :param keys: The path of keys and indices that leads to the value in a
        file without cases.
    :param why: What is wrong.
    :param hint: What the user can do about it.
    :raise UsageError: When there is no such scenario or file.
    """
    path, case = locate(what)
    file = TomlDocument.of(read(path), path)
    every = [x.get("name") for x in file.tree.get("cases", ())]
    paths: list[list[Key]] = [list(keys)]
    if case in every:
        # What a case says of its own comes before what its file says.
        own: list[Key] = ["cases", every.index(case)]
        paths = [
            own + list(keys),
            # Its capabilities and parameters are in no table [migration].
            own + list(keys[1:]),
            *paths,
            own,
        ]
    found = next((x for x in paths if file.has(x)), paths[-1])
    return ScenarioError(
        path,
        line_of(file.text, found),
        f"{'.'.join(map(str, found))}: {why}",
        hint,
    )


def load_cases(path: Path) -> dict[str, Scenario]:
    """Return the scenarios in a file by the names of their cases.

    :param path: The file.
    :return: The scenario of a file without cases is under the empty name.
    :raise ScenarioError: When the file is not a scenario.
    """
    return {case: scenario for scenario, case in _parse(read(path), path)}


def profiles() -> list[str]:
    """Return the names of the profiles that come with the program."""
    return sorted(path.stem for path in _profiles().glob("*.toml"))


def load_profile(what: str | Path) -> Profile:
    """Read a latency profile.

    :param what: The name of a profile that comes with the program, or the
        path of a file.
    :raise UsageError: When there is no such profile or file.
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
            suggest(str(what), profiles())
            + "  The path of a file will do as well.",
        ) from None
    return _known(data, path).convert(Profile)


def _profiles() -> Path:
    return resources.images() / "p2psim" / "profiles"


def parse(data: bytes, path: Path | str) -> tuple[Scenario, ...]:
    """Decode the contents of a scenario file.

    :param data: The contents.
    :param path: The path of the file, for messages.
    :return: One scenario for each case, or a single one without cases.
    :raise ScenarioError: When the file is not a scenario.
    """
    return tuple(scenario for scenario, _ in _parse(data, path))


def _parse(
    data: bytes, path: Path | str
) -> list[tuple[Scenario, str]]:
    """Return all scenarios in a file with the names of their cases."""
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
            raise file.wrong(
                [*keys, "name"], "another case has the same name"
            )
        try:
            made.append((case.of(scenario), case.name))
        except ValueError as err:
            raise file.wrong(keys, str(err)) from None
    return made


def _known(data: bytes, path: Path | str) -> TomlDocument:
    """Decode a file whose format is not newer than this program."""
    file = TomlDocument.of(data, path)
    try:
        check_format(file.tree.get("format", 1))
    except ValueError as err:
        raise file.wrong(["format"], str(err)) from None
    return file


def _filled_in(scenario: Scenario, file: TomlDocument) -> Scenario:
    """Return a scenario with the latencies of the profiles that it names."""
    devices = list(scenario.devices)
    for number, device in enumerate(devices):
        if not device.profile:
            continue
        try:
            devices[number] = load_profile(device.profile).of(device)
        except (UsageError, ScenarioError, ValueError) as err:
            hint = f".  {err.hint}" if isinstance(err, UsageError) else ""
            keys: list[str | int] = ["devices", number, "profile"]
            raise file.wrong(keys, f"{err}{hint}") from None
    return msgspec.structs.replace(scenario, devices=tuple(devices))
