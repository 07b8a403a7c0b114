# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMUs know, and scenarios that name what a QEMU does not know."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest
from vfio_p2p.cli import main
from vfio_p2p.errors import UsageError
from vfio_p2p.plans.lacking import lacks
from vfio_p2p.qemu.abilities import VFIO, Abilities, abilities_of, ask
from vfio_p2p.scenario.load import load, names, parse
from vfio_p2p.scenario.model import from_json
from workshops import FakeWorkshop

Capture = pytest.CaptureFixture[str]

KNOWS = Abilities(
    machines=frozenset({"q35", "pc-q35-10.0"}),
    capabilities=frozenset({"return-path", "multifd"}),
    parameters=frozenset({"multifd-channels"}),
    statuses=frozenset({"active", "completed"}),
    properties={
        VFIO: frozenset({"host", "migration-events"}),
        "migration": frozenset({"send-switchover-start"}),
        "nonesuch": frozenset(),
    },
)

# It answers as QEMU does: in order, and with what events are in between.
QEMU = """\
import json, sys
answers = json.load(open(sys.argv[0] + ".json"))
print(json.dumps({"QMP": {}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    name, values = asked["execute"], asked["arguments"]
    print(json.dumps({"event": "NOISE"}), flush=True)
    found = answers.get(values.get("typename", name), {"error": {}})
    print(json.dumps({"id": asked["id"], **found}), flush=True)
    open(sys.argv[0] + ".asked", "a").write(line)
    if name == "quit":
        break
"""
SCHEMA = [
    {"name": "migrate-set-parameters", "arg-type": "1"},
    {"name": "1", "members": [{"name": "multifd-channels"}]},
    {"name": "query-migrate", "ret-type": "2"},
    {"name": "2", "members": [{"name": "ram", "type": "4"},
                              {"name": "status", "type": "3"}]},
    {"name": "3", "values": ["active", "completed"]},
]  # fmt: skip
ANSWERS = {
    "qmp_capabilities": {"return": {}},
    "query-machines": {
        "return": [{"name": "pc-q35-10.0", "alias": "q35"}]
    },
    "query-migrate-capabilities": {
        "return": [{"capability": "multifd"}, {"capability": "return-path"}]
    },
    "query-qmp-schema": {"return": SCHEMA},
    "object-add": {
        "error": {"desc": "TLS credentials support requires GNUTLS"}
    },
    VFIO: {"return": [{"name": "host"}, {"name": "migration-events"}]},
    "migration": {"return": [{"name": "send-switchover-start"}]},
    "quit": {"return": {}},
}


def qemu(folder: Path, **others: object) -> list[str]:
    """Make a program that answers as a QEMU does."""
    path = folder / "qemu"
    path.write_text(QEMU)
    answers = {**ANSWERS, **others}
    (folder / "qemu.json").write_text(json.dumps(answers))
    return [sys.executable, str(path)]


def test_a_qemu_is_asked(tmp_path: Path) -> None:
    assert ask(qemu(tmp_path), [VFIO, "migration", "nonesuch"]) == KNOWS


def test_tls(tmp_path: Path) -> None:
    said = {"error": {"desc": "Unable to access credentials /nonexistent"}}
    assert ask(qemu(tmp_path, **{"object-add": said}), [VFIO]).tls
    assert not ask(qemu(tmp_path), [VFIO]).tls


def test_answers_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    argv = qemu(tmp_path)
    asked = tmp_path / "qemu.asked"
    first = abilities_of(argv, "a" * 64)
    assert first.properties.keys() == {VFIO}
    asked.unlink()
    assert abilities_of(argv, "a" * 64) == first
    assert not asked.exists()
    # Another program has another file; more types are asked for again.
    abilities_of(argv, "b" * 64)
    assert asked.exists()
    more = abilities_of(argv, "a" * 64, ["migration"])
    assert more.properties.keys() == {VFIO, "migration"}
    asked.unlink()
    assert abilities_of(argv, "a" * 64) == more
    assert not asked.exists()
    (kept,) = (tmp_path / "cache").rglob("a*.json")
    kept.write_text("{")
    assert abilities_of(argv, "a" * 64) == first
    for newer in '{"format": 99}', '{"format": 99, "machines": []}':
        kept.write_text(newer)
        assert abilities_of(argv, "a" * 64) == first
        assert kept.read_text() == newer


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"query-qmp-schema": {"return": []}}, "does not say"),
        ({"query-machines": {"error": {}}}, "does not say"),
    ],
)
def test_strange_answers(
    tmp_path: Path, said: dict[str, object], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        ask(qemu(tmp_path, **said), [VFIO])


def test_a_program_that_does_not_answer() -> None:
    with pytest.raises(UsageError, match="before it has answered"):
        ask([sys.executable, "-c", "import sys; sys.exit('no')"], [])
    with pytest.raises(UsageError, match="not found"):
        ask(["/nonexistent/qemu"], [])


def test_every_kind_of_name() -> None:
    text = """\
name = "x"
steps = [
    {do = "migrate"},
    {do = "wait", status = "active"},
    {do = "wait", status = "failing"},
]

[guest]
machine = "pc-q35-9.9"

[[devices]]

[[devices]]
properties = {migration-events = "on", x-one = "1"}

[properties]
x-every = "1"
host-name = "1"

[globals]
"migration.send-switchover-start" = "on"
"migration.legacy" = "on"
"nonesuch.x" = "1"

[migration]
capabilities = {multifd = true, zero = true}
parameters = {multifd-channels = 4, level = 1}
"""
    (scenario,) = parse(text.encode(), "x.toml")
    assert [(x.keys, x.name) for x in lacks(scenario, KNOWS)] == [
        (("guest", "machine"), "pc-q35-9.9"),
        (("properties", "x-every"), "x-every"),
        (("properties", "host-name"), "host-name"),
        (("devices", 1, "properties", "x-one"), "x-one"),
        (("globals", "migration.legacy"), "legacy"),
        (("globals", "nonesuch.x"), "nonesuch"),
        (("migration", "capabilities", "zero"), "zero"),
        (("migration", "parameters", "level"), "level"),
        (("steps", 2, "status"), "failing"),
    ]
    plain = load("two-devices")
    assert list(lacks(plain, KNOWS)) == []


FILE = """\
name = "mine"

[[devices]]
count = 2

[properties]
migration-event = "on"
"""


def test_the_line_of_a_name(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "x.toml"
    file.write_text(FILE)
    workshop.knows = KNOWS
    for words in (["run"], ["validate"], ["compare", "base", "patched"]):
        name = [str(file)]
        if words[0] in ("validate", "compare"):
            name.insert(0, "--scenario")
        assert main([*words, *name], workshop) == 2
        said = capsys.readouterr().err
        assert f"{file}:7: properties.migration-event: " in said
        assert "10.0.99 (" in said
        assert "Did you mean 'migration-events'?" in said
    assert workshop.ran == []
    file.write_text(FILE.replace("event ", "events "))
    assert main(["run", str(file)], workshop) == 0


def test_the_line_in_a_case(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "x.toml"
    file.write_text(
        FILE + '\n[[cases]]\nname = "a"\n\n[[cases]]\nname = "b"\n'
        'steps = [\n{do = "migrate"},\n{do = "wait", status = "failed"}]\n'
    )
    workshop.knows = msgspec.structs.replace(
        KNOWS,
        properties={**KNOWS.properties, VFIO: frozenset({"migration-event"})},
    )
    assert main(["run", f"{file}:b"], workshop) == 2
    assert f"{file}:16: cases.1.steps.1.status" in capsys.readouterr().err
    assert main(["run", f"{file}:a"], workshop) == 0
    workshop.knows = KNOWS
    assert main(["run", f"{file}:a"], workshop) == 2
    assert f"{file}:7: properties" in capsys.readouterr().err


def test_a_release_that_it_is_not_for(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "x.toml"
    (scenario,) = parse(f'since = "10.1"\n{FILE}'.encode(), file)
    ours, old = "QEMU emulator version 10.1.0", "QEMU emulator version 10.0"
    assert "10.1 and later" in scenario.not_for(old)
    assert scenario.not_for(ours) == ""
    assert scenario.not_for("a QEMU of one's own") == ""
    (scenario,) = parse(f'until = "10.0"\n{FILE}'.encode(), file)
    assert "10.0 and older" in scenario.not_for(ours)
    assert scenario.not_for(old) == ""
    # It is not looked at, as it will be skipped.
    workshop.knows = KNOWS
    file.write_text(f'until = "9.2"\n{FILE}')
    assert main(["run", str(file)], workshop) == 0
    file.write_text(f'since = "ten"\n{FILE}')
    assert main(["run", str(file)], workshop) == 2
    assert f"{file}:1: since: " in capsys.readouterr().err


def test_digests_stay() -> None:
    for name in names():
        scenario = load(name)
        kept = json.loads(scenario.to_json())
        for key in ("since", "until"):
            assert (key in kept) == bool(getattr(scenario, key)), name
        assert from_json(scenario.to_json()) == scenario
