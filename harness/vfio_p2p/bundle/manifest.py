# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest: the inputs of a run, its result, and the list of files."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec

from vfio_p2p.bundle.provenance import Provenance, SealedProvenance
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side
from vfio_p2p.tells import Tells

# All formats up to this one can be read.  Format 1 had one QEMU for both
# sides, and 2 could not be of a host with real devices.
FORMAT = 3
_SEALED_FORMAT = 2

MANIFEST = "manifest.json"
DIGEST = "digest"
SCENARIO = "scenario.json"
RESULT = "result.json"

# The manifest cannot list these files.
OWN = (MANIFEST, DIGEST)


def device_log(device: str) -> str:
    """The path of a device's own log.

    :param device: The name of the device in QEMU's trace.
    """
    return f"devices/{device}.log"


def device_log_of(side: Side, device: str) -> str:
    """The path of the log of a device of one host of a pair.

    The devices of the two hosts can have the same names.

    :param side: The side that has the device.
    :param device: Its name in QEMU's trace.
    """
    return f"{side}/devices/{device}.log"


def trace_file(qemu: str) -> str:
    """The path of the trace log of a QEMU.

    :param qemu: The name of its folder, e.g. ``source``.
    """
    return f"{qemu}/trace.log"


def transcript_file(qemu: str) -> str:
    """The path of what was said over QMP.

    :param qemu: The name of the QEMU's folder, e.g. ``source``.
    """
    return f"{qemu}/qmp.jsonl"


def clock_file(qemu: str) -> str:
    """The path of the offset of a trace's clock.

    It is how far the wall clock was ahead of the trace's, in nanoseconds.

    :param qemu: The name of the QEMU's folder, e.g. ``source``.
    """
    return f"{qemu}/clock.txt"


def console_file(qemu: str) -> str:
    """The path of the log of a guest's console.

    :param qemu: The name of the folder of the guest's QEMU.
    """
    return f"{qemu}/console.log"


def stderr_file(qemu: str) -> str:
    """The path of what a QEMU printed.

    :param qemu: The name of its folder, e.g. ``source``.
    """
    return f"{qemu}/stderr.txt"


def digest_file(digest: str) -> bytes:
    """The content of the file ``digest``.

    :param digest: The SHA-256 of the manifest.
    """
    return f"{digest}\n".encode("ascii")


class AppliedPatch(msgspec.Struct, frozen=True, kw_only=True):
    """One patch, as it was applied.

    :param name: The name of its file.
    :param sha256: The SHA-256 of that file.
    """

    name: str
    sha256: str


class MadeOf(msgspec.Struct, frozen=True, kw_only=True):
    """The parts from which a QEMU was built, and the tools that built it.

    :param source: The SHA-256 over all files of the source.
    :param version: The content of the source's file ``VERSION``.
    :param patches: The patches that were applied to the source, in order.
    :param compiler: The first line of the version that the compiler
        reports.
    :param meson: The version of meson.
    """

    source: str
    version: str
    patches: tuple[AppliedPatch, ...]
    compiler: str
    meson: str


class ProgramInput(msgspec.Struct, frozen=True, kw_only=True):
    """A QEMU under test, by its content.

    :param variant: The name of the tree, e.g. ``base`` or ``patched``.
    :param build: The key of the build in the build store.
    :param version: QEMU's version string.
    :param sha256: The SHA-256 of the binary.
    :param libraries: SHA-256 by name of the libraries that it runs with.
    :param made_of: The parts from which it was built; None if they are not
        known.
    :param tells: How it tells of its migrations.
    """

    variant: str
    build: str
    version: str
    sha256: str
    libraries: dict[str, str]
    made_of: MadeOf | None = None
    tells: Tells = Tells.LOG


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines a run, as far as it can be known.

    :param source: The QEMU of the source.
    :param destination: The QEMU of the destination.
    :param scenario: The digest of the scenario.
    :param seed: The seed, which fixes everything random.
    :param place: What the place contributes.
    """

    source: ProgramInput
    destination: ProgramInput
    scenario: str
    seed: int
    place: Provenance

    @property
    def variant(self) -> str:
        """The name of the variant, or of both; see `variant_of`."""
        return variant_of(self.source, self.destination)

    @property
    def version(self) -> str:
        """The version string of QEMU, or both; see `version_of`."""
        return version_of(self.source, self.destination)


def variant_of(source: ProgramInput, destination: ProgramInput) -> str:
    """Name the variants of a run, e.g. ``base to patched``.

    :param source: The QEMU of the source.
    :param destination: The QEMU of the destination.
    :return: One name, if both have the same name and the same version.
    """
    if source.variant != destination.variant:
        return f"{source.variant} to {destination.variant}"
    if source.version == destination.version:
        return source.variant
    return " to ".join(
        f"{x.variant} {x.version.rpartition('version ')[2]}"
        for x in (source, destination)
    )


def version_of(source: ProgramInput, destination: ProgramInput) -> str:
    """Name the versions of a run's QEMUs, of equal ones only one.

    :param source: The QEMU of the source.
    :param destination: The QEMU of the destination.
    """
    return " to ".join(dict.fromkeys((source.version, destination.version)))


def inputs_from(raw: dict[str, Any]) -> Inputs:
    """Convert the ``inputs`` of a manifest or of a report.

    Those of format 1 have one QEMU for both sides, ``qemu``, and were all
    made in the testbed, ``testbed``.

    :param raw: The decoded JSON object.
    :raise msgspec.ValidationError: When it has neither format.
    """
    if "qemu" in raw and "testbed" in raw:
        testbed = msgspec.convert(raw["testbed"], dict[str, Any])
        raw = {
            "source": raw["qemu"],
            "destination": raw["qemu"],
            "scenario": raw.get("scenario"),
            "seed": raw.get("seed"),
            "place": {**testbed, "place": "sealed"},
        }
    return msgspec.convert(raw, Inputs)


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the bundle.

    :param sha256: The SHA-256 of its content.
    :param size_bytes: Its size.
    """

    sha256: str
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]

    @classmethod
    def of(cls, data: bytes) -> File:
        """Make the entry for a file with this content."""
        return cls(
            sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
        )


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest; see the module's docstring.

    :param inputs: What determines the run.
    :param result: How the run ended.
    :param files: Every other file of the bundle, by its relative path.
    """

    format: int
    kind: Literal["vfio-p2p bundle"] = "vfio-p2p bundle"
    inputs: Inputs
    result: Result
    files: dict[str, File]

    @classmethod
    def of(
        cls, inputs: Inputs, result: Result, files: dict[str, File]
    ) -> Manifest:
        """Make a manifest in the oldest format that can hold it.

        The digest of a sealed run would change with the format.
        """
        return cls(
            format=_SEALED_FORMAT
            if isinstance(inputs.place, SealedProvenance)
            else FORMAT,
            inputs=inputs,
            result=result,
            files=files,
        )

    def to_json(self) -> bytes:
        """Encode it: the same manifest always gives the same bytes."""
        return msgspec.json.format(
            msgspec.json.encode(self, order="sorted"), indent=1
        )


def manifest_from_json(data: bytes) -> Manifest:
    """Decode a manifest of any format up to `FORMAT`.

    :param data: The content of ``manifest.json``.
    :raise msgspec.DecodeError: When it is not a manifest.
    """
    raw = msgspec.json.decode(data, type=dict[str, Any])
    if raw.get("format") == 1 and isinstance(raw.get("inputs"), dict):
        raw["inputs"] = msgspec.to_builtins(inputs_from(raw["inputs"]))
    return msgspec.convert(raw, Manifest)
