# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that change hosts: what they refuse before they do anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p.cli import main

HOSTS = """
format = 1

[host.box]
driver = "p2pvf"
source = {pf = "0000:ff:1f.6", count = 2}
destination = {pf = "0000:ff:1f.7", count = 2}

[host.other]
driver = "nonsense"
source = {pf = "0000:ff:1f.6", count = 2}

[pair.both]
source = "box"
destination = "other"
link = {source = "10.9.0.1", destination = "10.9.0.2"}
"""


@pytest.fixture(autouse=True)
def _hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS)
    monkeypatch.setenv("VFIO_P2P_HOSTS", str(path))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("prepare --pf 1", "argument --pf: not a PCI address such as"),
        ("prepare --vf 01:10.8", "argument --vf: not a PCI address such as"),
        ("restore --pf 0000:01:0.0", "argument --pf: not a PCI address"),
        ("prepare --pf 01:00.0", "--pf and --count belong together"),
        ("prepare --count 2", "--pf and --count belong together"),
        ("prepare --pf 01:00.0 --count 0", "argument --count: not a number"),
        ("prepare --pf 01:00.0 --vf 01:10.0", "not allowed with argument"),
        ("prepare --port-cap migratable", "argument --port-cap: not a cap"),
        ("prepare --eswitch odd", "argument --eswitch: invalid choice"),
        ("prepare", "no functions are named"),
        ("prepare --at bx", "there is no host or pair 'bx'"),
        ("restore --at bx", "there is no host or pair 'bx'"),
        ("prepare --at both --vf 01:10.0", "both is a pair, and addresses"),
        ("prepare --at box --driver odd", "there is no variant driver 'odd'"),
        ("prepare --at other", "there is no variant driver 'nonsense'"),
        ("prepare --vf ff:1f.7", "it is unknown which driver the functions"),
        (
            "prepare --vf FF:1f.7 --driver p2pvf",
            "there is no PCI function 0000:ff:1f.7",
        ),
        ("prepare --at box", "there is no PCI function 0000:ff:1f.6"),
    ],
)
def test_what_is_wrong(
    arguments: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["host", *arguments.split()])
    except SystemExit as err:
        code = int(err.code or 0)
    assert code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert what in first
    assert second.startswith("  ")
