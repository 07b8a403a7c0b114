# SPDX-License-Identifier: GPL-2.0-or-later
"""Put each result into the history as soon as it is available."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vfio_p2p import resources
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.history.database import Entry, open_history
from vfio_p2p.history.entry import entry_of
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.paths import cache_dir
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.qemu.store import Store
from vfio_p2p.series.git import revision_of
from vfio_p2p.verdict.reading import RunReading

Record = Callable[[Bundle, Verdict], None]

NO_PASS = "did not pass"


def keep_nothing(bundle: Bundle, verdict: Verdict) -> None:
    """A `Record` for runs that no history keeps."""


@contextmanager
def recording(
    path: Path | None, reporter: Reporter = SILENT
) -> Iterator[Record]:
    """Yield the function to call with each result.

    A history has figures and no verdicts, so only results that pass are
    kept.  The reporter is told how many others there were.

    :param path: The history; None keeps nothing.
    :param reporter: Told of the results that were not kept.
    :raise HistoryError: When the history cannot be written to.  This is
        found out at once, before anything runs, unless the file is locked or
        damaged later.
    """
    if path is None:
        yield keep_nothing
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
        reporter.remark(f"{path}: without {left_out} that {NO_PASS}")


def check_history(path: Path | None) -> None:
    """See that a history can be written to, before anything is built.

    :raise HistoryError: When it cannot.
    """
    with recording(path):
        pass


def entry(
    bundle: Bundle,
    revision: str | None,
    project: str,
    now_s: int,
    run: RunReading | None = None,
) -> Entry:
    """Make the history's entry for a run.

    :param bundle: The run's bundle.
    :param revision: The commit of its QEMU tree; None takes the one that the
        build store has noted, if any.
    :param project: The revision of this project.
    :param now_s: The Unix time in seconds.
    :param run: The reading of this bundle, if the caller has one already.
    """
    revision_s = None
    if revision is None:
        store = Store(cache_dir() / "builds")
        key = bundle.manifest.inputs.source.build
        # An installed QEMU has no key.
        built = store.find(key) if key else None
        revision = built.info.revision if built else ""
        revision_s = built.info.revision_s if built else None
    return entry_of(
        bundle,
        run=run,
        qemu_revision=revision,
        qemu_revision_s=revision_s,
        project_revision=project,
        recorded_s=now_s,
    )


def project_revision() -> str:
    """The commit of the checkout that we run from, or else our version."""
    root = resources.checkout()
    if root is None:
        try:
            return version("vfio-p2p")
        except PackageNotFoundError:
            return ""
    found = revision_of(root)
    return found.commit if found else ""
