# SPDX-License-Identifier: GPL-2.0-or-later
"""The logs of real hosts are runs of a report like all others."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import good_source, make_bundle, without_stop
from qemu_log import FakeQemu, devices, receive
from vfio_p2p.errors import InputError, TraceError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import from_json, to_json
from vfio_p2p.report.formats import REPORTS, render
from vfio_p2p.report.run import Run


def logs(
    path: Path, source: bytes | None = None, late_ns: int = 0
) -> Path:
    """The folder of a run that a user made on real hosts."""
    target = FakeQemu(devices("dst0", "dst1"))
    target.begin_ns += late_ns
    files = {
        "source": good_source().log() if source is None else source,
        "destination": receive(target).log(),
    }
    for side, log in files.items():
        (path / side).mkdir(parents=True)
        (path / side / "trace.log").write_bytes(log)
    return path


def only(path: Path) -> Run:
    (run,) = collect([path]).runs
    return run


def test_a_run_is_judged_and_measured(tmp_path: Path) -> None:
    run = only(logs(tmp_path / "run1"))
    sealed = only(make_bundle(tmp_path / "b"))
    assert (run.verdict, run.summary) == (Verdict.PASS, "migrated")
    assert (run.exact, sealed.exact) == (False, True)
    assert (run.seed, run.digest, run.inputs) == (None, "", None)
    assert run.name == "run1"
    assert run.qemu.startswith("QEMU ")
    assert run.blackout_ns == sealed.blackout_ns
    assert run.lanes == sealed.lanes
    assert run.phases == sealed.phases


def test_a_broken_rule(tmp_path: Path) -> None:
    broken = FakeQemu(devices("src0", "src1"))
    right = broken.calls(True)
    broken.vm(True, "running", right[2:] + right[:2])
    document = collect([logs(tmp_path / "x", broken.log())])
    assert document.verdict is Verdict.FAIL
    (run,) = document.runs
    assert run.findings[0].rule == "barrier"
    file = tmp_path / "x" / "source" / "trace.log"
    assert run.findings[0].lines[0].file == str(file)


def test_logs_that_do_not_tell(tmp_path: Path) -> None:
    run = only(logs(tmp_path / "x", b""))
    assert run.verdict is Verdict.INCONCLUSIVE
    assert run.blackout_ns is None
    assert run.summary == "the blackout is not known"
    assert any("no line about a VFIO device" in note for note in run.notes)


@pytest.mark.parametrize("name", REPORTS)
def test_every_format(tmp_path: Path, name: str) -> None:
    for number in range(3):
        logs(tmp_path / "runs" / f"run{number}", late_ns=number * 10**6)
    document = collect([tmp_path / "runs"])
    assert len(document.runs) == 3
    assert from_json(to_json(document).encode(), "x") == document
    text = render(name, document)
    told = {
        "text": "not sealed: times are measured, not exact",
        "table": "not sealed, so that times are measured, not exact",
        "html": "not sealed: times are measured, not exact",
        "junit": '<property name="exact" value="false" />',
        "json": '"exact": false',
        "markdown": "not sealed: times are measured, not exact",
        "perfetto": "run1",
    }
    assert told[name] in text
    assert "None" not in text


def test_text_names_runs_without_a_seed(tmp_path: Path) -> None:
    for number in range(2):
        logs(tmp_path / "runs" / f"run{number}")
    logs(tmp_path / "runs" / "run2", without_stop().log())
    document = collect([tmp_path / "runs"])
    text = render("text", document)
    assert "logs of real hosts, logs, 3 runs: " in text
    folder = tmp_path / "runs" / "run0"
    assert (
        f"  vfio-p2p check {folder}/source/trace.log --destination "
        f"{folder}/destination/trace.log\n"
    ) in text
    assert "vfio-p2p run " not in text


def test_two_folders_are_compared(tmp_path: Path) -> None:
    for number in range(8):
        logs(tmp_path / "a" / f"run{number}", late_ns=number * 1000)
        logs(
            tmp_path / "b" / f"run{number}",
            late_ns=5 * 10**6 + number * 1000,
        )
    document = collect([tmp_path / "a", tmp_path / "b"])
    assert document.tree_names == (
        str(tmp_path / "a"), str(tmp_path / "b")
    )
    text = " ".join(render("text", document).split())
    assert "8 runs of A and 8 of B, not paired" in text
    assert "blackout: slower by 5.000 ms" in text
    assert "only as exact as the clocks" in text


def test_beside_bundles(tmp_path: Path) -> None:
    logs(tmp_path / "all" / "run1")
    make_bundle(tmp_path / "all" / "b")
    document = collect([tmp_path / "all"])
    assert [run.exact for run in document.runs] == [True, False]
    assert document.tree_names == ("patched", "logs")


def test_bad_logs(tmp_path: Path) -> None:
    path = logs(tmp_path / "x")
    (path / "destination" / "trace.log").unlink()
    with pytest.raises(TraceError, match=r"trace\.log"):
        collect([path])
    (path / "source" / "trace.log").unlink()
    with pytest.raises(InputError, match="no bundles in it, and no logs"):
        collect([path])


