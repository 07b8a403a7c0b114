# SPDX-License-Identifier: GPL-2.0-or-later
"""Sealed runs, with an outer VM that is a script."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_outer import GOOD, FakeTestbed, outer_vm
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.devices import Driver
from vfio_p2p.errors import TestbedError
from vfio_p2p.paths import cache_dir
from vfio_p2p.places import CachedPlace, Job
from vfio_p2p.places.sealed import vm as process
from vfio_p2p.places.sealed.mailbox import made
from vfio_p2p.plans.matrix import run_matrix
from vfio_p2p.qemu.program import Program
from vfio_p2p.scenario.load import load

HANG = """\
(folder / "pid").write_text(str(os.getpid()))
time.sleep(3600)
"""
SCENARIO = load("two-devices")


@pytest.fixture(autouse=True)
def _no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def vm(tmp_path: Path) -> Callable[[str], FakeTestbed]:
    """A testbed whose outer VM does what a script says."""
    return outer_vm(tmp_path)


def program() -> Program:
    """A program that ldd(1) can read."""
    found = shutil.which("true")
    assert found
    return Program.at(
        Path(found), variant="patched", build="1" * 32, version="10.0.99"
    )


async def run(
    testbed: FakeTestbed,
    path: Path,
    *,
    seed: int = 42,
    rerun: bool = False,
    limit_s: float = 60.0,
) -> str:
    """Run a job unless it was run before, and return the digest."""
    place = CachedPlace(testbed.place(program()), rerun=rerun)
    job = Job.of(program().what, SCENARIO, seed)
    return (await place.run(job, path, limit_s=limit_s)).digest


async def failure(testbed: FakeTestbed, bundle: Path) -> TestbedError:
    with pytest.raises(TestbedError) as caught:
        await run(testbed, bundle)
    assert not bundle.parent.exists() or not list(bundle.parent.iterdir())
    return caught.value


async def test_bundle_of_a_good_run(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    path = tmp_path / "bundles" / "one"
    digest = await run(vm(GOOD), path)
    bundle = open_bundle(path)
    assert bundle.digest == digest
    assert set(bundle.files) == {
        "digest", "manifest.json", "result.json", "scenario.json",
        "console.txt", "source/trace.log",
    }
    assert bundle.scenario == SCENARIO
    inputs = bundle.manifest.inputs
    assert inputs.seed == 42
    assert inputs.scenario == SCENARIO.digest
    assert inputs.source.variant == "patched"
    assert "ld.so" in inputs.source.libraries
    assert inputs.destination == inputs.source
    assert isinstance(inputs.place, SealedProvenance)
    assert not any(str(tmp_path) in x for x in inputs.place.arguments)
    assert inputs.place.driver == "p2psim"


async def test_whose_devices_is_part_of_the_bundle(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    testbed = vm(GOOD)
    other = replace(testbed, image=replace(testbed.image, driver=Driver.MTTY))
    digests = [
        await run(each, tmp_path / "b" / name)
        for each, name in ((testbed, "one"), (other, "two"))
    ]
    assert digests[0] != digests[1]
    inputs = open_bundle(tmp_path / "b" / "two").manifest.inputs
    assert inputs.place.driver == "mtty"


async def test_another_seed_is_another_run(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    testbed = vm(GOOD)
    one, two = [
        await run(testbed, tmp_path / f"b{seed}", seed=seed)
        for seed in (1, 2)
    ]
    assert one != two


async def test_one_run_is_enough(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    one, two = tmp_path / "b" / "one", tmp_path / "b" / "two"
    digest = await run(vm(GOOD), one)
    assert await run(vm(""), two) == digest
    assert open_bundle(two).files == open_bundle(one).files


async def test_a_damaged_one_is_run_again(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    path = tmp_path / "b" / "one"
    digest = await run(vm(GOOD), path)
    for kept in (cache_dir() / "results").rglob("trace.log"):
        kept.write_text("other")
    await failure(vm(""), tmp_path / "c" / "one")
    assert await run(vm(GOOD), path) == digest
    assert await run(vm(""), path) == digest


async def test_one_of_a_newer_format_is_left_alone(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    digest = await run(vm(GOOD), tmp_path / "b" / "one")
    (kept,) = (cache_dir() / "results").rglob("manifest.json")
    text = json.dumps({**json.loads(kept.read_text()), "format": 99})
    kept.write_text(text)
    assert await run(vm(GOOD), tmp_path / "b" / "two") == digest
    assert kept.read_text() == text


async def test_what_kills_have_left_in_the_cache_goes(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    left = [
        cache_dir() / "results" / name / ".vfio-p2p-tmp-x"
        for name in ("00", "ff")
    ]
    for path in left:
        path.mkdir(parents=True)
    place = CachedPlace(vm("").place(program()))
    assert await run_matrix(place, [], tmp_path / "b", 1) == []
    assert not any(path.exists() for path in left)


async def test_rerun(tmp_path: Path, vm: Callable[[str], FakeTestbed]) -> None:
    path = tmp_path / "b" / "one"
    digest = await run(vm(GOOD), path)
    again = await run(vm(GOOD), path, rerun=True)
    assert again == digest


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("source/trace.log", "trace\nmore", "source/trace.log:2 was '', is"),
        ("source/trace.log", "trade", "source/trace.log:1 was 'trace', is"),
        ("devices/x", "", "were left, now ['console.txt', 'devices/x'"),
    ],
)
async def test_rerun_that_differs(
    tmp_path: Path,
    vm: Callable[[str], FakeTestbed],
    name: str,
    text: str,
    where: str,
) -> None:
    path = tmp_path / "b" / "one"
    digest = await run(vm(GOOD), path)
    changed = tmp_path / "out" / name
    changed.parent.mkdir(exist_ok=True)
    changed.write_text(text)
    with pytest.raises(TestbedError, match="the repeated run differs") as err:
        await run(vm(GOOD), path, rerun=True)
    assert where in err.value.what
    # The cache keeps the bundle of the first run.
    assert open_bundle(path).digest != digest
    assert await run(vm(""), path) == digest


async def test_vm_that_leaves_nothing(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    err = await failure(vm(""), tmp_path / "bundles" / "one")
    assert "without leaving a bundle" in err.what
    console = cache_dir() / "logs" / "one.console.txt"
    assert str(console) in err.hint
    assert "oops" in console.read_text()


async def test_vm_that_says_what_went_wrong(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    (tmp_path / "out" / "error.txt").write_text("no p2psim\nload it\n")
    err = await failure(vm(GOOD), tmp_path / "bundles" / "one")
    assert err.what == "no p2psim"
    assert err.hint.startswith("load it The VM's")


async def test_kernel_that_has_found_an_error(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    testbed = vm(f"{GOOD}Path('console.txt').write_text('BUG: KASAN: x')\n")
    err = await failure(testbed, tmp_path / "bundles" / "one")
    assert err.what == (
        "the testbed's kernel has found an error: BUG: KASAN: x"
    )


async def test_vm_that_leaves_no_result(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    (tmp_path / "out" / "result.json").unlink()
    err = await failure(vm(GOOD), tmp_path / "bundles" / "one")
    assert "no result" in err.what


async def test_outer_qemu_that_fails(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    testbed = vm("sys.exit('qemu: cannot allocate memory')")
    err = await failure(testbed, tmp_path / "bundles" / "one")
    assert "qemu: cannot allocate memory" in err.what


@pytest.mark.parametrize("counted", [True, False])
async def test_outer_vm_that_is_killed(
    tmp_path: Path,
    vm: Callable[[str], FakeTestbed],
    monkeypatch: pytest.MonkeyPatch,
    counted: bool,
) -> None:
    stat = tmp_path / "vmstat"
    stat.write_text("oom_kill 1\nzswpin 0\n")
    monkeypatch.setattr(process, "_VMSTAT", stat)
    count = f"open({str(stat)!r}, 'w').write('oom_kill 2')\n"
    testbed = vm(f"{count if counted else ''}os.kill(os.getpid(), 9)")
    err = await failure(testbed, tmp_path / "bundles" / "one")
    assert "was killed" in err.what
    assert ("the kernel killed" in err.what) == counted
    assert "memory" in err.what
    assert "--jobs" in err.hint
    assert "one.console.txt" in err.hint
    stat.unlink()
    err = await failure(vm("os.kill(os.getpid(), 9)"), tmp_path / "b" / "one")
    assert "the usual cause" in err.what


async def test_disk_that_is_filled_while_the_vm_runs(
    tmp_path: Path,
    vm: Callable[[str], FakeTestbed],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel says so with SIGBUS."""
    free = shutil.disk_usage(tmp_path)._replace(free=12 << 20)
    path = tmp_path / "b" / "one"
    bus = vm("os.kill(os.getpid(), 7)")
    err = await failure(bus, path)
    assert "ended with -7" in err.what
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with made() as mailbox, pytest.raises(OSError, match="No space"):
        await process.run_booted(
            bus.outer, bus.image, 1, mailbox, tmp_path, 60
        )


async def test_outer_vm_that_hangs(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    path = tmp_path / "bundles" / "one"
    with pytest.raises(TestbedError, match="did not end within 1 s"):
        await run(vm(HANG), path, limit_s=1)
    gone(tmp_path)
    assert list(path.parent.iterdir()) == []


async def test_cancelled_run_leaves_nothing(
    tmp_path: Path, vm: Callable[[str], FakeTestbed]
) -> None:
    path = tmp_path / "bundles" / "one"
    task = asyncio.create_task(run(vm(HANG), path))
    await asyncio.to_thread(wait_for, tmp_path / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gone(tmp_path)
    assert list(path.parent.iterdir()) == []


def wait_for(path: Path) -> None:
    for _ in range(6000):
        if path.exists() and path.read_text():
            return
        time.sleep(0.01)
    pytest.fail(f"no {path.name}")


def gone(folder: Path) -> None:
    """Check that the outer VM has ended, if it was started at all."""
    if (folder / "pid").exists():
        pid = int((folder / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
