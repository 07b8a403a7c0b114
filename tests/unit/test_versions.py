# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations between releases: ``run --to`` and ``validate --versions``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import MIGRATED, good_destination, good_source, make_bundle
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import main
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.machines import common_machine
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.report.document import from_json
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import NOT_ALIKE
from workshops import FakeWorkshop

Capture = pytest.CaptureFixture[str]
REFUSAL = "Migration is currently not supported with multiple VFIO devices"
HPET = "qemu-system-x86_64: Unknown savevm section or instance 'hpet' 0."
USUAL = ("v10.0 base", "v10.0 patched", "v10.2 stock", "debian:11.1")


def make(cell: Cell, path: Path) -> None:
    """Make the bundle of a run that goes as QEMU's releases let it go.

    Debian's QEMU has an HPET, which the others lack.
    """
    job = cell.job
    programs = {Side.SOURCE: job.source, Side.DESTINATION: job.destination}
    count = len(job.scenario.each_device())
    result, printed = MIGRATED, {}
    bases = [x for x in Side if programs[x].variant == "base"]
    if count > 1 and bases:
        result = Result(
            outcome=Outcome.REFUSED,
            side=str(bases[0]),
            message=f"{bases[0]}: QEMU did not start: {REFUSAL}",
            stderr=REFUSAL,
            exit_states={bases[0]: 1},
        )
    elif "debian:" in job.source.version and job.source != job.destination:
        result = Result(
            outcome=Outcome.FAILED,
            side="source",
            message="source: migration failed: Sibling indicated error 1",
            exit_states={"source": 0, "destination": 1},
            legs=(("source", "destination"),),
        )
        printed = {"destination": f"2026-01-01T00:00:04.8Z {HPET}".encode()}
    make_bundle(
        path,
        variant=job.source.variant,
        version=job.source.version,
        to=job.destination,
        scenario=job.scenario,
        seed=job.seed,
        result=result,
        source=good_source(
            series=job.source.variant != "base", count=count
        ),
        destination=good_destination(
            series=job.destination.variant != "base", count=count
        ),
        printed=printed,
    )


@pytest.fixture
def workshop(workshop: FakeWorkshop) -> FakeWorkshop:
    """A workshop whose runs go as QEMU's releases let them go."""
    workshop.make = make
    return workshop


def machines(workshop: FakeWorkshop) -> dict[tuple[str, str], str]:
    """Return the machine types of the runs, by the releases of the sides."""

    def release(text: str) -> str:
        return text.rpartition("version ")[2].removeprefix("QEMU ")[:4]

    return {
        (
            release(cell.job.source.version),
            release(cell.job.destination.version),
        ): cell.job.scenario.machine
        for cell in workshop.ran
    }


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (["q35", "pc-q35-9.2", "pc-q35-10.0"], ["pc-q35-10.0"], "10.0"),
        # As text, 9.2 would be newer.
        (["pc-q35-9.2", "pc-q35-10.0"], ["pc-q35-10.0", "pc-q35-9.2"], "10.0"),
        (["pc-q35-4.0", "pc-q35-4.0.1"], ["pc-q35-4.0.1"], "4.0.1"),
        (["pc-q35-4.0", "pc-q35-4.0.1"], ["pc-q35-4.0"], "4.0"),
        (["q35", "pc-q35-10.0"], ["q35", "pc-q35-11.0", "none"], None),
        (["pc-i440fx-10.0"], ["pc-i440fx-10.0"], None),
    ],
)
def test_the_newest_that_both_have(
    first: list[str], second: list[str], found: str | None
) -> None:
    name = f"pc-q35-{found}" if found else None
    assert common_machine([first, second]) == name
    assert common_machine([second, first]) == name


def test_another_destination(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["run", "one-device", "--to", "v10.2:stock"], workshop) == 0
    assert workshop.built == [("10.0", "patched"), ("10.2", "stock")]
    path = tmp_path / "out" / "patched-to-stock-one-device-s42"
    bundle = open_bundle(path)
    inputs = bundle.manifest.inputs
    assert inputs.source.version == "QEMU 10.0.99"
    assert inputs.destination.version == "QEMU 10.2.99"
    assert bundle.scenario.guest.machine == "pc-q35-10.0"
    printed = capsys.readouterr().out
    assert "QEMU 10.0.99 to QEMU 10.2.99, base v10.0, v10.2" in printed
    assert "patched to stock" in printed
    assert "machine type of one-device: pc-q35-10.0" in printed
    assert main(["check", str(path)], workshop) == 0
    assert "patched to stock" in capsys.readouterr().out


def test_a_report_says_how_to_run_it_again(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    again = {}
    for words in (
        ["--variant", "base", "--to", "patched"],
        ["--to", "v10.2:stock"],
        ["--to", "debian:11.1"],
    ):
        out = str(tmp_path / "-".join(words).replace(":", "-"))
        main(["run", "one-device", *words, "--out", out], workshop)
        capsys.readouterr()
        main(["report", out, "--format", "text"], workshop)
        again[words[-1]] = capsys.readouterr().out
    end = "--machine pc-q35-10.0 --seed 42"
    start = "  vfio-p2p run one-device --variant"
    assert f"{start} base --base v10.0 --to patched {end}" in again["patched"]
    assert (
        f"{start} patched --base v10.0 --to v10.2:stock {end}"
        in again["v10.2:stock"]
    )
    # Nothing tells where that QEMU is.
    assert "vfio-p2p run" not in again["debian:11.1"]


def test_comparisons_and_the_history_tell_them_apart(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "out"
    for words in ([], ["--to", "v10.2:stock"]):
        name = f"made{len(words)}"
        out = str(folder / name)
        main(["run", "one-device", *words, "--out", out], workshop)
    capsys.readouterr()
    assert main(["compare", str(folder), str(folder)], workshop) == 2
    said = capsys.readouterr().err
    assert "bundles of more than one kind: " in said
    assert "patched to stock" in said
    one = str(folder / "made2")
    main(["compare", one, one], workshop)
    assert "A: patched to stock in" in capsys.readouterr().out
    database = str(tmp_path / "x.sqlite3")
    words = ["history", "record", str(folder / "made0"), one]
    assert main([*words, "--db", database], workshop) == 0
    capsys.readouterr()
    main(["history", "list", "--db", database], workshop)
    listed = capsys.readouterr().out
    assert "patched to.." in listed


def test_one_qemu_needs_no_machine_type(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    assert main(["run", "one-device"], workshop) == 0
    assert main(["run", "one-device", "--to", "base"], workshop) == 0
    assert [x.job.scenario.machine for x in workshop.ran] == [
        "",
        "pc-q35-10.0",
    ]


def test_a_scenario_keeps_its_machine_type(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    file = tmp_path / "old.toml"
    file.write_text(
        'format = 1\nname = "old"\n[[devices]]\n'
        '[guest]\nmachine = "pc-q35-8.0"\n'
    )
    main(["run", str(file), "--to", "base"], workshop)
    main(["run", str(file), "--to", "base", "--machine", "q35"], workshop)
    assert [x.job.scenario.guest.machine for x in workshop.ran] == [
        "pc-q35-8.0",
        "q35",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "pached"), "'pached' is no variant, and there is no such"),
        (("--to", "v10.2:stok"), "unknown variant 'stok'"),
        (("--to-source", "x"), "--to-source has no effect without --to"),
        (
            ("--to", "debian:11.1", "--to-source", "x"),
            "--to-source has no effect on debian:11.1",
        ),
        (("--machine", "pc-q35-10.1"), "no QEMU of this request has the"),
        (
            ("--to", "v10.2:stock", "--machine", "microvm"),
            "no QEMU of this request has the machine type 'microvm'",
        ),
        (
            ("--qemu", "debian:11.1", "--base", "v10.0", "--to", "./q"),
            "--base: this has no effect",
        ),
    ],
)
def test_wrong_usage(
    workshop: FakeWorkshop,
    capsys: Capture,
    words: tuple[str, ...],
    said: str,
) -> None:
    assert main(["run", "one-device", *words], workshop) == 2
    first, second, *_ = capsys.readouterr().err.splitlines()[-2:]
    assert said in first
    assert second.startswith("  ")
    assert not workshop.ran


def test_a_source_of_the_destination(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    workshop.release = "8.1"
    words = ["run", "one-device", "--to", "base", "--to-source", "tree"]
    main(words, workshop)
    assert workshop.built == [("10.0", "patched"), ("8.1", "base")]
    assert set(machines(workshop).values()) == {"pc-q35-8.1"}


def test_a_binary_migrates_to_a_build_of_a_source(
    workshop: FakeWorkshop,
) -> None:
    words = ["--qemu", "debian:11.1", "--to", "base", "--source", "tree"]
    main(["run", "one-device", *words], workshop)
    assert workshop.built == [("10.0", "base")]
    (cell,) = workshop.ran
    assert cell.job.destination.variant == "base"


def test_a_machine_type_that_one_side_lacks_is_run(
    workshop: FakeWorkshop,
) -> None:
    """QEMU's own words are wanted, and not ours."""
    words = ["--to", "v10.2:stock", "--machine", "pc-q35-10.2"]
    main(["run", "one-device", *words], workshop)
    assert [x.job.scenario.machine for x in workshop.ran] == ["pc-q35-10.2"]


def test_the_matrix(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["validate", "--versions"], workshop) == 0
    assert len(workshop.ran) == len(set(workshop.names)) == 32
    assert machines(workshop) == {
        (first, second): f"pc-q35-{min(float(first), float(second)):.1f}"
        for first in ("10.0", "10.2", "11.1")
        for second in ("10.0", "10.2", "11.1")
    }
    document = from_json((tmp_path / "out" / "report.json").read_bytes(), "x")
    assert document.verdict is Verdict.PASS
    assert document.versions
    assert tuple(x.name for x in document.versions.qemus) == USUAL
    crossings = {
        (x.scenario, x.source, x.destination): x.crossing
        for x in document.versions.pairs
    }
    assert len(crossings) == 32
    for (scenario, first, second), crossing in crossings.items():
        wanted = "judged"
        if scenario == "two-devices" and USUAL[0] in (first, second):
            wanted = "refused"
        elif first == USUAL[3] and second != first:
            wanted = "another machine"
        assert crossing == wanted, (scenario, first, second)
    printed = capsys.readouterr().out
    assert "v10.2 stock: QEMU 10.2.99" in printed
    text = " ".join(printed.split())
    assert (
        "refused from debian:11.1 to v10.0 base, v10.0 patched, v10.2 stock: "
        "Unknown savevm section or instance 'hpet' 0." in text
    )
    assert REFUSAL in text
    assert printed.rstrip().splitlines()[-2].startswith("verdict: pass")


def test_a_report_shows_the_matrix_again(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    main(["validate", "--versions"], workshop)
    first = capsys.readouterr().out.partition("bundles,")[0]
    path = str(tmp_path / "out" / "report.json")
    assert main(["report", path, "--format", "table"], workshop) == 0
    assert capsys.readouterr().out.rstrip() == first.rstrip()
    for kind in ("html", "text"):
        out = tmp_path / kind
        words = ["report", path, "--format", kind, "--out", str(out)]
        assert main(words, workshop) == 0
        assert "Between releases, two-devices" in out.read_text()
    junit = (tmp_path / "out" / "junit.xml").read_text()
    assert "debian:11.1 to v10.0 base, one-device" in junit
    assert 'skipped="5"' in junit


def test_a_defect_is_a_failure(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    def wrong(cell: Cell, path: Path) -> None:
        make(cell, path)
        if cell.name == "v10.0-patched-to-v10.2-stock-one-device-s42":
            make_bundle(
                path,
                variant="patched",
                version=cell.job.source.version,
                to=cell.job.destination,
                scenario=cell.job.scenario,
                source=good_source(count=1),
                destination=good_destination(series=False, count=1),
            )

    workshop.make = wrong
    assert main(["validate", "--versions"], workshop) == 1
    printed = capsys.readouterr().out
    assert "FAIL" in printed
    assert "patched to stock, one-device: fail" in printed
    assert "broken: p2p (destination)" in printed


def test_refusals_alone_prove_nothing(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    """Each QEMU migrates to itself, and no one to another."""

    def apart(cell: Cell, path: Path) -> None:
        make(cell, path)
        if cell.job.source != cell.job.destination:
            make_bundle(
                path,
                variant=cell.variant,
                version=cell.job.source.version,
                to=cell.job.destination,
                scenario=cell.job.scenario,
                result=Result(
                    outcome=Outcome.REFUSED,
                    side="destination",
                    message="unsupported machine type",
                    stderr="unsupported machine type",
                    exit_states={"destination": 1},
                ),
            )

    workshop.make = apart
    words = ["--variant", "patched", "--variant", "v10.2:stock"]
    assert main(["validate", "--versions", *words], workshop) == 3
    assert len(workshop.ran) == 8
    assert "refused" in capsys.readouterr().out
    path = str(tmp_path / "out" / "report.json")
    assert main(["report", path, "--format", "table"], workshop) == 3
    document = from_json(Path(path).read_bytes(), "x")
    assert document.verdict is Verdict.INCONCLUSIVE
    assert [x.summary for x in document.runs].count(NOT_ALIKE) == 4


def test_releases_without_a_common_machine_type(
    workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"10.0": ("pc-q35-10.0",), "10.2": ("pc-q35-10.2",)}
    monkeypatch.setattr(
        workshop, "machines", lambda what: known[what.version[5:9]]
    )
    words = ["--variant", "patched", "--variant", "v10.2:stock", "--json"]
    assert main(["validate", "--versions", *words], workshop) == 3
    # Only the two that migrate to themselves are run.
    assert len(workshop.ran) == 4


def test_a_source_of_another_release_joins_the_usual_ones(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    workshop.release = "8.1"
    words = ["validate", "--versions", "--source", "tree"]
    assert main(words, workshop) == 0
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    names = [x["name"] for x in data["versions"]["qemus"]]
    assert names == [*USUAL[:2], "v8.1 patched", *USUAL[2:]]
    assert len(workshop.ran) == 50


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--variant", "base"), "--versions needs two QEMUs at least"),
        (
            ("--variant", "base", "--variant", "v10.0:base"),
            "2 of the QEMUs would be named 'v10.0 base'",
        ),
        (("--scenario", "one-device"), "--versions has scenarios of its own"),
        (("--at", "lab"), "--versions judges in the sealed testbed"),
        (("--machine", "microvm"), "no QEMU of this request has the machine"),
        (
            (
                *("--variant", "v10.2:stock", "--qemu", "debian:11.1"),
                *("--base", "v10.0"),
            ),
            "--base and --source have no effect",
        ),
    ],
)
def test_wrong_usage_of_the_matrix(
    workshop: FakeWorkshop,
    capsys: Capture,
    words: tuple[str, ...],
    said: str,
) -> None:
    assert main(["validate", "--versions", *words], workshop) == 2
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert said in first
    assert second.startswith("  ")
    assert not workshop.ran


def test_only_the_matrix_takes_a_machine_type(
    workshop: FakeWorkshop, capsys: Capture
) -> None:
    assert main(["validate", "--machine", "q35"], workshop) == 2
    assert "--machine has no effect" in capsys.readouterr().err
