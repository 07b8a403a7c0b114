#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure the figures of docs/claims.md, and draw its plots.

    tools/claims.py measure     makes the runs that docs/claims.csv lacks
    tools/claims.py plot        draws docs/claims-*.svg from docs/claims.csv
    tools/claims.py write       puts its figures into docs/claims.md, and into
                                the series' cover letter

A sealed run is a function, so one seed is one sample, and no run is made
twice.  To measure everything anew, remove docs/claims.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import jinja2
from vfio_p2p.machine.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
DATA = DOCS / "claims.csv"
PAGE = DOCS / "claims.md"
LETTER = ROOT / "qemu-patches" / "v8.1" / "0000-cover-letter.txt"
SEED = 42
LOADS = {"write": "loads in write()", "late": "loads at the end"}

# The arcs of a blackout that only P2P devices have.
P2P_ARCS = ("PRE_COPY>PRE_COPY_P2P", "STOP>RUNNING_P2P",
            "RUNNING_P2P>RUNNING")
_STOP_BACK = "patched+stop-in-complete-precopy"
P2P_TREES = (
    (1, "patch-4"), (1, "patch-5"), (2, "patched"), (4, "patched"),
)  # fmt: skip

# All runs share one name, since another name changes the course of events.
_SCENARIO = """\
format = 1
name = "claims"
[[devices]]
count = {devices}
profile = "cx7"
{times}
[devices.latency_us]
{latencies}
"""
# Devices that load at the end spend behind the stream the time that the
# profile spends in write().
_LATE = (
    'load_in = "resuming_stop"\nwrite_ns_per_kib = 0',
    '"RESUMING>STOP" = 210_000',
)


@dataclass(frozen=True, order=True)
class Run:
    """One run.

    :param claim: The claim that the run examines: ``stop`` or ``p2p``.
    :param loads: When the devices load: ``write``, as their state arrives, or
        ``late``, behind the stream.
    :param devices: The number of devices.
    :param latency_us: The latency of each arc that the claim is about.
    :param tree: The variant.
    :param seed: The seed.
    :param blackout_ns: The blackout; 0 before the run was made.
    :param digest: The digest of the bundle.
    """

    claim: str
    loads: str
    devices: int
    latency_us: int
    tree: str
    seed: int = SEED
    blackout_ns: int = 0
    digest: str = ""

    @property
    def scenario(self) -> str:
        """The text of the scenario file."""
        arcs = P2P_ARCS if self.claim == "p2p" else ("STOP_COPY>STOP",)
        latencies = [f'"{x}" = {self.latency_us}' for x in arcs]
        times = ""
        if self.loads == "late":
            times, late = _LATE
            latencies.append(late)
        return _SCENARIO.format(
            devices=self.devices,
            times=times,
            latencies="\n".join(latencies),
        )


def wanted() -> Iterator[Run]:
    """Yield all runs of the page, the most important ones first."""
    for loads in LOADS:
        for ms in (0, 80, 20, 40, 10, 5):
            yield from (
                Run("stop", loads, 1, ms * 1000, x)
                for x in ("base", "patch-1")
            )
    for ms in (0, 20):
        yield from (
            Run("p2p", "write", 1, ms * 1000, x)
            for x in ("patch-4", "patch-5")
        )
    for loads in LOADS:
        for ms, devices in product((0, 80, 20), (4, 2)):
            yield from (
                Run("stop", loads, devices, ms * 1000, x)
                for x in (_STOP_BACK, "patched")
            )
    for ms, devices in product((0, 20, 10), (4, 2)):
        yield Run("p2p", "write", devices, ms * 1000, "patched")


def read() -> list[Run]:
    """Return the runs that were measured."""
    if not DATA.exists():
        return []
    with DATA.open(newline="") as file:
        return [
            Run(
                x["claim"], x["loads"], int(x["devices"]),
                int(x["latency_us"]), x["tree"], int(x["seed"]),
                int(x["blackout_ns"]), x["digest"],
            )
            for x in csv.DictReader(file)
        ]


def write(runs: list[Run]) -> None:
    """Write the runs that were measured, in a fixed order."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(x.name for x in fields(Run))
    table.writerows(astuple(x) for x in sorted(runs))
    write_whole(DATA, text.getvalue().encode())


def measure(command: list[str], out: Path) -> None:
    """Make all runs that are missing.

    :param command: The arguments that start vfio-p2p.
    :param out: The folder for the bundles.
    """
    runs = read()
    known = {replace(x, blackout_ns=0, digest="") for x in runs}
    missing = [x for x in wanted() if x not in known]
    for number, run in enumerate(missing, 1):
        print(f"{number} of {len(missing)}: {asdict(run)}", file=sys.stderr)
        parts = (run.claim, run.loads, run.devices, run.latency_us, run.tree)
        name = "-".join(map(str, parts))
        runs.append(_measured(run, command, out / name))
        write(runs)


def _measured(run: Run, command: list[str], bundle: Path) -> Run:
    """Make a run; exit the program if it gives no measurement."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "claims.toml")
        path.write_text(run.scenario)
        done = subprocess.run(
            [
                *command, "run", str(path), "--variant", run.tree,
                "--seed", str(run.seed), "--json", "--out", str(bundle),
            ],
            stdout=subprocess.PIPE,
            check=False,
        )  # fmt: skip
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    (found,) = json.loads(done.stdout)["runs"]
    # Runs of the mutant break a rule, as they should.
    failed = done.returncode == 1 and run.tree != _STOP_BACK
    if failed or found["blackout_ns"] is None:
        sys.exit(f"{bundle}: {found['verdict']}, {found['summary']}")
    return replace(
        run, blackout_ns=found["blackout_ns"], digest=found["digest"]
    )


# --- plots ---------------------------------------------------------------

WIDTH, HEIGHT = 680, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 68, 56
_MODEL = "A model: profile cx7, QEMU 10.0, one CPU; one sealed run a point"
_COLOURS = (
    "#1b6ca8", "#c8501e", "#3f7d20", "#7a3e9d", "#8a6d00", "#555555"
)
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2")


@dataclass(frozen=True)
class Line:
    """One line of a plot, with its points in milliseconds."""

    label: str
    points: tuple[tuple[float, float], ...]


def stop_lines(runs: list[Run]) -> list[Line]:
    """Return what patch 1 saves, over the latency of STOP_COPY>STOP."""
    lines = []
    for loads, when in LOADS.items():
        for devices, pair in ((1, ("base", "patch-1")),
                              (2, (_STOP_BACK, "patched")),
                              (4, (_STOP_BACK, "patched"))):
            before, after = (
                _blackouts(runs, "stop", devices, x, loads) for x in pair
            )
            points = tuple(
                (us / 1e3, (before[us] - after[us]) / 1e6)
                for us in sorted(before.keys() & after.keys())
            )
            lines.append(Line(f"{_devices(devices)}, {when}", points))
    return [line for line in lines if line.points]


def p2p_lines(runs: list[Run]) -> list[Line]:
    """Return how a blackout grows with the latency of the P2P arcs."""
    lines = []
    for devices, tree in P2P_TREES:
        found = _blackouts(runs, "p2p", devices, tree)
        if 0 in found:
            points = tuple(
                (us / 1e3, (found[us] - found[0]) / 1e6)
                for us in sorted(found)
            )
            lines.append(Line(f"{_devices(devices)}, {tree}", points))
    return lines


def _blackouts(
    runs: list[Run],
    claim: str,
    devices: int,
    tree: str,
    loads: str = "write",
) -> dict[int, int]:
    return {
        x.latency_us: x.blackout_ns
        for x in runs
        if (x.claim, x.devices, x.tree, x.loads)
        == (claim, devices, tree, loads)
    }


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def ticks(largest: float) -> list[float]:
    """Return round numbers from 0 on; the last is at least `largest`."""
    step = 1.0
    while step * 6 < largest:
        step *= 2.5 if f"{step:g}"[0] == "2" else 2
    count = 1
    while count * step < largest:
        count += 1
    return [n * step for n in range(count + 1)]


def plot(title: str, across: str, up: str, lines: list[Line]) -> str:
    """Return a standalone SVG, the same for the same lines."""
    across_ticks = ticks(max(x for line in lines for x, _ in line.points))
    up_ticks = ticks(max(y for line in lines for _, y in line.points))

    def x(value: float) -> float:
        return round(
            LEFT + value / across_ticks[-1] * (WIDTH - LEFT - RIGHT), 2
        )

    def y(value: float) -> float:
        return round(
            HEIGHT - BOTTOM - value / up_ticks[-1] * (HEIGHT - TOP - BOTTOM),
            2,
        )

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "tools"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("claims.svg").render(
        title=title, model=_MODEL, across=across, up=up, lines=lines,
        across_ticks=across_ticks, up_ticks=up_ticks, x=x, y=y,
        width=WIDTH, height=HEIGHT, left=LEFT, right=WIDTH - RIGHT,
        top=TOP, bottom=HEIGHT - BOTTOM,
        colours=_COLOURS, dashes=_DASHES,
    )  # fmt: skip


def draw(folder: Path) -> None:
    """Draw both plots."""
    runs = read()
    (folder / "claims-stop.svg").write_text(
        plot(
            "What patch 1 saves",
            "STOP_COPY to STOP takes, ms",
            "blackout is shorter by, ms",
            stop_lines(runs),
        )
    )
    (folder / "claims-p2p.svg").write_text(
        plot(
            "What P2P arcs cost",
            "each P2P arc takes, ms",
            "blackout is longer by, ms",
            p2p_lines(runs),
        )
    )


# --- page and cover letter -----------------------------------------------

# The first words of the page's tables.
_LATE_ROWS = "| STOP_COPY to STOP | 1 device | |"
_WRITE_ROWS = "| STOP_COPY to STOP | 1 device | 2"
_P2P_ROWS = "| each arc takes |"


def page(text: str, runs: list[Run]) -> str:
    """Return the page of the claims with the figures of the runs.

    :param text: The page.
    :param runs: The runs that were measured.
    """
    stop = {line.label: dict(line.points) for line in stop_lines(runs)}
    for first, loads in ((_LATE_ROWS, "late"), (_WRITE_ROWS, "write")):
        columns = []
        for devices, tree in ((1, "base"), (2, _STOP_BACK), (4, _STOP_BACK)):
            saved = stop[f"{_devices(devices)}, {LOADS[loads]}"]
            before = _blackouts(runs, "stop", devices, tree, loads)
            columns.append({x: f"{y:.3f}" for x, y in saved.items()})
            if loads == "late":
                columns.append(
                    {
                        x: f"{y * 1e8 / before[int(x * 1e3)]:.2f} %"
                        for x, y in saved.items()
                    }
                )
        text = _with_rows(text, first, columns)
    return _with_rows(
        text,
        _P2P_ROWS,
        [
            {
                us / 1e3: f"{ns / 1e6:.3f}"
                for us, ns in _blackouts(runs, "p2p", devices, tree).items()
            }
            for devices, tree in P2P_TREES
        ],
    )


def _with_rows(
    text: str, first: str, columns: list[dict[float, str]]
) -> str:
    """Replace the rows of a table, which ends with a blank line.

    :param first: How its head begins.
    :param columns: The cells, by milliseconds.
    """
    rows = []
    for ms in sorted({x for column in columns for x in column}):
        cells = " | ".join(column.get(ms, "") for column in columns)
        rows.append(f"| {ms:g} ms | {cells} |\n")
    head = text.index(first)
    start = text.index("\n", text.index("\n|---", head) + 1) + 1
    return text[:start] + "".join(rows) + text[text.index("\n\n", head) + 1 :]

# The first words of the letter's tables, each of which ends with a blank line.
_STOP_TABLE = "  STOP_COPY to STOP takes"
_P2P_TABLE = "  each P2P transition takes"
_STOP_POINTS_US = (0, 20_000, 80_000)
_P2P_POINTS_US = (0, 20_000)


def letter(text: str, runs: list[Run]) -> str:
    """Return a cover letter with the figures of the runs.

    :param text: The letter, with a table of each kind.
    :param runs: The runs that were measured.
    """
    saved = {
        line.label: [dict(line.points)[us / 1e3] for us in _STOP_POINTS_US]
        for line in stop_lines(runs)
    }
    before, after = (
        _blackouts(runs, "p2p", 1, x) for x in ("patch-4", "patch-5")
    )
    gained = [(before[us] - after[us]) / 1e6 for us in _P2P_POINTS_US]
    for first, points, rows in (
        (_STOP_TABLE, _STOP_POINTS_US, saved),
        (_P2P_TABLE, _P2P_POINTS_US, {f"1 device, {LOADS['write']}": gained}),
    ):
        heads = "".join(f"{f'{us // 1000} ms':>10}" for us in points)
        table = [f"{first:30}{heads}"]
        for label, values in rows.items():
            figures = "".join(f"{x:>10.3f}" for x in values)
            table.append(f"  {label:28}{figures}")
        start = text.index(f"{first} ")
        end = text.index("\n\n", start)
        text = text[:start] + "\n".join(table) + text[end:]
    return text


def main() -> None:
    """Measure, plot or write, as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        choices=("measure", "plot", "write"),
        help="see the description",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/claims"),
        help="the folder for the bundles (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.what == "measure":
        measure([sys.executable, "-m", "vfio_p2p"], args.out)
    elif args.what == "write":
        LETTER.write_text(letter(LETTER.read_text(), read()))
        PAGE.write_text(page(PAGE.read_text(), read()))
    else:
        draw(DOCS)


if __name__ == "__main__":
    main()
