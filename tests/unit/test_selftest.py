# SPDX-License-Identifier: GPL-2.0-or-later
"""What the simulated device's own test says, and whether it said it all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main, testbed
from harness.errors import TestbedError
from harness.testbed.selftest import SelfTest, read_console

GOOD = """\
[    0.5] p2psim: loading out-of-tree module taints kernel.\r
ok 1 - peers of a\r
not ok 2 - state of b\r
# got 3, want 4\r
# got 5, want 6\r
ok 3 - size of b\r
# a remark\r
1..3\r
# 1 failed\r
testbed: the selftest ended with 1\r
[   10.8] reboot: Power down"""


def test_what_failed_and_why() -> None:
    assert read_console(GOOD) == SelfTest(
        2, ("state of b; got 3, want 4; got 5, want 6",)
    )


def test_remarks_at_the_end_are_of_no_case() -> None:
    text = GOOD.replace("ok 3 - size of b\r\n# a remark\r\n1..3", "1..2")
    assert read_console(text).failed == (
        "state of b; got 3, want 4; got 5, want 6",
    )


def test_all_is_well() -> None:
    text = GOOD.replace("not ok", "ok").replace("with 1", "with 0")
    assert read_console(text) == SelfTest(3, ())


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("ok 3 - size of b\r\n", "", "broke off after 2 cases"),
        ("1..3\r\n", "", "broke off after 3 cases"),
        ("testbed: the selftest ended with 1", "", "broke off"),
        ("with 1", "with 0", "ended with 0, and 1 cases failed"),
        ("ok 3 - size", "Bail out! no p2psim (\x1b)", "Bail out! no p2psim"),
    ],
)
def test_what_proves_nothing(old: str, new: str, why: str) -> None:
    assert old in GOOD
    with pytest.raises(TestbedError, match=why) as caught:
        read_console(GOOD.replace(old, new))
    assert caught.value.what.isprintable()


def test_nothing_at_all_proves_nothing() -> None:
    text = "1..0\ntestbed: the selftest ended with 0\n"
    with pytest.raises(TestbedError, match="after 0 cases"):
        read_console(text)


@pytest.mark.parametrize(
    ("found", "code", "verdict"),
    [
        (SelfTest(791, ()), 0, "pass (791 passed, 0 failed)"),
        (SelfTest(790, ("state of b",)), 1, "fail (790 passed, 1 failed)"),
    ],
)
def test_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: SelfTest,
    code: int,
    verdict: str,
) -> None:
    monkeypatch.setattr(testbed, "find_outer", lambda: None)
    monkeypatch.setattr(
        testbed, "run_selftest", lambda *_: (found, Path("/console"))
    )
    assert main(["testbed", "selftest"]) == code
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"verdict: {verdict}"
    assert ("not ok: state of b\nall of it: /console" in out) == bool(code)
    assert main(["testbed", "selftest", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["failed"] == list(found.failed)


def test_one_that_does_not_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise TestbedError("the selftest broke off after 3 cases")

    monkeypatch.setattr(testbed, "find_outer", lambda: None)
    monkeypatch.setattr(testbed, "run_selftest", run)
    assert main(["testbed", "selftest"]) == 5
    assert "broke off" in capsys.readouterr().err
