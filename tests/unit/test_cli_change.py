# SPDX-License-Identifier: GPL-2.0-or-later
"""``validate --patch`` with a workshop that builds and runs nothing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle, without_stop
from mails import mail
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError, PatchError
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.progress import Progress
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.report.collect import collect
from vfio_p2p.report.formats import FORMATS, render
from vfio_p2p.series import Variant
from workshops import FakeWorkshop

DIFF = b"""\
Why.

---
diff --git a/%s b/%s
--- a/%s
+++ b/%s
@@ -1 +1 @@
-a
+b
"""
FILE = "hw/vfio/migration.c"
TWO = ("--scenario", "two-devices")


@dataclass
class Machine(FakeWorkshop):
    """A workshop that makes bundles of two devices; other runs just pass.

    :param breaks: The variants whose device is left in STOP_COPY.
    """

    breaks: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.make = self._make

    def _make(self, cell: Cell, path: Path) -> None:
        if cell.job.scenario.name != "two-devices":
            return
        make_bundle(
            path,
            scenario=cell.job.scenario,
            variant=cell.variant,
            source=without_stop() if cell.variant in self.breaks else None,
            seed=cell.job.seed,
        )


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    """A patch of hw/vfio/migration.c."""
    return write(tmp_path / "my change.patch", FILE)


def write(path: Path, changed: str) -> Path:
    path.write_bytes(
        mail(DIFF % ((changed.encode(),) * 4), "[PATCH v2] vfio: Do this")
    )
    return path


def validate(machine: Machine, patch: Path, *words: str) -> int:
    """Run the command, and return its exit code."""
    out = patch.parent / "out"
    return main(
        ["validate", "--patch", str(patch), "--out", str(out), *words],
        machine,
    )


def report(patch: Path) -> Any:
    """Return the report for programs."""
    return json.loads((patch.parent / "out" / "report.json").read_bytes())


def test_a_change_that_keeps_all(
    machine: Machine, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(machine, patch, *TWO, "--seeds", "2") == 0
    assert machine.built == [("10.2", "stock"), ("10.2", "stock+my-change")]
    assert machine.names == [
        f"{tree}-two-devices-s{seed}"
        for tree in ("stock", "stock+my-change")
        for seed in (42, 43)
    ]
    change = report(patch)["change"]
    assert change["changed"] == [FILE]
    assert change["subjects"] == ["vfio: Do this"]
    assert change["seeds"] == [42, 43]
    (trial,) = change["trials"]
    assert (trial["fate"], trial["a"]) == ("as before", "2 pass, migrated")
    assert trial["a_ns"] == trial["b_ns"] > 0
    out = capsys.readouterr().out
    assert "B: stock+my-change: A with vfio: Do this\n" in out
    assert "verdict: pass (1 as before)\n" in out
    assert '  Tested "vfio: Do this" with vfio-p2p on QEMU 10.2.99: ' in out
    assert "seeds 42-43" in out
    assert "\n  Tested-by: YOUR NAME <YOUR@ADDRESS>\n" in out


def test_a_change_that_breaks_something(
    machine: Machine, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.breaks.add("stock+my-change")
    assert validate(machine, patch, *TWO) == 1
    (trial,) = report(patch)["change"]["trials"]
    assert trial["fate"] == "broken"
    assert "left" in trial["breaks"]
    out = capsys.readouterr().out
    assert "\nbroken: left (source), in two-devices, seed 42\n" in out
    assert "verdict: fail (1 broken)\n" in out
    assert "  Broken with the patch: left, in two-devices, seed 42\n" in out
    assert "Tested-by" not in out


def test_a_change_that_repairs_something(
    machine: Machine, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.breaks.add("stock")
    assert validate(machine, patch, *TWO) == 0
    (trial,) = report(patch)["change"]["trials"]
    assert trial["fate"] == "repaired"
    assert "left" in trial["repairs"]
    out = capsys.readouterr().out
    assert "\n  repaired: " in out
    assert "Tested-by" in out


def test_what_was_broken_before_is_not_the_patchs_fault(
    machine: Machine, patch: Path
) -> None:
    machine.breaks |= {"stock", "stock+my-change"}
    assert validate(machine, patch, *TWO) == 0
    (trial,) = report(patch)["change"]["trials"]
    assert trial["fate"] == "broken before"


def test_the_changed_files_choose_the_scenarios(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = write(tmp_path / "x.patch", "hw/net/e1000.c")
    assert validate(machine, patch) == 0
    names = [x["scenario"] for x in report(patch)["change"]["trials"]]
    assert names == ["four-devices", "one-device", "two-devices"]
    assert "(hw/net/e1000.c)" in capsys.readouterr().out


def test_a_change_of_words_is_skipped(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = write(tmp_path / "x.patch", "docs/x.rst")
    assert validate(machine, patch) == 4
    assert "no scenario bears on docs/x.rst" in capsys.readouterr().err
    assert machine.built == []
    assert validate(machine, patch, *TWO) == 0


def test_a_patch_that_does_not_build(
    machine: Machine, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.refuses["my-change"] = BuildError(
        "ninja failed", Path("x.log"), "migration.c:1: error: what?"
    )
    assert validate(machine, patch, *TWO) == 1
    assert machine.ran == []
    assert "what?" in report(patch)["change"]["not_built"]
    out = capsys.readouterr().out
    assert "\nB does not build:\n  ninja failed\n  migration.c:1" in out
    assert '  Applied "vfio: Do this" to QEMU 10.2.99 (stock)' in out
    assert "Tested-by" not in out
    suites = ET.parse(patch.parent / "out" / "junit.xml").getroot()
    assert suites[0].get("failures") == "1"


@pytest.mark.parametrize(("a", "b", "code"), [("1", "1", 4), ("1", "2", 0)])
def test_a_change_that_is_not_in_the_binary(
    patch: Path,
    a: str,
    b: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Compiled(Machine):
        def build(
            self,
            source: Source,
            variant: Variant,
            progress: Progress,
            checks: Checks = NO_CHECKS,
        ) -> Build:
            """Return a build with the digest of a binary."""
            found = super().build(source, variant, progress, checks)
            return replace(found, sha256=b if "+" in variant.name else a)

    machine = Compiled()
    assert validate(machine, patch, *TWO) == code
    assert bool(machine.ran) == (code == 0)
    assert ("to the byte" in capsys.readouterr().err) == (code == 4)


def test_a_tree_that_does_not_build_without_the_patch(
    machine: Machine, patch: Path
) -> None:
    machine.refuses[""] = BuildError("ninja failed", Path("x.log"))
    assert validate(machine, patch, *TWO) == 5


def test_a_patch_that_does_not_apply(
    machine: Machine, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.unpatchable = PatchError("my", FILE, "@@ -1 +1 @@", "no")
    assert validate(machine, patch, *TWO) == 2
    assert machine.built == []
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert FILE in said[0]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--qemu", "x"], "--qemu has no effect with --patch"),
        (["--mutant", "x"], "--mutant has no effect with --patch"),
        (["--fail-above-p2p", "1"], "--fail-above-p2p has no effect"),
        (["--against", "installed"], "'installed' is not built"),
        (
            ["--against", "patched", "--base", "v11.1"],
            "base v11.1 has no variant 'patched'",
        ),
        (["--scenario", "x"], "no scenario 'x'"),
    ],
)
def test_bad_usage(
    machine: Machine,
    patch: Path,
    words: list[str],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert validate(machine, patch, *words) == 2
    assert machine.built == []
    assert why in capsys.readouterr().err


def test_against_needs_a_patch(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--against", "stock"], machine) == 2
    assert "--against has no effect" in capsys.readouterr().err


def test_a_file_that_is_not_there(machine: Machine, tmp_path: Path) -> None:
    assert validate(machine, tmp_path / "none.patch") == 2


def test_the_tree_below_may_be_any_that_is_built(
    machine: Machine, patch: Path
) -> None:
    words = ("--base", "v10.0", "--against", "patched")
    assert validate(machine, patch, *words, *TWO) == 0
    assert machine.built[:2] == [
        ("10.0", "patched"),
        ("10.0", "patched+my-change"),
    ]


def test_the_report_is_read_back_and_rendered(
    machine: Machine, patch: Path
) -> None:
    machine.breaks.add("stock+my-change")
    assert validate(machine, patch, *TWO) == 1
    document = collect([patch.parent / "out" / "report.json"])
    assert document.verdict.exit_code == 1
    assert document.change is not None
    for name in FORMATS:
        assert "two-devices" in render(name, document), name
    page = render("html", document)
    assert "The change, scenario by scenario" in page
    suite = ET.fromstring(render("junit", document))[0]
    assert suite.get("failures") == "1"
    assert suite[0].get("name") == "two-devices"


def test_a_report_that_denies_what_it_holds(
    machine: Machine, patch: Path
) -> None:
    """A verdict is checked by the contents of its report."""
    machine.breaks.add("stock+my-change")
    assert validate(machine, patch, *TWO) == 1
    found = report(patch)
    path = patch.parent / "forged.json"
    path.write_text(json.dumps({**found, "verdict": "pass"}))
    assert collect([path]).verdict.exit_code == 1
    machine.breaks.clear()
    assert validate(machine, patch, *TWO) == 0
    assert collect([patch.parent / "out" / "report.json"]).verdict == "pass"


def test_how_to_run_it_again(machine: Machine, patch: Path) -> None:
    assert validate(machine, patch, *TWO, "--seeds", "3") == 0
    document = collect([patch.parent / "out" / "report.json"])
    assert (
        f"vfio-p2p validate --patch '{patch}' --against stock --scenario "
        "two-devices --base v10.2 --seed 42 --seeds 3\n"
    ) in render("text", document)


def test_the_readers_own_tree(machine: Machine, patch: Path) -> None:
    words = ("--source", "/my/qemu")
    assert validate(machine, patch, *words, *TWO) == 0
    assert machine.built == [("10.0", "stock"), ("10.0", "stock+my-change")]
    document = collect([patch.parent / "out" / "report.json"])
    assert "--source /my/qemu --base v10.0 " in render("text", document)
