# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of rules."""

from __future__ import annotations

import json

import pytest
from vfio_p2p.cli import main
from vfio_p2p.oracle import RULES, PairRule, Rule
from vfio_p2p.plans.judging.patches import COLUMNS
from vfio_p2p.timeline import Side
from vfio_p2p.trace import VERSIONS
from vfio_p2p.uapi import ALL_FLAGS, MigrationFlags


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.name))
def test_a_rule_is_declared_in_full(rule: Rule | PairRule) -> None:
    assert rule.name.replace("-", "").isalnum()
    assert rule.reason.endswith(".")
    assert rule.reason.count(". ") == 0
    assert rule.source
    assert set(rule.sides) <= set(Side)
    assert rule.sides
    assert rule.since in VERSIONS
    assert rule.needs in ALL_FLAGS
    assert MigrationFlags.STOP_COPY in rule.needs


def test_names_are_unique() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)


def test_every_rule_is_in_the_table_of_patches() -> None:
    shown = [name for column in COLUMNS for name in column.rules]
    assert sorted(shown) == sorted(rule.name for rule in RULES)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 79
    for rule in RULES:
        (line,) = [x for x in lines if rule.name in x.split("  ")[0].split()
                   or f"{rule.name}*" in x.split()[:1]]  # fmt: skip
        assert ("*" in line.split()[0]) == rule.logs
        assert rule.since in line
        assert ("P2P" in line.split()[3]) == (
            MigrationFlags.P2P in rule.needs
        )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["format"], document["kind"]) == (1, "vfio-p2p rules")
    assert [x["name"] for x in document["rules"]] == [
        rule.name for rule in RULES
    ]
    barrier = document["rules"][2]
    assert barrier == {
        "name": "barrier",
        "reason": RULES[2].reason,
        "source": RULES[2].source,
        "sides": ["source", "destination"],
        "since": "8.2",
        "flags": ["stop_copy", "p2p"],
        "device_logs": False,
    }
