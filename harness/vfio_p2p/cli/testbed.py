# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p testbed``: the outer VM of the sealed place."""

from __future__ import annotations

import argparse
import sys

from vfio_p2p.choice import VmKernel
from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.devices import Driver
from vfio_p2p.errors import UsageError
from vfio_p2p.plans.testbed import (
    SelfTested,
    ShellRequest,
    build_image,
    prepare_shell,
    selftest,
)
from vfio_p2p.trace import printable


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``testbed``."""
    parser = commands.add_parser(
        "testbed",
        help=summary,
        description="The VM in which QEMU meets real VFIO devices.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    image = actions.add_parser("image", help="build its image")
    options.add_device(image)
    _add_kernel(image)
    options.add_json(image)
    image.set_defaults(
        request=lambda x: (Driver(x.device), x.kernel), run=_image
    )
    tested = actions.add_parser(
        "selftest",
        help="p2psim's own test of what VFIO promises of a device",
        description="Build the test of the simulated device, run it in the "
        "outer VM, and print what it found.",
    )
    _add_kernel(tested)
    options.add_json(tested)
    tested.set_defaults(request=lambda x: x.kernel, run=_selftest)
    _add_shell(actions)


def _add_kernel(parser: argparse.ArgumentParser) -> None:
    options.add_kernel(parser)
    parser.set_defaults(kernel=VmKernel.DEBIAN)


def _add_shell(actions: options.Commands) -> None:
    parser = actions.add_parser(
        "shell",
        help="get a shell in it; Ctrl-a x ends it",
        description="Get a shell in the outer VM, with KVM if it works. "
        "/qemu/run is the QEMU under test; p2psim's devices are made in "
        "/sys/kernel/config/p2psim. 'poweroff -f' or Ctrl-a x ends the VM.",
    )
    options.add_origin(parser)
    options.add_device(parser)
    _add_kernel(parser)
    parser.add_argument(
        "--variant",
        default="patched",
        metavar="V",
        help="the QEMU to take along (default: %(default)s)",
    )
    parser.add_argument(
        "--scenario",
        default="two-devices",
        metavar="S",
        help="the scenario in /job (default: %(default)s)",
    )
    parser.set_defaults(request=_shell_request, run=_shell)


def _shell_request(args: argparse.Namespace) -> ShellRequest:
    return ShellRequest(
        origin=options.origin(args),
        driver=Driver(args.device),
        kernel=args.kernel,
        variant=args.variant,
        scenario=args.scenario,
    )


def _image(wanted: tuple[Driver, VmKernel], context: Context) -> int:
    driver, kernel = wanted
    with context.reporter() as reporter:
        image = build_image(driver, kernel, reporter)
    if context.json:
        context.show_json(
            {"format": 1, "key": image.key, "path": str(image.path)}
        )
    else:
        context.show(str(image.path))
    return 0


def _selftest(wanted: VmKernel, context: Context) -> int:
    with context.reporter() as reporter:
        tested = selftest(wanted, reporter)
    return show_selftest(tested, context)


def show_selftest(tested: SelfTested, context: Context) -> int:
    """Print what the selftest found.

    :param tested: The result.
    :param context: Where it is printed.
    :return: The exit code.
    """
    found, verdict = tested.found, tested.verdict
    if context.json:
        context.show_json(
            {
                "format": 1,
                "kind": "vfio-p2p selftest",
                "verdict": str(verdict),
                "passed": found.passed,
                "failed": list(found.failed),
                "console": str(tested.console),
            }
        )
        return verdict.exit_code
    for name in found.failed:
        context.show(f"not ok: {printable(name)}")
    if found.failed:
        context.show(f"all of it: {tested.console}")
    context.show(
        f"verdict: {verdict} ({found.passed} passed, "
        f"{len(found.failed)} failed)"
    )
    return verdict.exit_code


def _shell(wanted: ShellRequest, context: Context) -> int:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "a shell needs a terminal",
            "Run 'vfio-p2p testbed shell' in one, or see 'vfio-p2p run'.",
        )
    with context.reporter() as reporter:
        ready = prepare_shell(wanted, reporter, context.workshop)
    ready.run()
    return 0
