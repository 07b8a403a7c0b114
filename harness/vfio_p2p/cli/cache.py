# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p cache``: see what is in the cache, and prune it."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterable

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.paths import cache_dir
from vfio_p2p.plans.cache import (
    KEEP_BYTES,
    CacheEntry,
    CacheKind,
    CacheLimits,
    cache_entries,
    prune,
)

FORMAT = 1

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``cache``."""
    parser = commands.add_parser(
        "cache",
        help=summary,
        description="Builds, downloads, the testbed and the results of "
        "sealed runs are kept in $XDG_CACHE_HOME/vfio-p2p. Everything there "
        "can be made again.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listed = actions.add_parser(
        "list",
        help="print how much room each kind of entry takes",
        description="Print how many entries of each kind there are, the "
        "room that they take, and when one was last used. --json prints "
        "each entry.",
    )
    options.add_json(listed)
    listed.set_defaults(request=options.no_request, run=_list)
    pruned = actions.add_parser(
        "prune",
        help="remove entries that were not used for long",
        description="Remove the least recently used entries. Without "
        "--older-than and --keep-bytes, entries are removed until the cache "
        f"takes no more than {_shown(KEEP_BYTES)}. What a running command "
        "uses or makes is kept, and so are files of an unknown kind. "
        "Histories, and results in folders of yours, are not in the cache.",
    )
    pruned.add_argument(
        "--older-than",
        type=_age,
        metavar="AGE",
        help="remove the entries that were not used for this long: a number "
        "with s, m, h, d or w, e.g. 30d",
    )
    pruned.add_argument(
        "--keep-bytes",
        type=_size,
        metavar="SIZE",
        help="remove the least recently used entries until the others take "
        "no more room than this: a number of bytes, or one with K, M, G or "
        "T (powers of 1024), e.g. 5G",
    )
    pruned.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be removed, and remove nothing",
    )
    options.add_json(pruned)
    pruned.set_defaults(request=_limits, run=_prune)


def _age(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(
            f"not an age such as 12h or 30d: {text!r}"
        )
    return float(int(match[1]) * _SECONDS[match[2]])


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,18})([KMGT]?)", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(
            f"not a size such as 500M or 20G: {text!r}"
        )
    return int(match[1]) * _BYTES[match[2]]


def _limits(args: argparse.Namespace) -> CacheLimits:
    return CacheLimits(args.older_than, args.keep_bytes, args.dry_run)


def _list(wanted: None, context: Context) -> int:
    entries = cache_entries()
    if context.json:
        context.show_json({
            "format": FORMAT,
            "kind": "vfio-p2p cache",
            "path": str(cache_dir()),
            "total_bytes": _total(entries),
            "entries": [_as_json(x) for x in entries],
        })
        return 0
    context.show(str(cache_dir()))
    for kind in CacheKind:
        found = [x for x in entries if x.kind is kind]
        if found:
            last = time.localtime(max(x.used_s for x in found))
            context.show(
                f"{kind:<10} {len(found):>5} {_shown(_total(found)):>10}"
                f"  last used {time.strftime('%Y-%m-%d %H:%M', last)}"
            )
    context.show(
        f"{'total':<10} {len(entries):>5} {_shown(_total(entries)):>10}"
    )
    return 0


def _prune(wanted: CacheLimits, context: Context) -> int:
    with context.reporter() as reporter:
        task = reporter.task("cache")
        done = prune(wanted, progress=task)
        task.end("examined" if wanted.dry_run else "pruned")
    if context.json:
        context.show_json({
            "format": FORMAT,
            "kind": "vfio-p2p cache prune",
            "path": str(cache_dir()),
            "dry_run": wanted.dry_run,
            "removed_bytes": _total(done.removed),
            "kept_bytes": done.kept_bytes,
            "removed": [_as_json(x) for x in done.removed],
            "busy": [_as_json(x) for x in done.busy],
        })
        return 0
    verb = "would remove" if wanted.dry_run else "removed"
    for entry in done.removed:
        context.show(f"{verb} {_name(entry)} ({_shown(entry.size_bytes)})")
    for entry in done.busy:
        context.show(
            f"kept {_name(entry)}: it is in use, or cannot be removed"
        )
    context.show(
        f"{verb} {len(done.removed)} entries, "
        f"{_shown(_total(done.removed))}; "
        f"{_shown(done.kept_bytes)} kept"
    )
    return 0


def _name(entry: CacheEntry) -> str:
    return str(entry.path.relative_to(cache_dir()))


def _total(entries: Iterable[CacheEntry]) -> int:
    return sum(x.size_bytes for x in entries)


def _shown(size_bytes: int) -> str:
    if size_bytes >= 1 << 30:
        return f"{size_bytes / (1 << 30):.1f} GiB"
    return f"{size_bytes / (1 << 20):.1f} MiB"


def _as_json(entry: CacheEntry) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "path": _name(entry),
        "bytes": entry.size_bytes,
        "used_s": round(entry.used_s, 3),
    }
