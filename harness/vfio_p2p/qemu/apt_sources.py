# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian archive that this machine gets its packages from.

apt itself tells which archives are configured, by way of ``apt-get
indextargets``. It does not tell how their signatures are checked, so those
options are read from the entry that apt names (sources.list(5)).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vfio_p2p.errors import HostError, MissingToolError
from vfio_p2p.machine.process import bound
from vfio_p2p.machine.temporary import temporary_folder

# The names that a release of Debian goes by. A suite whose name continues,
# such as bookworm-security, may be in another archive.
_SUITES = re.compile(
    r"(bullseye|bookworm|trixie|forky|sid"
    r"|(old)?(old)?stable|testing|unstable)(-backports|-updates)?"
)

# The options of an entry that hold for other suites of its archive as well.
_OPTIONS = ("Signed-By", "Trusted", "Check-Valid-Until")

_FORMAT = "$(CREATED_BY)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)|$(SOURCESENTRY)"


@dataclass(frozen=True)
class Archive:
    """An entry of the machine's apt sources.

    :param uri: The archive's root.
    :param options: Further fields of the entry as in a ``.sources`` file,
                    e.g. ``Signed-By``; a value may have several lines.
    """

    uri: str
    options: tuple[tuple[str, str], ...]

    def stanza(self, kind: str, suites: tuple[str, ...]) -> str:
        """Return a ``.sources`` file for other suites of the archive.

        :param kind: "deb" or "deb-src".
        :param suites: E.g. ``bookworm``.
        """
        fields = [
            ("Types", kind),
            ("URIs", self.uri),
            ("Suites", " ".join(suites)),
            ("Components", "main"),
            ("Architectures", "amd64"),
            # No translations, no desktop metadata.
            ("Targets", "Sources" if kind == "deb-src" else "Packages"),
            *self.options,
        ]
        return "".join(f"{name}: {value}\n" for name, value in fields)


def find_archive(etc: Path = Path("/etc/apt")) -> Archive:
    """Find the Debian archive that this machine uses.

    :param etc: Where apt's configuration is.
    :raise MissingToolError: When there is no apt.
    :raise HostError: When no Debian archive is configured.
    """
    found = list(dict.fromkeys(_archives(etc)))
    if not found:
        raise HostError(
            f"no Debian archive is among the apt sources in {etc}",
            "Add one. QEMU alone can be built without an archive from a "
            "source of your own, with '--source'.",
        )
    return max(found, key=_likelihood)


def run_apt(
    program: str, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of apt's programs, whose messages are then in English.

    :param program: Its name, e.g. ``apt-get``.
    :param arguments: Its arguments.
    :param cwd: The folder in which it runs; None is ours.
    :raise MissingToolError: When there is no apt.
    """
    try:
        return subprocess.run(
            bound([program, *arguments]),
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingToolError(program, "apt") from error


def _archives(etc: Path) -> Iterator[Archive]:
    for line in _index_targets(etc):
        target, component, suite, uri, entry = line.split("|")
        if (
            target == "Packages"
            and component == "main"
            and _SUITES.fullmatch(suite)
            # A medium has no other suites.
            and not uri.startswith("cdrom:")
        ):
            options = _options(entry)
            yield Archive(
                uri.removesuffix("/"),
                tuple((x, options[x]) for x in _OPTIONS if x in options),
            )


def _likelihood(archive: Archive) -> tuple[bool, bool]:
    """Other vendors name their suites after Debian's, too."""
    keyring = dict(archive.options).get("Signed-By", "debian-archive")
    path = urlsplit(archive.uri).path
    return "debian-archive" in keyring, "debian" in path.split("/")


def _index_targets(etc: Path) -> list[str]:
    """Return a line in `_FORMAT` for each index that apt would fetch."""
    # An empty state: apt would load its lists, which takes a second, and
    # complain where there are none.
    with temporary_folder() as state:
        result = run_apt(
            "apt-get", "-o", f"Dir::Etc={etc.absolute()}",
            "-o", f"Dir::State={state}",
            "-o", f"Dir::State::lists={state}",
            "-o", "Dir::State::status=/dev/null",
            "-o", "Dir::Cache::pkgcache=",
            "-o", "Dir::Cache::srcpkgcache=",
            # The release files need not be here.
            "indextargets", "--no-release-info",
            "--format", _FORMAT,
        )
    if result.returncode:
        raise HostError(
            f"apt cannot read its sources in {etc}",
            "Correct the entry that apt complains about: "
            f"{' '.join(result.stderr.split())}",
        )
    return result.stdout.splitlines()


def _options(entry: str) -> Mapping[str, str]:
    """Return the options of an entry of the apt sources.

    :param entry: As ``SOURCESENTRY`` has it: the file's path, a colon, and
                  the number of the stanza, or of the line in a ``.list``.
    """
    name, _, number = entry.rpartition(":")
    lines = Path(name).read_text(errors="replace").splitlines()
    if not name.endswith(".sources"):
        match = re.match(r"\s*\S+\s+\[([^]]*)\]", lines[int(number) - 1])
        pairs = [x.partition("=") for x in match[1].split()] if match else []
        return {key.title(): value for key, _, value in pairs}
    text = "\n".join(x for x in lines if not x.startswith("#"))
    # apt does not count empty stanzas.
    stanzas = [x for x in re.split(r"\n\s*\n", text) if x.strip()]
    # A line that starts with a blank continues the one before.
    fields = re.findall(
        r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)",
        stanzas[int(number) - 1],
        re.MULTILINE,
    )
    return {key.title(): value.rstrip() for key, value in fields}
