# SPDX-License-Identifier: GPL-2.0-or-later
"""Results into the history, each as soon as it is there."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vfio_p2p import resources
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.history.database import Entry, open_history
from vfio_p2p.history.entry import entry_of
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.paths import cache_dir
from vfio_p2p.qemu.store import Store
from vfio_p2p.series.git import revision_of

Record = Callable[[Bundle, Verdict], None]

NO_PASS = "did not pass"


def add_history_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where to keep what is run."""
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="keep each result that passes in this history, see "
        "'vfio-p2p history' (default: keep none)",
    )


@contextmanager
def recording(path: Path | None) -> Iterator[Record]:
    """What to call with each result; it is on the disk afterwards.

    Only what passes is kept: a history has figures and no verdicts, and
    what went wrong is no part of a trend.  What was left out is said.

    :param path: The history; None to keep nothing.
    :raise HistoryError: When it cannot be written to. That is seen at
        once, before anything is run; of results that come later only when
        it was locked or damaged since.
    """
    if path is None:
        yield lambda bundle, verdict: None
        return
    project = project_revision()
    left_out = 0
    with open_history(path, write=True) as history:

        def record(bundle: Bundle, verdict: Verdict) -> None:
            nonlocal left_out
            if verdict is Verdict.PASS:
                history.add([entry(bundle, None, project, int(time.time()))])
            else:
                left_out += 1

        yield record
    if left_out:
        print(f"{path}: without {left_out} that {NO_PASS}", file=sys.stderr)


def check_history(path: Path | None) -> None:
    """See that a history can be written to, before anything is built.

    :raise HistoryError: When it cannot.
    """
    with recording(path):
        pass


def entry(
    bundle: Bundle, revision: str | None, project: str, now_s: int
) -> Entry:
    """What the history is told of a run.

    :param bundle: What the run left.
    :param revision: Commit of its QEMU tree; None for that which the build
        store has noted, if any.
    :param project: Commit of this project.
    :param now_s: Unix time.
    """
    revision_s = None
    if revision is None:
        store = Store(cache_dir() / "builds")
        built = store.find(bundle.manifest.inputs.source.build)
        revision = built.info.revision if built else ""
        revision_s = built.info.revision_s if built else None
    return entry_of(
        bundle,
        qemu_revision=revision,
        qemu_revision_s=revision_s,
        project_revision=project,
        recorded_s=now_s,
    )


def project_revision() -> str:
    """Commit of this project; empty where git does not know it."""
    root = resources.checkout()
    found = revision_of(root) if root else None
    return found.commit if found else ""
