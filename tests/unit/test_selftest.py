# SPDX-License-Identifier: GPL-2.0-or-later
"""The output of the simulated device's own test, whole or broken off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vfio_p2p.cli.context import Context, Printer
from vfio_p2p.cli.testbed import show_selftest
from vfio_p2p.errors import TestbedError
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed import selftest
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.kit import Kit
from vfio_p2p.places.sealed.outer import CONSOLE
from vfio_p2p.places.sealed.selftest import SelfTest, read_console
from vfio_p2p.plans.testbed import SelfTested

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


@pytest.mark.parametrize("why", ["SKIP no peers", "skip", "TODO"])
def test_what_is_skipped_has_not_passed(why: str) -> None:
    text = GOOD.replace("not ok", "ok").replace("with 1", "with 0")
    text = text.replace("size of b", f"size of b # {why}")
    found = read_console(text)
    assert found.passed == 2
    assert found.failed == (f"size of b # {why}; a remark",)
    # The name of a case may contain the word.
    text = text.replace(f"# {why}", "of a skip")
    assert read_console(text) == SelfTest(3, ())


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("ok 3 - size of b\r\n", "", "broke off after 2 cases"),
        ("1..3\r\n", "", "broke off after 3 cases"),
        ("testbed: the selftest ended with 1", "", "broke off"),
        ("with 1", "with 0", "ended with 0, and 1 cases failed"),
        ("ok 3 - size", "ok 1 - size", "not those from 1 to 3"),
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
    capsys: pytest.CaptureFixture[str],
    found: SelfTest,
    code: int,
    verdict: str,
) -> None:
    tested = SelfTested(found, Path("/console"))
    assert show_selftest(tested, Context(Printer())) == code
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"verdict: {verdict}"
    assert ("not ok: state of b\nall of it: /console" in out) == bool(code)
    assert show_selftest(tested, Context(Printer(), json=True)) == code
    document = json.loads(capsys.readouterr().out)
    assert document["failed"] == list(found.failed)


@pytest.fixture
def vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A fake VM that leaves this console, if any."""
    console: dict[str, str] = {}

    async def run_booted(
        _outer: object, _image: object, _seed: object, _mailbox: object,
        work: Path, *_: object, **__: object,
    ) -> None:
        for name, text in console.items():
            (work / name).write_text(text)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (cache_dir() / "testbed").mkdir(parents=True)
    image = Image("0" * 32, tmp_path / "image", {}, Kit(tmp_path / "kit", {}))
    image.path.mkdir()
    image.initramfs.write_bytes(b"")
    monkeypatch.setattr(selftest, "get_image", lambda _, kernel: image)
    monkeypatch.setattr(selftest, "_build", lambda _: b"")
    monkeypatch.setattr(selftest, "run_booted", run_booted)
    monkeypatch.setattr(selftest, "get_outer", lambda _: None)
    return console


def test_two_at_once_do_not_read_each_other(
    vm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vm[CONSOLE] = GOOD

    def write_whole(path: Path, data: bytes) -> None:
        assert data == GOOD.encode()
        path.parent.mkdir(parents=True)
        path.write_text("of the other one")

    monkeypatch.setattr(selftest, "write_whole", write_whole)
    found, _ = selftest.run_selftest()
    assert found.passed == 2


def test_a_console_of_before_is_not_read(vm: dict[str, str]) -> None:
    vm[CONSOLE] = GOOD
    _, kept = selftest.run_selftest()
    assert kept.read_bytes() == GOOD.encode()
    vm.clear()
    with pytest.raises(TestbedError, match="broke off after 0 cases"):
        selftest.run_selftest()
    assert kept.read_bytes() == b""
