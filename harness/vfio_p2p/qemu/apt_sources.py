# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this machine gets its Debian packages from (sources.list(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vfio_p2p.errors import HostError

# The names that a release of Debian goes by. What follows them, as in
# bookworm-security, may be another archive.
_SUITES = re.compile(
    r"(bullseye|bookworm|trixie|forky|sid"
    r"|(old)?(old)?stable|testing|unstable)(-backports|-updates)?"
)

# What else of an entry is as true for another suite of its archive.
_OPTIONS = ("Signed-By", "Trusted", "Check-Valid-Until")


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
        """Text of a ``.sources`` file for other suites of the archive.

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
    """The Debian archive that this machine uses.

    :param etc: Where apt's configuration is.
    :raise HostError: When none is configured.
    """
    parts = etc / "sources.list.d"
    entries: list[dict[str, str]] = []
    for path in (etc / "sources.list", *sorted(parts.glob("*.list"))):
        if path.is_file():
            entries += _one_line_entries(path.read_text(errors="replace"))
    for path in sorted(parts.glob("*.sources")):
        entries += _stanzas(path.read_text(errors="replace"))
    found = [x for x in entries if _is_debian(x)]
    if not found:
        raise HostError(
            f"no Debian archive among the apt sources in {etc}",
            "add one; for QEMU alone, '--source' does without",
        )
    best = max(found, key=_likelihood)
    return Archive(
        best["uris"].split()[0],
        tuple((x, best[x.lower()]) for x in _OPTIONS if x.lower() in best),
    )


def _is_debian(entry: dict[str, str]) -> bool:
    return (
        "deb" in entry.get("types", "").split()
        and entry.get("enabled", "yes").lower() in ("yes", "true", "1")
        and "main" in entry.get("components", "").split()
        and bool(entry.get("uris"))
        and any(map(_SUITES.fullmatch, entry.get("suites", "").split()))
    )


def _likelihood(entry: dict[str, str]) -> tuple[bool, bool]:
    """Other vendors name their suites after Debian's, too."""
    keyring = entry.get("signed-by", "debian-archive")
    path = urlsplit(entry["uris"].split()[0]).path
    return "debian-archive" in keyring, "debian" in path.split("/")


def _one_line_entries(text: str) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        match = re.match(
            r"\s*(deb|deb-src)\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)",
            line,
        )
        if not match:
            continue
        kind, options, uri, suite, components = match.groups()
        pairs = [x.partition("=") for x in (options or "").split()]
        yield {name.lower(): value for name, _, value in pairs} | {
            "types": kind,
            "uris": uri,
            "suites": suite,
            "components": components,
        }


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    lines = [x for x in text.splitlines() if not x.startswith("#")]
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        # A line that starts with a blank goes on with the one before.
        fields = re.findall(
            r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", block, re.MULTILINE
        )
        yield {name.lower(): value.rstrip() for name, value in fields}
