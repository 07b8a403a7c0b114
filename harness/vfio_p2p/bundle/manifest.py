# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest: what went in, how it ended, what is in the bundle."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

from vfio_p2p.scenario.result import Result

FORMAT = 1

MANIFEST = "manifest.json"
DIGEST = "digest"
SCENARIO = "scenario.json"
RESULT = "result.json"

# What the manifest cannot list.
OWN = (MANIFEST, DIGEST)


def device_log(device: str) -> str:
    """The file with what a device said itself.

    :param device: Its name, as QEMU's trace has it.
    """
    return f"devices/{device}.log"


def trace_file(qemu: str) -> str:
    """Where the trace log of a QEMU is.

    :param qemu: Name of its folder, e.g. ``source``.
    """
    return f"{qemu}/trace.log"


def digest_file(digest: str) -> bytes:
    """What the file ``digest`` holds.

    :param digest: SHA-256 of the manifest.
    """
    return f"{digest}\n".encode("ascii")


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """One patch, as it was applied."""

    name: str
    sha256: str


class MadeOf(msgspec.Struct, frozen=True, kw_only=True):
    """What the QEMU under test was built from, and with.

    :param source: SHA-256 over all files of the source.
    :param version: As in the source's file ``VERSION``.
    :param patches: What was applied to it, in order.
    :param compiler: First line of what the compiler says it is.
    :param meson: Version of meson.
    """

    source: str
    version: str
    patches: tuple[Patch, ...]
    compiler: str
    meson: str


class QemuInput(msgspec.Struct, frozen=True, kw_only=True):
    """The QEMU under test.

    :param variant: Name of the tree, e.g. ``base`` or ``patched``.
    :param build: Key in the build store.
    :param version: QEMU's version string.
    :param sha256: Of the binary.
    :param libraries: SHA-256 by name of the libraries that it ran with.
    :param made_of: What it was built from; None if that is not known.
    """

    variant: str
    build: str
    version: str
    sha256: str
    libraries: dict[str, str]
    made_of: MadeOf | None = None


class TestbedInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed run ran in.

    :param image: SHA-256 by name of the image's files: the kernel, the
        initramfs (modules, Python, the harness) and the firmware.
    :param outer: Version string of the QEMU that ran the outer VM.
    :param outer_sha256: Of its binary.
    :param arguments: Its arguments, without the paths of files.
    :param driver: The kernel module whose devices it had.
    :param kernel: Name and version of the kernel's package.
    :param compiler: First line of what the driver's compiler says it is.
    """

    __test__ = False        # not a test class, whatever pytest thinks

    image: dict[str, str]
    outer: str
    outer_sha256: str
    arguments: tuple[str, ...]
    driver: str = "p2psim"
    kernel: str = ""
    compiler: str = ""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """All that determines a sealed run."""

    qemu: QemuInput
    scenario: str
    seed: int
    testbed: TestbedInput


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the bundle."""

    sha256: str
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]

    @classmethod
    def of(cls, data: bytes) -> File:
        """The entry for a file with this content."""
        return cls(
            sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
        )


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """See the module's docstring; `files` is by relative path."""

    format: int = FORMAT
    kind: Literal["vfio-p2p bundle"] = "vfio-p2p bundle"
    inputs: Inputs
    result: Result
    files: dict[str, File]

    def to_json(self) -> bytes:
        """One JSON document, the same bytes for the same manifest."""
        return msgspec.json.format(
            msgspec.json.encode(self, order="sorted"), indent=1
        )
