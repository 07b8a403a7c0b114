# SPDX-License-Identifier: GPL-2.0-or-later
"""The program that ``git bisect run`` runs for each commit.

``python -m vfio_p2p.plans.bisect HOME`` runs in the work tree that git has
checked out.  It prints its messages on stdout, one JSON document on a line
after a record separator, and tells git the result by its exit status: 0 good,
1 bad, 125 unknown, 255 stop.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import msgspec

from vfio_p2p.errors import BuildError, HarnessError, HostError, SourceError
from vfio_p2p.plans.bisect.search import Measure
from vfio_p2p.plans.bisect.step import (
    MARK,
    Failed,
    Measured,
    Message,
    Probe,
    Skipped,
    Tick,
    measure,
)
from vfio_p2p.plans.bisect.tree import ask
from vfio_p2p.scenario.model import from_json

_BAD, _UNKNOWN, _STOP = 1, 125, 255


def main(home: Path, measured_by: Measure = measure) -> int:
    """Measure the commit that is checked out, and tell git.

    :param home: The folder with the input of the search.
    :param measured_by: Measures the commit.
    :return: The exit status for git.
    """
    probe = msgspec.json.decode((home / "probe.json").read_bytes(), type=Probe)
    scenario = from_json((home / "scenario.json").read_bytes())
    tree = Path.cwd()
    try:
        entry = measured_by(tree, home, probe, scenario, _tick)
    except (BuildError, HostError, SourceError) as err:
        _say(Skipped(ask(tree, "rev-parse", "HEAD"), err.what))
        return _UNKNOWN
    except HarnessError as err:
        _say(Failed(err.what, err.hint, err.exit_code))
        return _STOP
    except Exception as err:
        # Python's own exit status, 1, would tell git that the commit is bad.
        traceback.print_exc()
        what = f"a mistake in vfio-p2p: {err!r}"
        _say(Failed(what, "Please report it.", HarnessError.exit_code))
        return _STOP
    _say(Measured(entry))
    found = entry.metric(probe.metric)
    assert found is not None
    return _BAD if probe.is_bad(found.value) else 0


def _tick(done: int, total: int, text: str) -> None:
    _say(Tick(done, total, text))


def _say(message: Message) -> None:
    line = MARK + msgspec.json.encode(message) + b"\n"
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
