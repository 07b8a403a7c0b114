# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports in the formats of services, read by their own readers if possible.

Hostile names of devices, scenarios and trees harm none of them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kcidb_io
import pytest
from bundles import make_bundle
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from reports import evil_document, pair, run_document
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document
from vfio_p2p.report.formats import SERVICES, render
from vfio_p2p.report.run import Run

# What a dispatcher looks for in a line, of lava-dispatcher 2026.10.
SIGNAL = re.compile(r"<LAVA_SIGNAL_(\S+) ([^>]+)>")


@pytest.fixture
def document(tmp_path: Path) -> Document:
    """The report of one run of two devices."""
    return run_document(tmp_path)


def judged(document: Document, *verdicts: Verdict) -> Document:
    """Return a document with a run of each verdict."""
    (run,) = document.runs
    runs = [
        replace(run, verdict=x, seed=n) for n, x in enumerate(verdicts, 1)
    ]
    return Document.of(runs)


def later(run: Run, by_ns: int) -> Run:
    """Return a run with a longer blackout."""
    assert run.blackout_ns
    return replace(run, blackout_ns=run.blackout_ns + by_ns, seed=43)


# --- Bencher --------------------------------------------------------------


def test_bencher_has_the_figures_of_a_run(document: Document) -> None:
    found = json.loads(render("bencher", document))
    (run,) = document.runs
    assert set(found) == {"two-devices/patched"}
    measures = found["two-devices/patched"]
    assert measures["latency"] == {"value": run.blackout_ns}
    phases = {str(x.name): x.duration_ns for x in run.phases}
    for name, time_ns in phases.items():
        assert measures[name] == {"value": time_ns}
    assert "longest-p2p-arc" in measures


def test_bencher_has_bounds_of_several_runs(document: Document) -> None:
    (run,) = document.runs
    several = Document.of([run, later(run, 1000), later(run, 5000)])
    found = json.loads(render("bencher", several))
    assert run.blackout_ns
    assert found["two-devices/patched"]["latency"] == {
        "value": run.blackout_ns + 1000,
        "lower_value": run.blackout_ns,
        "upper_value": run.blackout_ns + 5000,
    }


@pytest.mark.parametrize("name", ["bencher", "github-action"])
def test_a_run_that_did_not_pass_is_no_figure(
    document: Document, name: str
) -> None:
    others = [x for x in Verdict if x is not Verdict.PASS]
    assert not json.loads(render(name, judged(document, *others)))


def test_bencher_of_hostile_text_keeps_its_form(tmp_path: Path) -> None:
    evil = evil_document(tmp_path)
    passed = Document.of(
        [replace(x, verdict=Verdict.PASS) for x in evil.runs]
    )
    text = render("bencher", passed)
    assert text.isascii()
    assert "\x1b" not in text
    found = json.loads(text)
    assert found
    for measures in found.values():
        for name, metric in measures.items():
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
            assert isinstance(metric["value"], int | float)
            assert set(metric) <= {"value", "lower_value", "upper_value"}


@pytest.mark.parametrize("name", SERVICES)
def test_the_bound_of_two_clocks_is_told(
    document: Document, name: str
) -> None:
    (run,) = document.runs
    assert run.blackout_ns
    bound_ns = 2_345_000
    told = Document.of([replace(run, blackout_bound_ns=bound_ns)])
    text = render(name, told)
    match name:
        case "bencher":
            metric = json.loads(text)["two-devices/patched"]["latency"]
            assert metric == {
                "value": run.blackout_ns,
                "lower_value": run.blackout_ns - bound_ns,
                "upper_value": run.blackout_ns + bound_ns,
            }
        case "github-action":
            first, last = (
                float(x) for x in json.loads(text)[0]["range"].split(" to ")
            )
            assert last - first == pytest.approx(2 * 2.345)
        case "kcidb":
            misc = json.loads(text)["tests"][0]["misc"]
            assert misc["blackout_bound_s"] == bound_ns / 1e9
        case "lava":
            assert "MEASUREMENT=2.345000" in text
        case _:
            assert "vfio_p2p_blackout_bound_seconds{" in text
            assert " 0.002345\n" in text


# --- github-action-benchmark ----------------------------------------------


def test_github_action_has_milliseconds(tmp_path: Path) -> None:
    found = collect(pair(tmp_path))
    values = json.loads(render("github-action", found))
    blackouts = {
        x["name"]: x["value"] for x in values if "blackout" in x["name"]
    }
    assert blackouts == {
        f"one-device/{x.tree}: blackout": (x.blackout_ns or 0) / 1e6
        for x in found.runs
    }
    assert all(set(x) == {"name", "unit", "value", "extra"} for x in values)
    assert len({x["name"] for x in values}) == len(values)


def test_github_action_has_a_range_of_several_runs(
    document: Document,
) -> None:
    (run,) = document.runs
    values = json.loads(
        render("github-action", Document.of([run, later(run, 10**6)]))
    )
    first, last = re.findall(r"[0-9.]+", values[0]["range"])
    assert float(last) - float(first) == pytest.approx(1)
    assert values[0]["extra"].endswith("seed 42-43")


# --- LAVA -----------------------------------------------------------------


def cases(document: Document) -> list[dict[str, str]]:
    """Read the lines as a dispatcher does."""
    found = []
    for line in render("lava", document).splitlines():
        matched = SIGNAL.fullmatch(line)
        assert matched
        assert matched[1] == "TESTCASE"
        words = [x.partition("=") for x in matched[2].split()]
        found.append({key: value for key, _, value in words})
    return found


def test_lava_knows_every_verdict(document: Document) -> None:
    found = cases(judged(document, *Verdict))
    assert [x["RESULT"] for x in found] == [
        {"pass": "pass", "fail": "fail", "skip": "skip"}.get(x, "unknown")
        for x in Verdict
    ]
    names = [x["TEST_CASE_ID"] for x in found]
    assert names[:2] == ["patched.two-devices", "patched.two-devices.2"]
    assert len(set(names)) == len(names)


def test_lava_has_what_was_measured(document: Document) -> None:
    (run,) = document.runs
    bounded = replace(run, blackout_bound_ns=1_200_000)
    unknown = replace(run, blackout_ns=None)
    assert run.blackout_ns
    found = cases(Document.of([bounded, unknown]))
    assert found == [
        {
            "TEST_CASE_ID": "patched.two-devices",
            "RESULT": "pass",
            "UNITS": "ms",
            "MEASUREMENT": f"{run.blackout_ns / 1e6:.6f}",
        },
        {
            "TEST_CASE_ID": "patched.two-devices.bound",
            "RESULT": "pass",
            "UNITS": "ms",
            "MEASUREMENT": "1.200000",
        },
        {"TEST_CASE_ID": "patched.two-devices.2", "RESULT": "pass"},
    ]


def test_lava_of_hostile_text_keeps_its_form(tmp_path: Path) -> None:
    assert cases(evil_document(tmp_path))


# --- KCIDB ----------------------------------------------------------------


def kcidb(document: Document) -> Any:
    """Render a report, and let KCIDB's own library check it."""
    found = json.loads(render("kcidb", document))
    schema = kcidb_io.schema.LATEST
    assert (schema.major, schema.minor) == (5, 3)
    schema.validate(found)
    return found


def test_kcidb_has_the_parts_of_a_run(document: Document) -> None:
    found = kcidb(document)
    (run,) = document.runs
    (checkout,), (build,), (test,) = (
        found[x] for x in ("checkouts", "builds", "tests")
    )
    assert build["checkout_id"] == checkout["id"]
    assert test["build_id"] == build["id"]
    assert test["path"] == "vfio_p2p.two-devices"
    assert run.blackout_ns
    assert test["number"] == {
        "value": run.blackout_ns / 1e9,
        "unit": "s",
        "prefix": "metric",
    }


def test_kcidb_knows_every_verdict(document: Document) -> None:
    found = kcidb(judged(document, *Verdict))
    assert {x["misc"]["run"]: x["status"] for x in found["tests"]} == {
        f"seed {number}": {"inconclusive": "ERROR", "error": "MISS"}.get(
            verdict, verdict.upper()
        )
        for number, verdict in enumerate(Verdict, 1)
    }


def test_kcidb_tells_trees_apart(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    found = kcidb(collect([first, second]))
    assert [x["config_name"] for x in found["builds"]] == ["base", "patched"]
    # A run that is sent again is the same object.
    (test,) = kcidb(collect([second]))["tests"]
    assert test["id"] == found["tests"][1]["id"]


def test_kcidb_of_the_same_run_twice(tmp_path: Path) -> None:
    make_bundle(tmp_path / "a")
    make_bundle(tmp_path / "b")
    tests = kcidb(collect([tmp_path]))["tests"]
    assert len({x["id"] for x in tests}) == 2


def test_kcidb_of_hostile_text_keeps_its_form(tmp_path: Path) -> None:
    found = kcidb(evil_document(tmp_path))
    assert "\x1b" not in json.dumps(found, ensure_ascii=False)


# --- Prometheus -----------------------------------------------------------


def samples(document: Document) -> dict[str, list[Any]]:
    """Read the text as Prometheus' own parser does."""
    found: dict[str, list[Any]] = {}
    text = render("prometheus", document)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_prometheus_has_seconds(document: Document) -> None:
    (run,) = document.runs
    found = samples(document)
    (blackout,) = found["vfio_p2p_blackout_seconds"]
    assert run.blackout_ns
    assert blackout.value == run.blackout_ns / 1e9
    assert blackout.labels == {
        "scenario": "two-devices",
        "tree": "patched",
        "run": "seed 42",
        "qemu": "10.0.99",
    }
    phases = found["vfio_p2p_phase_seconds"]
    assert sum(x.value for x in phases) == pytest.approx(blackout.value)
    assert found["vfio_p2p_longest_p2p_arc_seconds"]


def test_prometheus_knows_every_verdict(document: Document) -> None:
    found = samples(judged(document, *Verdict))["vfio_p2p_verdict"]
    told = [x for x in found if x.value == 1]
    assert [x.labels["vfio_p2p_verdict"] for x in told] == [*Verdict]
    assert len(found) == len(Verdict) ** 2


def test_prometheus_takes_each_set_of_labels_once(
    document: Document,
) -> None:
    (run,) = document.runs
    found = samples(Document.of([run, later(run, 1), run]))
    told = [
        tuple(sorted(x.labels.items()))
        for x in found["vfio_p2p_blackout_seconds"]
    ]
    assert len(told) == len(set(told)) == 3


def test_prometheus_of_hostile_text_keeps_its_form(tmp_path: Path) -> None:
    evil = evil_document(tmp_path)
    found = samples(evil)
    assert found["vfio_p2p_verdict"][0].labels["scenario"] == (
        evil.runs[0].scenario
    )
