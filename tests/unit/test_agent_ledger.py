# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger: what is on its lines, and what is not a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from host_folders import OURS, PF, HostFolders
from vfio_p2p.agent.failure import AgentError
from vfio_p2p.agent.ledger import UNDONE, Ledger
from vfio_p2p.agent.request import Preparation
from vfio_p2p.agent.restore import restore

WANTED = Preparation(OURS, ((PF, 2),), who="a test")


@pytest.fixture
def host(tmp_path: Path) -> HostFolders:
    """A host without virtual functions."""
    return HostFolders(tmp_path / "host").make()


@pytest.fixture
def ledger(host: HostFolders) -> Ledger:
    """The host's ledger."""
    return Ledger(host.roots)


def test_a_line_has_a_number_and_the_boot(ledger: Ledger) -> None:
    assert ledger.append(PF, "driver", old="", new=OURS) == 1
    assert ledger.append(PF, "driver", old=OURS, new="") == 2
    first, second = ledger.path.read_text().splitlines()
    assert json.loads(first) == {
        "format": 1, "boot_id": "boot-1", "n": 1, "pf": PF,
        "op": "driver", "old": "", "new": OURS,
    }
    assert json.loads(second)["n"] == 2
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    assert ledger.folder.stat().st_mode & 0o777 == 0o700


def test_what_is_undone_is_not_pending(ledger: Ledger) -> None:
    for pf in (PF, "0000:02:00.0", PF):
        ledger.append(pf, "driver", old="", new=OURS)
    ledger.append(PF, UNDONE, of=3)
    assert [x.number for x in ledger.pending()] == [1, 2]
    assert [x.number for x in ledger.pending(PF)] == [1]
    ledger.append(PF, UNDONE, of=1)
    ledger.close()
    assert ledger.path.exists()
    ledger.append("0000:02:00.0", UNDONE, of=2)
    ledger.close()
    assert not ledger.path.exists()


def test_a_torn_line_is_cut_off(ledger: Ledger) -> None:
    ledger.append(PF, "driver", old="", new="a")
    whole = ledger.path.read_bytes()
    ledger.append(PF, "driver", old="", new="b")
    line = ledger.path.read_bytes()[len(whole):]
    for length in range(len(line)):
        ledger.path.write_bytes(whole + line[:length])
        assert [x.fields["new"] for x in ledger.pending()] == ["a"]
        ledger.append(PF, "driver", old="", new="c")
        assert [x.fields["new"] for x in ledger.pending()] == ["a", "c"]
        assert ledger.path.read_bytes().startswith(whole + b"{")


def test_a_ledger_that_is_torn_only_is_empty(ledger: Ledger) -> None:
    ledger.append(PF, "driver", old="", new="a")
    ledger.path.write_bytes(ledger.path.read_bytes()[:-1])
    assert ledger.pending() == []
    assert ledger.append(PF, "driver", old="", new="b") == 1


def test_a_ledger_of_another_boot_is_dropped(host: HostFolders) -> None:
    host.prepare(WANTED)
    state = host.state()
    (host.roots.proc / "sys/kernel/random/boot_id").write_text("boot-2\n")
    assert Ledger(host.roots).pending() == []
    assert restore(Ledger(host.roots), host.kernel()) == {
        "format": 1, "undone": 0, "dropped": True,
    }
    assert host.state() == state
    assert not Ledger(host.roots).path.exists()
    assert restore(Ledger(host.roots), host.kernel())["dropped"] is False


@pytest.mark.parametrize(
    ("line", "what", "code"),
    [
        (b'{"format": 2, "new": true}', "a newer vfio-p2p (format 2", 2),
        (b'{"format": 0}', ":1: not a line of a ledger", 5),
        (b'{"format": 1, "n": 1}', ":1: not a line of a ledger", 5),
        (b"[]", ":1: not a line of a ledger", 5),
        (b"{", ":1: not a line of a ledger", 5),
        (
            b'{"format":1,"boot_id":"boot-1","n":1,"pf":"x","op":"paint"}',
            "an operation 'paint' that makes no sense", 5,
        ),
    ],
)
def test_a_strange_ledger_changes_nothing(
    host: HostFolders, line: bytes, what: str, code: int
) -> None:
    host.prepare(WANTED)
    state = host.state()
    path = Ledger(host.roots).path
    strange = line + b"\n" + path.read_bytes()
    path.write_bytes(strange)
    with pytest.raises(AgentError) as caught:
        restore(Ledger(host.roots), host.kernel())
    assert what in caught.value.what
    assert caught.value.code == code
    assert caught.value.hint
    assert path.read_bytes() == strange
    assert host.state() == state


def test_a_full_disk_leaves_the_ledger_whole(ledger: Ledger) -> None:
    ledger.append(PF, "driver", old="", new="a")
    before = ledger.path.read_bytes()
    # A file that may not grow is as bad as a full disk.
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from vfio_p2p.agent.failure import AgentError\n"
        "from vfio_p2p.agent.ledger import Ledger\n"
        "from vfio_p2p.agent.roots import Roots\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"limit = {len(before) + 10}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        f"ledger = Ledger(Roots(run=Path({str(ledger.folder.parent)!r})))\n"
        "try:\n"
        "    ledger.append('x', 'driver', old='', new='b')\n"
        "except AgentError as err:\n"
        "    print(err.what)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        check=True,
    )
    assert done.stdout == f"{ledger.path}: File too large\n"
    assert ledger.path.read_bytes() == before


def test_two_processes_write_whole_lines(ledger: Ledger) -> None:
    children = []
    for pf in ("a", "b"):
        child = os.fork()
        if child == 0:
            for number in range(20):
                ledger.append(pf, "driver", old="", new=str(number))
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    notes = ledger.pending()
    assert [x.number for x in notes] == list(range(1, 41))
    for pf in ("a", "b"):
        assert [x.fields["new"] for x in notes if x.pf == pf] == [
            str(x) for x in range(20)
        ]
