# SPDX-License-Identifier: GPL-2.0-or-later
"""The project's pipeline and the examples of docs/ci.

What needs a YAML parser is skipped where there is none; ``make docs`` brings
one, and ``.ci/run`` and the pipeline make the documentation first.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_commands import parses
from scripts import ROOT

CI = ROOT / "docs" / "ci"
PIPELINE = ROOT / ".gitlab-ci.yml"
SCRIPTS = sorted(CI.glob("*.sh"))
YAML = (PIPELINE, *sorted(CI.glob("*.y*ml")))

_COMMAND = re.compile(
    r"(?:^|[\s'])(?:\S*/)?vfio-p2p ((?:[^\s#&|;>']|\s(?!#))+)"
)
# The number of a job, or how many there are.
_VARIABLE = re.compile(r"\$\{\{ matrix\.\w+ \}\}|\$CI_NODE_\w+")
_KEYWORDS = {"stages", "variables", "default"}


def _commands(path: Path) -> Iterator[list[str]]:
    """The arguments of each ``vfio-p2p`` command in a file."""
    texts = [path.read_text()]
    if path.suffix == ".yml":
        # Some of their lines are folded.
        texts = [*_texts(_load(path))]
    joined = "\n".join(texts).replace("\\\n", " ")
    for line in joined.splitlines():
        line = _VARIABLE.sub("1", line)
        if not line.lstrip().startswith(("#", "echo", "job_name")):
            for found in _COMMAND.findall(line):
                words = shlex.split(found)
                yield [x for x in words if x != "$@"]


def _texts(tree: Any) -> Iterator[str]:
    """The texts in a tree of lists and tables."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, list | dict):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(each)


def _load(path: Path) -> Any:
    return pytest.importorskip("yaml").safe_load(path.read_text())


def _jobs() -> dict[str, dict[str, Any]]:
    return {
        name: job
        for name, job in _load(PIPELINE).items()
        if name not in _KEYWORDS and not name.startswith(".")
    }


@pytest.mark.parametrize(
    ("path", "count"),
    [
        (".gitlab-ci.yml", 6),
        ("docs/ci/gitlab-pair.yml", 5),
        ("docs/ci/gitlab-tree.yml", 7),
        ("docs/ci/github-tree.yml", 9),
        ("docs/ci/labgrid-validate.sh", 3),
        ("docs/ci/lava-validate.sh", 5),
    ],
)
def test_commands_parse(path: str, count: int) -> None:
    found = list(_commands(ROOT / path))
    assert len(found) == count, found
    for arguments in found:
        parses(arguments)


def test_every_example_is_on_the_page() -> None:
    page = (CI / "index.md").read_text()
    for path in CI.iterdir():
        if path.name != "index.md" and path.is_file():
            assert f"({path.name})" in page
    for name, start in re.findall(
        r"\{literalinclude\} (\S+)\n(?::language: .*\n):start-at: \"(.*)\"",
        page,
    ):
        assert start in (CI / name).read_text(), name


@pytest.mark.parametrize("path", SCRIPTS, ids=[x.name for x in SCRIPTS])
def test_scripts_are_scripts(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith(
        "#!/bin/sh\n# SPDX-License-Identifier: GPL-2.0-or-later\n"
    )
    subprocess.run(["sh", "-n", str(path)], check=True)


@pytest.mark.parametrize("path", YAML, ids=[x.name for x in YAML])
def test_yaml_is_yaml(path: Path) -> None:
    assert path.read_text().startswith("# SPDX-License-Identifier: ")
    assert isinstance(_load(path), dict)


def test_the_pipeline_runs_targets_of_the_makefile() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):(?!=)", text, re.M))
    jobs = _jobs()
    assert set(jobs) >= {"unit", "functional", "lab", "hardware"}
    made: list[str] = []
    for name, job in jobs.items():
        lines = [x for x in job["script"] if x.startswith("make ")]
        assert lines, name
        made += [word for x in lines for word in x.split()[1:]]
    assert set(made) <= targets
    assert set(made) >= {"lint", "types", "docs", "unit", "functional", "lab"}


def test_the_pipeline_keeps_what_jobs_leave() -> None:
    for name, job in _jobs().items():
        kept = job["artifacts"]
        assert kept["when"] == "always", name
        report = kept["reports"]["junit"]
        assert any(
            report.startswith(path.split("*")[0]) for path in kept["paths"]
        ), name


@pytest.mark.parametrize("path", [PIPELINE, CI / "gitlab-pair.yml"])
def test_hardware_is_used_by_one_job_and_put_back(path: Path) -> None:
    jobs = _load(path)
    job = jobs["hardware" if path == PIPELINE else "pair"]
    assert job["tags"]
    assert job["resource_group"]
    assert job["allow_failure"] == {"exit_codes": 4}
    assert "host prepare" in " ".join(job["script"])
    assert "host restore" in job["after_script"][-1]


def test_lava_job_uses_the_test() -> None:
    job = _load(CI / "lava-job.yml")
    (test,) = (x["test"] for x in job["actions"] if "test" in x)
    (definition,) = test["definitions"]
    wanted = _load(ROOT / definition["path"])
    assert set(definition["parameters"]) <= set(wanted["params"])
    script = next(x for x in wanted["run"]["steps"] if ".sh" in x).split()[0]
    assert (ROOT / "docs/ci" / script).is_file()
