# SPDX-License-Identifier: GPL-2.0-or-later
"""A private apt root, against a small archive in a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from vfio_p2p.errors import HostError, MissingToolError
from vfio_p2p.progress import silent
from vfio_p2p.qemu.apt import AptRoot
from vfio_p2p.qemu.apt_sources import find_archive
from vfio_p2p.qemu.debian import SUITES, debian_tarball

pytestmark = pytest.mark.usefixtures("cache")

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None, reason="no apt on this machine"
)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "etc" / "sources.list.d").mkdir(parents=True)
    return tmp_path / "etc"


def sources(etc: Path, text: str, name: str = "debian.sources") -> None:
    (etc / "sources.list.d" / name).write_text(text)


STANZA = """\
# A comment
Types: deb
# Another one
URIs: http://mirror.example/debian http://other.example/debian/
Suites: bookworm bookworm-updates
Components: contrib
# One more
 main
signed-by: /usr/share/keyrings/debian-archive-keyring.gpg
"""

OTHERS = """\
# A comment alone is no stanza.

Types: deb
URIs: http://vendor.example/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vendor.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

"""


@needs_apt
def test_sources_in_stanzas(etc: Path) -> None:
    sources(etc, OTHERS + STANZA)
    archive = find_archive(etc)
    assert archive.uri == "http://mirror.example/debian"
    assert archive.stanza("deb-src", ("trixie", "sid")) == (
        "Types: deb-src\nURIs: http://mirror.example/debian\n"
        "Suites: trixie sid\n"
        "Components: main\nArchitectures: amd64\nTargets: Sources\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )


@needs_apt
def test_a_key_in_the_stanza(etc: Path) -> None:
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n =AAAA"
    sources(etc, STANZA.rpartition("signed-by")[0] + f"Signed-By:{key}\n")
    assert f"Signed-By: {key}\n" in find_archive(etc).stanza("deb", ("sid",))


@needs_apt
@pytest.mark.parametrize(
    ("line", "uri", "options"),
    [
        (
            "deb http://mirror.example/debian bookworm main",
            "http://mirror.example/debian",
            (),
        ),
        (
            "deb  mirror+file:/etc/apt/mirrors\tstable  main # x",
            "mirror+file:/etc/apt/mirrors",
            (),
        ),
        (
            "deb [ arch=amd64 signed-by=/k/debian-archive.gpg trusted=yes ]"
            " http://mirror.example/x/ sid main",
            "http://mirror.example/x",
            (("Signed-By", "/k/debian-archive.gpg"), ("Trusted", "yes")),
        ),
    ],
)
def test_sources_in_lines(
    etc: Path, line: str, uri: str, options: tuple[tuple[str, str], ...]
) -> None:
    (etc / "sources.list").write_text(f"# comment\n\n{line}\n")
    archive = find_archive(etc)
    assert (archive.uri, archive.options) == (uri, options)


@needs_apt
@pytest.mark.parametrize(
    "text",
    [
        "",
        OTHERS.rpartition("Types")[1] + OTHERS.rpartition("Types")[2],
        STANZA + "Enabled: no\n",
        STANZA.replace("deb\n", "deb-src\n"),
        STANZA.replace("bookworm bookworm-updates", "jammy"),
        STANZA.replace(" main", " stable"),
        "Types: deb\nURIs: cdrom:[DVD]/\nSuites: sid\nComponents: main\n",
    ],
)
def test_no_debian_archive(etc: Path, text: str) -> None:
    sources(etc, text)
    with pytest.raises(HostError, match="no Debian archive") as caught:
        find_archive(etc)
    assert "--source" in caught.value.hint


@needs_apt
def test_sources_that_apt_cannot_read(etc: Path) -> None:
    sources(etc, STANZA.replace("Types: deb", "Types: dep"))
    with pytest.raises(HostError, match="cannot read its sources") as caught:
        find_archive(etc)
    assert "debian.sources" in caught.value.hint


class FakeArchive:
    """An archive that apt reads from a folder, without signatures."""

    def __init__(self, root: Path, etc: Path) -> None:
        self.root = root
        sources(
            etc,
            f"Types: deb\nURIs: file:{root}\nSuites: bookworm\n"
            "Components: main\nTrusted: yes\n",
        )
        for suite in ("bookworm", *SUITES):
            self.write(suite)

    def write(
        self,
        suite: str,
        packages: tuple[tuple[str, ...], ...] = (),
        qemus: tuple[str, ...] = (),
    ) -> None:
        texts = {
            "main/binary-amd64/Packages": "".join(
                self._package(*x) for x in packages
            ),
            "main/source/Sources": "".join(self._source(x) for x in qemus),
        }
        sums = ""
        for name, text in texts.items():
            path = self.root / "dists" / suite / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            digest = hashlib.sha256(text.encode()).hexdigest()
            sums += f" {digest} {len(text)} {name}\n"
        (self.root / "dists" / suite / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\n"
            f"Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
            f"SHA256:\n{sums}"
        )

    def _file(self, name: str) -> tuple[str, str]:
        path = self.root / name
        path.write_text(f"content of {name}")
        return hashlib.sha256(path.read_bytes()).hexdigest(), name

    def _package(self, name: str, version: str, depends: str = "") -> str:
        plain = version.rpartition(":")[2]
        digest, file = self._file(f"{name}_{plain}_amd64.deb")
        return (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            f"Maintainer: x\nDescription: x\nFilename: {file}\n"
            + (f"Depends: {depends}\n" if depends else "")
            + f"Recommends: other\n"
            f"Size: {(self.root / file).stat().st_size}\n"
            f"SHA256: {digest}\n\n"
        )

    def _source(self, version: str) -> str:
        upstream = version.rpartition(":")[2].rpartition("-")[0]
        digest, file = self._file(f"qemu_{upstream}.orig.tar.xz")
        size = (self.root / file).stat().st_size
        # As on some mirrors, the rest of the source is missing.
        return (
            f"Package: qemu\nVersion: {version}\nDirectory: .\n"
            "Format: 3.0 (quilt)\nBinary: qemu\nChecksums-Sha256:\n"
            f" {digest} {size} {file}\n"
            f" {'0' * 64} 9 qemu_{version.rpartition(':')[2]}.dsc\n\n"
        )


@pytest.fixture
def archive(tmp_path: Path, etc: Path) -> FakeArchive:
    (tmp_path / "debian").mkdir()
    return FakeArchive(tmp_path / "debian", etc)


@needs_apt
def test_packages(archive: FakeArchive, etc: Path, cache: Path) -> None:
    archive.write(
        "bookworm",
        (
            ("linux-6.9-cloud", "1"),
            ("linux-6.12-cloud", "1:2+b~1"),
            ("other", "3"),
        ),
    )
    root = AptRoot.open(["bookworm"], etc=etc)
    found = root.resolve_packages(["other", "linux-*-cloud"])
    assert list(found.items()) == [
        ("other", "3"),
        ("linux-6.9-cloud", "1"),
        ("linux-6.12-cloud", "1:2+b~1"),
    ]
    paths = root.download_packages(found)
    assert [x.parent for x in paths] == [cache / "debs"] * 3
    assert [x.read_text() for x in paths] == [
        "content of other_3_amd64.deb",
        "content of linux-6.9-cloud_1_amd64.deb",
        "content of linux-6.12-cloud_2+b~1_amd64.deb",
    ]
    shutil.rmtree(archive.root)
    assert root.download_packages(found) == paths
    assert all(x.is_file() for x in paths)


@needs_apt
def test_packages_and_what_they_depend_on(
    archive: FakeArchive, etc: Path
) -> None:
    plain = ("other", "3"), ("a", "1", "b (>= 2)"), ("b", "1:2", "c")
    archive.write("bookworm", (*plain, ("c", "1")))
    archive.write(SUITES[0], (("c", "2~bpo"), ("a", "2")))
    root = AptRoot.open(["bookworm", SUITES[0]], etc=etc)
    found = {"a": "1", "b": "1:2", "c": "2~bpo"}
    assert root.solve_packages(["a/bookworm"]) == found
    assert root.solve_packages([f"a/{SUITES[0]}"]) == {"a": "2"}
    archive.write("bookworm", (("a", "1", "b (>= 2)"), ("b", "1")))
    root.update(force=True)
    with pytest.raises(HostError, match="depend on"):
        root.solve_packages(["a/bookworm"])
    with pytest.raises(HostError, match="all packages"):
        root.solve_packages(["missing"])


@needs_apt
def test_the_newest_version_is_preferred(
    archive: FakeArchive, etc: Path
) -> None:
    archive.write("bookworm", (("x", "1"), ("x", "10"), ("x", "9")))
    root = AptRoot.open(["bookworm"], etc=etc)
    assert root.resolve_packages(["x"]) == {"x": "10"}


@needs_apt
def test_a_failed_lookup_asks_again(
    archive: FakeArchive, etc: Path
) -> None:
    root = AptRoot.open(["bookworm"], etc=etc)
    with pytest.raises(HostError, match="no package x, y"):
        root.resolve_packages(["x", "y"])
    archive.write("bookworm", (("x", "1"), ("y", "1")))
    assert root.resolve_packages(["x", "y"]) == {"x": "1", "y": "1"}


@needs_apt
def test_indexes_are_fetched_once_a_day(
    archive: FakeArchive, etc: Path
) -> None:
    root = AptRoot.open(["bookworm"], etc=etc)
    archive.write("bookworm", (("x", "1"),))
    assert root.resolve_packages(["x"]) == {"x": "1"}
    archive.write("bookworm", (("x", "2"),))
    assert root.resolve_packages(["x"]) == {"x": "1"}
    stamp = root.home / "updated"
    os.utime(stamp, (0, 0))
    assert root.resolve_packages(["x"]) == {"x": "2"}


@needs_apt
def test_a_damaged_package_is_refused(
    archive: FakeArchive, etc: Path, cache: Path
) -> None:
    archive.write("bookworm", (("x", "1"),))
    root = AptRoot.open(["bookworm"], etc=etc)
    found = root.resolve_packages(["x"])
    (archive.root / "x_1_amd64.deb").write_text("content of x_1_amd64.dbe")
    with pytest.raises(HostError, match="apt-get download x=1 failed"):
        root.download_packages(found)
    assert os.listdir(cache / "debs") == []


@needs_apt
def test_an_archive_that_does_not_answer(
    archive: FakeArchive, etc: Path
) -> None:
    shutil.rmtree(archive.root)
    root = AptRoot.open(["bookworm"], etc=etc)
    with pytest.raises(HostError, match="no package x") as caught:
        root.resolve_packages(["x"])
    assert "Check the network" in caught.value.hint
    assert "file:" in caught.value.hint


@needs_apt
def test_nothing_on_the_machine_is_touched(
    archive: FakeArchive,
    etc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The hooks with which container images clean apt's cache.
    config = tmp_path / "apt.conf"
    touched = tmp_path / "touched"
    # Installed packages make no difference.
    status = tmp_path / "status"
    status.write_text(
        "Package: x\nStatus: install ok installed\nVersion: 99\n"
        "Architecture: amd64\nMaintainer: x\nDescription: x\n\n"
    )
    config.write_text(
        f'APT::Update::Pre-Invoke {{ "touch {touched}"; }};\n'
        f'APT::Update::Post-Invoke {{ "touch {touched}"; }};\n'
        f'APT::Update::Post-Invoke-Success {{ "touch {touched}"; }};\n'
        f'Dir::State::status "{status}";\n'
        'Dir::Cache::pkgcache "";\nAPT::Default-Release "sid";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(config))
    archive.write("bookworm", (("x", "1"),))
    root = AptRoot.open(["bookworm"], etc=etc)
    assert root.resolve_packages(["x"]) == {"x": "1"}
    assert not touched.exists()


def test_apt_is_missing(
    archive: FakeArchive,
    etc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setpriv = shutil.which("setpriv")
    assert setpriv
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "setpriv").symlink_to(setpriv)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingToolError, match="apt-get"):
        AptRoot.open(["bookworm"], etc=etc)
    root = AptRoot(tmp_path / "root", "")
    with pytest.raises(MissingToolError, match="apt-get"):
        root.update()


@pytest.fixture
def debian(
    archive: FakeArchive, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeArchive:
    """Let `debian_tarball` use the fake archive."""
    monkeypatch.setattr(
        "vfio_p2p.qemu.debian.AptRoot.open",
        lambda suites, sources: open_root(suites, sources=sources, etc=etc),
    )
    return archive


open_root = AptRoot.open


@needs_apt
def test_the_newest_tarball_of_the_series(debian: FakeArchive) -> None:
    debian.write(
        "bookworm-backports", qemus=("1:10.0.2+ds-2~bpo12+1", "1:9.2.9-1")
    )
    debian.write(
        "trixie",
        qemus=(
            "1:10.0.13+ds-0+deb13u1", "1:10.0.9-1", "1:10.0.99~rc1-1",
            "1:10.1.0-1",
        ),
    )
    path = debian_tarball("10.0", silent)
    assert path.name == "qemu_10.0.13+ds.orig.tar.xz"
    assert path.read_text() == f"content of {path.name}"


@needs_apt
def test_a_cached_tarball_is_kept(debian: FakeArchive) -> None:
    debian.write("trixie", qemus=("1:10.0.9+ds-1",))
    old = debian_tarball("10.0", silent)
    debian.write("trixie", qemus=("1:10.0.13+ds-1",))
    assert debian_tarball("10.0", silent) == old
    new = debian_tarball("10.0", silent, refresh=True)
    assert new.name == "qemu_10.0.13+ds.orig.tar.xz"
    # The file itself stays: apt only linked it from this archive.
    shutil.rmtree(debian.root / "dists")
    assert debian_tarball("10.0", silent) == new


@needs_apt
def test_no_such_series(debian: FakeArchive) -> None:
    debian.write("trixie", qemus=("1:10.0.13+ds-1",))
    with pytest.raises(HostError, match=r"no QEMU 10\.1\.x"):
        debian_tarball("10.1", silent)


@needs_apt
def test_a_release_whose_keys_are_not_here(debian: FakeArchive) -> None:
    debian.write("bookworm-backports", qemus=("1:10.0.2+ds-1",))
    shutil.rmtree(debian.root / "dists" / "trixie")
    path = debian_tarball("10.0", silent)
    assert path.name == "qemu_10.0.2+ds.orig.tar.xz"
