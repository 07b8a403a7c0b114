# SPDX-License-Identifier: GPL-2.0-or-later
"""hosts.toml: what it may say, and what is said about mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p.errors import ConfigError, UsageError
from vfio_p2p.places.hosts.config import (
    FILE,
    HostEntry,
    PairEntry,
    find_place,
    hosts_path,
    load_hosts,
    parse_hosts,
)

WHOLE = """\
format = 1

[host.box]
driver = "mlx5"
source = {pf = "0000:08:00.0", count = 2}
destination = {pf = "0000:08:00.1", count = 2}
parameters = {downtime-limit = 20000}

[host.far]
ssh = "ci@far.example:2222"
identity = "keys/id"
driver = "mlx5"
source = {vfs = ["0000:08:00.2", "0000:08:00.3"]}

[pair.both]
source = "box"
destination = "far"
link = {source = "10.0.0.1", destination = "10.0.0.2"}
"""


def test_a_whole_file() -> None:
    found = parse_hosts(WHOLE.encode(), "/etc/x/hosts.toml")
    assert found.places == ("box", "both")
    assert found.host["box"].source.most == 2
    assert found.host["far"].source.most == 2
    assert found.host["far"].identity == "/etc/x/keys/id"
    assert isinstance(find_place("box", found, {}), HostEntry)
    assert isinstance(find_place("both", found, {}), PairEntry)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format = 1", "format = 2", "newer than this program"),
        ("format = 1", "", "missing required field `format`"),
        ('driver = "mlx5"', 'drivr = "mlx5"', ":4: host.box.drivr: "),
        ("count = 2", "count = 0", "host.box.source.count: "),
        (", count = 2", "", "'pf' and 'count' belong together"),
        ("0000:08:00.0", "8:0.0", "not a PCI address"),
        ("0000:08:00.0", "0000:08:00.1", "has the functions of the source"),
        ("0000:08:00.2", "0000:08:00.3", "a function is named twice"),
        ("identity =", "qemu =", "is not an absolute path of the host"),
        ("[pair.both]", "[pair.both]\ntls = 1", "pair.both.tls"),
        ('"ci@far.example:2222"', '"a b"', "not [USER@]HOST[:PORT]"),
        ('"ci@far.example:2222"', '"-oX=y"', "not [USER@]HOST[:PORT]"),
        ('destination = "far"', 'destination = "fra"', "is no host of this"),
        ('destination = "far"', 'destination = "box"', "it is the source"),
        ("[pair.both]", "[pair.box]", "is the name of a host, too"),
        ("[host.box]", "[host.Box]", "host"),
    ],
)
def test_mistakes_are_named(old: str, new: str, said: str) -> None:
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        parse_hosts(WHOLE.replace(old, new, 1).encode(), FILE)
    assert said in caught.value.what
    assert caught.value.what.startswith(FILE)
    assert caught.value.exit_code == 2


def test_a_host_for_pairs_is_no_place() -> None:
    with pytest.raises(UsageError, match="no place by itself"):
        find_place("far", parse_hosts(WHOLE.encode(), FILE), {})


def test_an_unknown_place_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        find_place("bothh", parse_hosts(WHOLE.encode(), FILE), {"sealed": 1})
    assert "'both'" in caught.value.hint


def test_the_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VFIO_P2P_HOSTS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_hosts(None).places == ()
    usual = hosts_path(None)
    usual.parent.mkdir()
    usual.write_text(WHOLE)
    assert load_hosts(None).places == ("box", "both")
    monkeypatch.setenv("VFIO_P2P_HOSTS", str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="no such file"):
        load_hosts(None)
    assert load_hosts(usual).places == ("box", "both")
