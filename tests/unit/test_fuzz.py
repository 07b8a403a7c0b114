# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzzer finds what is planted, and every way in has a target."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import vfio_p2p

ROOT = Path(vfio_p2p.__file__).parent
FUZZ = Path(__file__).resolve().parents[1] / "fuzz"

# Targets that do each thing that must not be done, for some inputs.
PLANTED = """\
import sys, time
from pathlib import Path
sys.path.insert(0, {fuzz!r})
import fuzz
from targets import Target
from vfio_p2p.errors import HarnessError, InputError

def crash(path):
    if b"7" in path.read_bytes():
        raise KeyError("planted")

def hang(path):
    if b"7" in path.read_bytes():
        while True:
            pass

def grow(path):
    if b"7" in path.read_bytes():
        kept = bytearray(1 << 30)

def mute(path):
    if b"7" in path.read_bytes():
        raise HarnessError("it is wrong", "")

def killed(path):
    if b"7" in path.read_bytes():
        import os, signal
        os.kill(os.getpid(), signal.SIGSEGV)

def good(path):
    raise InputError("it is wrong", "Give another one.")

def damage(draw, data, other):
    return b"%d" % draw.randrange(20)

def clumsy(draw, data, other):
    return b"%d" % (1 // (draw.randrange(20) - 7))

def target(run, damage=damage):
    return Target(run, lambda folder: [b"0"], (), damage=damage)

def load():
    found = {{x.__name__: target(x)
             for x in (crash, hang, grow, mute, killed, good)}}
    return {{**found, "clumsy": target(good, clumsy)}}

sys.exit(fuzz.main(sys.argv[1:], load))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Fuzz the planted targets."""
    script = folder / "planted.py"
    script.write_text(PLANTED.format(fuzz=str(FUZZ)))
    return subprocess.run(
        [sys.executable, script, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("crash", "failure: KeyError at "),
        ("hang", "failure: it took more than 5 s of CPU time"),
        ("grow", "failure: MemoryError at "),
        ("mute", "failure: no hint: HarnessError"),
        ("killed", "failure: the process was ended by SIGSEGV"),
    ],
)
def test_what_is_planted_is_found(
    target: str, said: str, tmp_path: Path
) -> None:
    # Each input that hangs takes 5 s.
    count = "8" if target == "hang" else "60"
    words = ["--engine", "mutator", "--only", target, "--executions", count]
    found = run(tmp_path, *words)
    assert found.returncode == 1, found.stderr
    assert said in found.stdout
    assert f"{target} (mutator): {count} executions" in found.stdout
    kept = sorted(tmp_path.glob(f"out/fuzz/{target}-*"))
    assert kept
    assert b"7" in kept[0].read_bytes()
    if target == "crash":
        again = run(tmp_path, "replay", target, str(kept[0]))
        assert again.returncode == 1
        assert "KeyError: 'planted'" in again.stderr


def test_an_error_of_ours_is_none(tmp_path: Path) -> None:
    words = ["--engine", "mutator", "--only", "good", "--executions", "30"]
    found = run(tmp_path, *words)
    assert found.returncode == 0, found.stdout
    assert "30 InputError" in found.stdout
    assert not (tmp_path / "out").exists()


def test_an_execution_is_a_function_of_its_number(tmp_path: Path) -> None:
    words = ["--engine", "mutator", "--only", "crash", "--executions", "60"]
    for folder in ("a", "b"):
        run(tmp_path, *words, "--seed", "3", "--keep", folder)
    found = sorted(os.listdir(tmp_path / "a"))
    assert found == sorted(os.listdir(tmp_path / "b"))
    assert found


# By these, bytes of a file come in, and here they are those of a foreign one.
OPENS = {"read_file", "sys.stdin.buffer.read", "zipfile.ZipFile"}
# Modules that open such a file in another way.
OTHERS = {
    "history/database.py", "qemu/binary.py", "timeline/build.py",
    "timeline/logs.py",
}  # fmt: skip


def ways_in() -> set[str]:
    """Return the modules that read what comes from elsewhere."""
    found = set(OTHERS)
    for path in ROOT.rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if name.startswith(("agent/", "machine/")):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in OPENS:
                found.add(name)
    # It writes what open_bundle() has read, and this is our own note.
    return found - {"bundle/write.py"}


def test_every_way_in_has_a_target() -> None:
    done = subprocess.run(
        [
            sys.executable, "-c",
            "from targets import TARGETS\n"
            "print(*{y for x in TARGETS.values() for y in x.ways})",
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT.parent}:{FUZZ}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == ways_in()


def test_every_target_reads_its_seeds(tmp_path: Path) -> None:
    """A target whose inputs are all refused would find nothing."""
    done = subprocess.run(
        [
            sys.executable, FUZZ / "fuzz.py", "--engine", "mutator",
            "--executions", "40", "--keep", tmp_path / "kept",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    parts = done.stdout.split(" (mutator): 40 executions")[1:]
    assert len(parts) > 10
    assert all(" answer\n" in x for x in parts), done.stdout


# An engine that keeps what it found damages an input again and again.
AGAIN = """\
import random, tempfile
from pathlib import Path
from targets import TARGETS
for name, target in TARGETS.items():
    with tempfile.TemporaryDirectory() as folder:
        seeds = target.seeds(Path(folder))
    draw = random.Random(name)
    for _ in range(40):
        data = draw.choice(seeds)
        for _ in range(8):
            data = target.damage(draw, data, draw.choice(seeds))
    print(name, len(data))
"""


def test_damaged_inputs_can_be_damaged_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN],
        env={**os.environ, "PYTHONPATH": f"{ROOT.parent}:{FUZZ}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 10


def test_a_fuzzer_that_fails_says_why(tmp_path: Path) -> None:
    words = ["--engine", "mutator", "--only", "clumsy", "--executions", "60"]
    found = run(tmp_path, *words)
    assert found.returncode == 1
    assert "failure: the process ended with 2" in found.stdout
    # Once after some executions, and once before the first.
    assert found.stdout.count("ZeroDivisionError: ") == 2
