# SPDX-License-Identifier: GPL-2.0-or-later
"""Give the history to other tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import UsageError
from vfio_p2p.history.database import Entry
from vfio_p2p.history.trend import series_of
from vfio_p2p.machine.files import write_whole
from vfio_p2p.plans.history import SelectRequest, select
from vfio_p2p.report import history as report
from vfio_p2p.report.exports import asv, otava

EXPORTS = ("json", "otava", "asv")

_MOST_NAMED = 6


@dataclass(frozen=True)
class HistoryExportRequest:
    """A request to give results to another tool.

    :param which: The results.
    :param format: One of `EXPORTS`.
    :param out: The folder that asv's files are written to; None for the
        others.
    """

    which: SelectRequest
    format: str = "json"
    out: Path | None = None


@contextmanager
def exported(request: HistoryExportRequest) -> Iterator[Iterator[str]]:
    """Yield the lines to be printed, as they are read.

    :raise HistoryError: When the history cannot be read.
    :raise UsageError: When the format cannot hold the results.
    """
    with select(request.which) as entries:
        match request.format:
            case "otava":
                yield iter(_table(list(entries)).splitlines())
            case "asv":
                assert request.out
                yield iter([_written(entries, request.out)])
            case _:
                yield report.as_json(entries)


def _table(found: list[Entry]) -> str:
    series = sorted({series_of(entry) for entry in found})
    if len(series) == 1:
        return otava.render(found)
    if not series:
        raise UsageError(
            "there are no results to export",
            "See 'vfio-p2p history list', or leave out an option.",
        )
    named = ", ".join(
        f"{scenario} of {variant} at {host or 'unknown hosts'}"
        for scenario, variant, host, _ in series[:_MOST_NAMED]
    )
    raise UsageError(
        f"Otava's table holds one series, and these are {len(series)}: "
        + named
        + (" and others" if len(series) > _MOST_NAMED else ""),
        "Choose one with --scenario, --variant and --at.",
    )


def _written(entries: Iterable[Entry], out: Path) -> str:
    files = dict(asv.files(entries))
    if not files:
        raise UsageError(
            "no result has a commit, and asv knows nothing else",
            "Record the results of a git checkout, or name the commit with "
            "'vfio-p2p history record --revision COMMIT'.",
        )
    for name, content in files.items():
        write_whole(out / name, content.encode())
    return f"{out}: {len(files)} files"
