# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: what it is made of, and how it answers."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_p2p import resources
from vfio_p2p.agent import main as entry
from vfio_p2p.agent.failure import SKIP, AgentError
from vfio_p2p.machine.agent_zip import agent_zip

MODULES = sorted(resources.resource("agent").rglob("*.py"))
# Keywords of dataclass() and zip() that Python 3.9 does not have.
NEWER = {"slots", "kw_only", "strict"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names of all modules that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (x.name for x in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield str(node.module)


@pytest.mark.parametrize("path", MODULES, ids=lambda x: x.name)
def test_python_3_9_can_run_it(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            assert node.arg not in NEWER, ast.unparse(node)
    annotated = any(
        isinstance(x, (ast.FunctionDef, ast.AnnAssign))
        for x in ast.walk(tree)
    )
    if annotated:
        assert "from __future__ import annotations" in path.read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda x: x.name)
def test_it_needs_the_standard_library_only(path: Path) -> None:
    for name in imports(ast.parse(path.read_text())):
        ours = f"{name}.".startswith("vfio_p2p.agent.")
        assert ours or name.split(".")[0] in sys.stdlib_module_names, name


def test_the_zip_file_runs_alone(tmp_path: Path) -> None:
    assert agent_zip() == agent_zip()
    file = tmp_path / "agent.pyz"
    file.write_bytes(agent_zip())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(file), "nothing"],
        cwd=tmp_path,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["error"] == (
        "there is no command 'nothing'"
    )


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (AgentError("it is taken", "Wait.", SKIP), 4, "it is taken"),
        (FileNotFoundError(2, "Gone", "/f"), 5, "/f: Gone"),
        (KeyError("x"), 5, "a mistake in the agent: KeyError('x')"),
    ],
)
def test_errors_are_answers(
    error: Exception,
    code: int,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(arguments: list[str], roots: object) -> None:
        raise error

    failing = types.ModuleType("failing")
    monkeypatch.setattr(failing, "run", fail, raising=False)
    monkeypatch.setitem(sys.modules, "failing", failing)
    monkeypatch.setitem(entry.COMMANDS, "fail", "failing")
    assert entry.main(["fail"]) == code
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert err == ""
    assert set(answer) == {"error", "hint"}
    assert answer["error"] == what
