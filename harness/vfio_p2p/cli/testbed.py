# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p testbed``: the outer VM."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from vfio_p2p.cli.build import (
    add_source_arguments,
    build_all,
    choose_source,
    choose_variants,
)
from vfio_p2p.cli.device import add_device_argument, driver_of, load_for
from vfio_p2p.cli.progress import display
from vfio_p2p.errors import UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places.sealed.image import get_image
from vfio_p2p.places.sealed.load import write_initramfs
from vfio_p2p.places.sealed.outer import find_outer
from vfio_p2p.places.sealed.selftest import run_selftest
from vfio_p2p.places.sealed.shell import run_shell
from vfio_p2p.qemu.program import Program
from vfio_p2p.trace import printable


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``testbed``."""
    parser = commands.add_parser(
        "testbed",
        help="the outer VM: its image, its selftest, a shell in it",
        description="The VM in which QEMU meets real VFIO devices.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    image = actions.add_parser("image", help="build its image")
    add_device_argument(image)
    image.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    image.set_defaults(run=_image)
    selftest = actions.add_parser(
        "selftest",
        help="p2psim's own test, of what VFIO promises of a device",
        description="Build the test of the simulated device, run it in the "
        "outer VM, and print what it found.",
    )
    selftest.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    selftest.set_defaults(run=_selftest)
    shell = actions.add_parser(
        "shell",
        help="get a shell in it; Ctrl-a x ends it",
        description="Get a shell in the outer VM, with KVM if it works. "
        "/qemu/run is the QEMU under test; p2psim's devices are made in "
        "/sys/kernel/config/p2psim (images/p2psim/README.md). "
        "'poweroff -f' or Ctrl-a x ends it.",
    )
    add_source_arguments(shell)
    add_device_argument(shell)
    shell.add_argument(
        "--variant",
        default="patched",
        metavar="V",
        help="the QEMU to take along (default: %(default)s)",
    )
    shell.add_argument(
        "--scenario",
        default="two-devices",
        metavar="S",
        help="the scenario in /job (default: %(default)s)",
    )
    shell.set_defaults(run=_shell)


def _image(args: argparse.Namespace) -> int:
    with display() as shown:
        line = shown.line("testbed")
        image = get_image(line, driver_of(args))
        line.end("ready")
    if args.json:
        document = {"format": 1, "key": image.key, "path": str(image.path)}
        print(json.dumps(document, indent=2))
    else:
        print(image.path)
    return 0


def _selftest(args: argparse.Namespace) -> int:
    outer = find_outer()
    with display() as shown:
        line = shown.line("selftest")
        found, console = run_selftest(outer, line)
        line.end("done")
    verdict = Verdict.FAIL if found.failed else Verdict.PASS
    if args.json:
        document = {
            "format": 1,
            "kind": "vfio-p2p selftest",
            "verdict": str(verdict),
            "passed": found.passed,
            "failed": list(found.failed),
            "console": str(console),
        }
        print(json.dumps(document, indent=2))
        return verdict.exit_code
    for name in found.failed:
        print(f"not ok: {printable(name)}")
    if found.failed:
        print(f"all of it: {console}")
    print(f"verdict: {verdict} ({found.passed} passed, "
          f"{len(found.failed)} failed)")
    return verdict.exit_code


def _shell(args: argparse.Namespace) -> int:
    if not sys.stdin.isatty():
        raise UsageError(
            "a shell needs a terminal",
            "run 'vfio-p2p testbed shell' in one, or see 'vfio-p2p run'",
        )
    driver = driver_of(args)
    scenario = load_for(driver, args.scenario)
    outer = find_outer()
    base, source = choose_source(args)
    (variant,) = choose_variants(base, source, [args.variant])
    with display() as shown:
        (made,) = build_all(source, [variant], shown)
        program = Program.of(made)
        line = shown.line("testbed")
        image = get_image(line, driver)
        line.end("ready")
    with tempfile.TemporaryDirectory(prefix="vfio-p2p-") as name:
        initramfs = Path(name, "initramfs.cpio")
        write_initramfs(
            initramfs,
            image,
            program.files(),
            scenario=scenario.to_json(),
        )
        run_shell(outer, image, initramfs)
    return 0
