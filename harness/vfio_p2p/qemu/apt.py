# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages and sources, without root.

They are fetched by way of a private apt root in our cache. It asks the
archive that the machine is configured for, also about other releases of
Debian, and leaves the machine's own apt as it is.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from vfio_p2p.errors import HostError
from vfio_p2p.machine.files import exclusive, used, using, write_whole
from vfio_p2p.machine.process import run_tool
from vfio_p2p.paths import cache_dir
from vfio_p2p.qemu.apt_sources import find_archive, run_apt

INDEX_LIFETIME_S = 24 * 3600

_NETWORK = "Check the network and the archive. apt said:"

# The machine's own settings stay in force, for example a proxy, except for
# those that would change the machine or the outcome.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Default-Release;
APT::Sandbox::User "{user}";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::GzipIndexes "true";
Dir::Cache "{home}/cache";
Dir::Cache::archives "archives/";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "{home}/debian.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Log "{home}/log";
Dir::State "{home}/state";
Dir::State::lists "lists/";
Dir::State::status "{home}/status";
"""


class AptRoot:
    """A private apt root.

    :param home: Its folder.
    :param stanza: Its ``.sources`` file.
    """

    def __init__(self, home: Path, stanza: str) -> None:
        self.home = home
        self._trouble = ""
        # The folder may be pruned until it is in use.
        home.mkdir(parents=True, exist_ok=True)
        while not used(home):
            home.mkdir(parents=True, exist_ok=True)
        for folder in (
            "cache/archives/partial", "log", "state/lists/partial"
        ):
            (home / folder).mkdir(parents=True, exist_ok=True)
        # The status file is empty, since nothing is installed here.
        for name, text in {
            "apt.conf": _CONFIGURATION.format(
                home=home, user="root" if os.geteuid() == 0 else ""
            ),
            "debian.sources": stanza,
            "status": "",
        }.items():
            write_whole(home / name, text.encode())

    @classmethod
    def open(
        cls,
        suites: Iterable[str],
        *,
        sources: bool = False,
        etc: Path = Path("/etc/apt"),
    ) -> AptRoot:
        """Open the root for some suites; it is made if it is missing.

        :param suites: E.g. ``bookworm``, ``bookworm-backports``.
        :param sources: Whether the root is for source packages.
        :param etc: Where the machine's own apt configuration is.
        :raise HostError: When the machine has no Debian archive.
        """
        kind = "deb-src" if sources else "deb"
        stanza = find_archive(etc).stanza(kind, tuple(suites))
        name = hashlib.sha256(stanza.encode()).hexdigest()[:16]
        return cls(cache_dir() / "apt" / name, stanza)

    def update(self, *, force: bool = False) -> None:
        """Fetch the indexes, at most once a day.

        The suites that can be fetched are used, even if another is
        missing: an older machine may lack the keys of a newer Debian. If
        a look-up finds nothing then, its error says what went wrong here.

        :param force: Fetch the indexes even if they are less than a day
                      old.
        """
        stamp = self.home / "updated"
        with exclusive(self.home / "lock"):
            if not force and stamp.exists():
                age_s = time.time() - stamp.stat().st_mtime
                if 0 <= age_s < INDEX_LIFETIME_S:
                    return
            result = self._run("apt-get", "update")
            self._trouble = _complaint(result)
            if not result.returncode:
                stamp.touch()

    def versions_of_source(self, package: str) -> list[str]:
        """Return the versions of a source package, in no order.

        :raise HostError: When there is none.
        """
        for attempt in range(2):
            self.update(force=attempt > 0)
            text = self._run(
                "apt-cache", "showsrc", "--only-source", package
            ).stdout
            versions = re.findall(r"^Version: (\S+)", text, re.MULTILINE)
            if versions:
                return versions
        raise self._missing(f"source package {package}")

    def download_source_tarball(
        self, package: str, version: str, destination: Path
    ) -> Path:
        """Download the upstream tarball of a source package.

        :param destination: The folder to download it into; it keeps its
                            own name.
        :raise HostError: When it cannot be downloaded.
        """
        (path,) = self._download(
            destination, "source", "--download-only", "--tar-only",
            f"{package}={version}",
        )
        return path

    def resolve_packages(self, patterns: Iterable[str]) -> dict[str, str]:
        """Find packages, and the version of each that apt prefers.

        :param patterns: Names, or patterns as in a shell.
        :return: The versions by name. Numbers in names are in numerical
                 order, so the last match of a pattern is the newest.
        :raise HostError: When a name or pattern matches nothing.
        """
        patterns = list(patterns)
        for attempt in range(2):
            self.update(force=attempt > 0)
            known = self._run("apt-cache", "pkgnames").stdout.split()
            missing = []
            names: list[str] = []
            for pattern in patterns:
                found = fnmatch.filter(known, pattern)
                names += sorted(found, key=_natural)
                missing += [] if found else [pattern]
            versions = self._candidates(names)
            missing += [x for x in names if x not in versions]
            if not missing:
                return {x: versions[x] for x in names}
        raise self._missing(f"package {', '.join(missing)}")

    def solve_packages(self, names: Iterable[str]) -> dict[str, str]:
        """Find packages and everything that they depend on.

        :param names: Names; ``NAME/SUITE`` takes a package from that suite.
        :return: The versions by name. Recommended packages are left out.
        :raise HostError: When apt finds no solution.
        """
        arguments = [
            "install", "--simulate", "--no-install-recommends", *names
        ]
        for attempt in range(2):
            self.update(force=attempt > 0)
            result = self._run("apt-get", *arguments)
            if not result.returncode:
                return dict(
                    re.findall(
                        r"^Inst (\S+) \((\S+) ", result.stdout, re.MULTILINE
                    )
                )
        raise HostError(
            "apt does not find all packages, or not what they depend on",
            f"{_NETWORK} {self._trouble or _complaint(result)}",
        )

    def _candidates(self, names: list[str]) -> dict[str, str]:
        text = self._run("apt-cache", "policy", *names).stdout
        found = re.findall(
            r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)$", text, re.MULTILINE
        )
        return {name: version for name, version in found if version[0] != "("}

    def download_packages(self, packages: Mapping[str, str]) -> list[Path]:
        """Download those packages that are not in the cache.

        :param packages: The versions by name.
        :return: The paths of the ``.deb`` files, in the same order.
        :raise HostError: When one cannot be downloaded.
        """
        pool = cache_dir() / "debs"
        pool.mkdir(parents=True, exist_ok=True)

        def cached(name: str, version: str) -> Path | None:
            # apt writes the colon of the epoch as %3a.
            stem = f"{name}_{version.replace(':', '%3a')}"
            found = sorted(pool.glob(f"{stem}_*.deb"))
            return next((x for x in found if used(x)), None)

        wanted = [
            f"{name}={version}"
            for name, version in packages.items()
            if not cached(name, version)
        ]
        if wanted:
            self._download(pool, "download", *wanted)
        paths = []
        for name, version in packages.items():
            path = cached(name, version)
            if not path:
                raise self._missing(f"package {name} {version}")
            paths.append(path)
        return paths

    def _download(self, destination: Path, *arguments: str) -> list[Path]:
        """Let apt-get download files, and move those that it verified."""
        destination.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(
                dir=destination, prefix=".download-"
            ) as name,
            using(Path(name)),
        ):
            result = self._run("apt-get", *arguments, cwd=Path(name))
            if result.returncode:
                raise HostError(
                    f"apt-get {' '.join(arguments)} failed",
                    f"{_NETWORK} {_complaint(result)}",
                )
            return [
                x.rename(destination / x.name)
                for x in sorted(Path(name).iterdir())
                if x.is_file()
            ]

    def _run(
        self, *argv: str, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        program, *rest = argv
        return run_apt(
            program,
            f"--config-file={self.home}/apt.conf",
            *rest,
            cwd=cwd or self.home,
        )

    def _missing(self, what: str) -> HostError:
        hint = (
            f"Check that the archive is a complete mirror: the {what} is in "
            "none of the suites that were searched."
        )
        if self._trouble:
            hint = f"{_NETWORK} {self._trouble}"
        return HostError(f"the archive has no {what}", hint)


def unpack(archives: Iterable[Path], root: Path) -> None:
    """Unpack Debian packages; nothing is installed.

    :param archives: Their files.
    :param root: The folder that they are unpacked in.
    :raise MissingToolError: When the machine has no dpkg-deb.
    :raise HostError: When a package is damaged.
    """
    root.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        run_tool(
            ["dpkg-deb", "-x", str(archive), str(root)],
            "dpkg",
            f"Remove {archive}, and start the command again.",
        )


def _complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return apt's first error, or else its first warning."""
    lines = result.stderr.splitlines() if result.returncode else []
    for letter in "EW":
        for line in lines:
            if line.startswith(f"{letter}: "):
                return line[3:]
    return ""


def _natural(name: str) -> list[tuple[int, str]]:
    return [
        (int(x), "") if x.isdigit() else (0, x)
        for x in re.split(r"(\d+)", name)
    ]
