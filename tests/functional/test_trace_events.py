# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of trace formats equals what Debian's QEMUs print.

Debian's package qemu-system-common holds the file trace-events-all, from
which the readers of the `simple` backend take the events of that build.
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile

from avocado import Test
from vfio_p2p.errors import HostError
from vfio_p2p.qemu.apt import AptRoot
from vfio_p2p.trace.formats import FORMATS, VERSIONS, release_number

_PACKAGE = "qemu-system-common"
_SUITES = (
    "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"
)
_PATH = "./usr/share/qemu/trace-events-all"
# This is trixie's; an archive without it is not Debian's.
_AT_LEAST = "10.0"


def archive_versions() -> dict[str, str]:
    """Return the release of each version of the package, with its suite."""
    found: dict[str, str] = {}
    for suite in _SUITES:
        apt = AptRoot.open([suite])
        try:
            version = apt.resolve_packages([_PACKAGE])[_PACKAGE]
        except HostError:
            # The archive has no such suite, or the suite no such package.
            continue
        major, minor = release_number(version.partition(":")[2])
        found.setdefault(f"{major}.{minor}", suite)
    return found


def trace_events(suite: str) -> str:
    """Return the trace-events-all of a suite's package."""
    apt = AptRoot.open([suite])
    (package,) = apt.download_packages(apt.resolve_packages([_PACKAGE]))
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        file = archive.extractfile(_PATH)
        assert file is not None
        return file.read().decode()


def formats_in(text: str) -> dict[str, str]:
    """Return the format string of each event, without the C macros."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"(?:\w+ )*(\w+)\(.*?\)\s+(\".*)", line)
        if match:
            found[match[1]] = _plain(match[2])
    return found


def _plain(text: str) -> str:
    """Join the pieces of a C string; one spelling for each conversion."""
    text = re.sub(r'"\s*PRI([diux])(?:64|32|16|8)\s*"?', r"\1", text)
    # What %p prints begins with 0x.
    text = text.replace('"', "").replace("%p", "0x%x").strip()
    return re.sub(r"%(?:l|ll|z|h)?([diuxs])", _spelled, text)


def _spelled(match: re.Match[str]) -> str:
    return f"%{match[1].replace('i', 'd')}"


def ours(version: str) -> dict[str, set[str]]:
    """Return our formats of a release, as QEMU writes them."""
    at = VERSIONS.index(version)
    found: dict[str, set[str]] = {fmt.event: set() for fmt in FORMATS}
    for fmt in FORMATS:
        first, last = map(VERSIONS.index, fmt.versions)
        if first <= at <= last:
            text = re.sub(r"\{\w+:x\}", "0x%x", fmt.template)
            text = re.sub(r"\{\w+:([du])\}", r"%\1", text)
            found[fmt.event].add(re.sub(r"\{\w+\}", "%s", text))
    return found


class TraceEvents(Test):
    """Every release of the archive that the table claims to know."""

    timeout = 900

    def test_the_table_is_that_of_the_archive(self) -> None:
        known = {
            version: suite
            for version, suite in archive_versions().items()
            if version in VERSIONS
        }
        self.log.info("compared with %s", known)
        self.assertIn(_AT_LEAST, known)
        for version, suite in known.items():
            theirs = formats_in(trace_events(suite))
            for event, formats in ours(version).items():
                wanted = {theirs[event]} if event in theirs else set()
                self.assertEqual(formats, wanted, f"{event} of {version}")
