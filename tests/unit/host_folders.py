# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain folders in place of a host's sysfs, with an SR-IOV card.

The folders are all there is: whoever writes to one of the files through
`FolderKernel` changes others as Linux does, and the program ``devlink`` is a
shell script that reads and writes them. A process that is killed leaves them
as they are.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from vfio_p2p.agent.kernel import Kernel, nobody
from vfio_p2p.agent.ledger import Ledger
from vfio_p2p.agent.prepare import prepare
from vfio_p2p.agent.request import Preparation
from vfio_p2p.agent.roots import Roots

PF = "0000:01:00.0"
TOTAL = 7
OWN = "igbvf"
OTHER = "vfio-pci"
OURS = "p2pvf"

# A test that is not root's can give a file to nobody else.
USER = 1000 if os.geteuid() == 0 else os.geteuid()

_DEVLINK = r"""#!/bin/sh
# devlink of iproute2, as far as the agent needs it. It starts no program, so
# that a test can call it often.
pf={sys}/bus/pci/devices/{pf}
echo "$*" >>{root}/devlink.log
read -r mode <$pf/.mode
cap() {{        # the number of a port, a capability, its value at first
    value=$3
    [ ! -e $pf/virtfn$1/.caps/$2 ] || read -r value <$pf/virtfn$1/.caps/$2
    printf '"%s":"%s"' $2 $value
}}
case $* in
-V)
    read -r version <{root}/iproute2
    echo "devlink utility, iproute2-$version" ;;
"-j dev eswitch show pci/{pf}")
    echo '{{"dev":{{"pci/{pf}":{{"mode":"'$mode'"}}}}}}' ;;
"dev eswitch set pci/{pf} mode "*)
    echo "$6" >$pf/.mode
    [ "$6" = switchdev ] || rm -rf $pf/virtfn*/.caps ;;
"-j port show")
    printf '{{"port":{{'
    comma=
    for link in $pf/virtfn*; do
        [ $mode = switchdev ] && [ -L "$link" ] || continue
        n=${{link##*virtfn}}
        printf '%s"pci/{pf}/%d":{{"flavour":"pcivf","pfnum":0,"vfnum":%d,' \
            "$comma" $((n + 1)) $n
        printf '"function":{{%s,%s}}}}' \
            "$(cap $n migratable disable)" "$(cap $n roce enable)"
        comma=,
    done
    echo '}}}}' ;;
"port function set pci/{pf}/"*)
    n=$((${{4##*/}} - 1))
    if [ -e "$pf/virtfn$n/driver" ]; then
        echo "kernel answers: Device or resource busy" >&2
        exit 1
    fi
    case $5 in
    newer) echo 'Unknown option "newer"' >&2; exit 1 ;;
    roce) [ ! -e {root}/broken ] || exit 0 ;;
    esac
    [ -d $pf/virtfn$n/.caps ] || mkdir $pf/virtfn$n/.caps
    echo "$6" >"$pf/virtfn$n/.caps/$5" ;;
*)
    echo "devlink: $*?" >&2
    exit 1 ;;
esac
"""

_MODPROBE = r"""#!/bin/sh
case $2 in
later) mkdir -p {sys}/bus/pci/drivers/later ;;
*) echo "modprobe: FATAL: Module $2 not found." >&2; exit 1 ;;
esac
"""


class HostFolders:
    """The folders of a host with one card.

    :param root: Where they are made.
    :param proc: The folder of processes; by default one without any.
    """

    def __init__(self, root: Path, proc: Path | None = None) -> None:
        self.root = root
        self.roots = Roots(
            sys=root / "sys",
            proc=proc or root / "proc",
            dev=root / "dev",
            run=root / "run",
            lock=root / "lock",
            tools=(str(root / "tools"),),
        )
        self.devices = self.roots.sys / "bus/pci/devices"
        self.drivers = self.roots.sys / "bus/pci/drivers"
        self.pf = self.devices / PF

    def make(self) -> HostFolders:
        """Make the folders; the card has no virtual functions."""
        roots = self.roots
        for folder in (
            self.pf, roots.run, roots.lock, roots.dev / "vfio",
            roots.sys / "class/iommu/dmar0", self.root / "tools",
            *(self.drivers / x for x in ("igb", OWN, OTHER, OURS)),
        ):
            folder.mkdir(parents=True)
        if roots.proc == self.root / "proc":
            random = roots.proc / "sys/kernel/random"
            random.mkdir(parents=True)
            (random / "boot_id").write_text("boot-1\n")
            (roots.proc / "1").mkdir()
        for name, text in {
            "sriov_totalvfs": f"{TOTAL}\n", "sriov_numvfs": "0\n",
            "sriov_drivers_autoprobe": "1\n", ".mode": "legacy\n",
        }.items():
            (self.pf / name).write_text(text)
        (self.pf / "driver").symlink_to(self.drivers / "igb")
        (self.root / "iproute2").write_text("6.15.0")
        for name, text in ("devlink", _DEVLINK), ("modprobe", _MODPROBE):
            path = self.root / "tools" / name
            path.write_text(
                text.format(sys=roots.sys, pf=PF, root=self.root)
            )
            path.chmod(0o755)
        return self

    def with_own_nodes(self) -> HostFolders:
        """Give each function a node of its own, as IOMMUFD's kernels do."""
        (self.roots.dev / "vfio/devices").mkdir()
        return self

    def remove(self) -> None:
        """Remove the folders."""
        shutil.rmtree(self.root)

    def vf(self, number: int) -> str:
        """Return the address of a virtual function."""
        return f"0000:01:10.{number}"

    def kernel(self) -> FolderKernel:
        """Return what changes the folders as Linux would."""
        return FolderKernel(self)

    def prepare(
        self, wanted: Preparation, at: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Prepare the host as the agent does."""
        if at is None:
            return prepare(wanted, Ledger(self.roots), self.kernel())
        return prepare(wanted, Ledger(self.roots, at), self.kernel(), at)

    def state(self) -> dict[str, Any]:
        """Return all that a preparation may change."""
        mode = (self.pf / ".mode").read_text()
        found: dict[str, Any] = {
            "numvfs": (self.pf / "sriov_numvfs").read_text(),
            "autoprobe": (self.pf / "sriov_drivers_autoprobe").read_text(),
            "mode": mode,
        }
        for link in sorted(self.pf.glob("virtfn*")):
            vf = link.resolve()
            group = (vf / "iommu_group").resolve().name
            own = [x.name for x in (vf / "vfio-dev").glob("*")]
            found[link.name] = {
                "address": vf.name,
                "driver": (vf / "driver").resolve().name
                if (vf / "driver").exists() else "",
                "override": (vf / "driver_override").read_text(),
                "caps": self.caps(vf) if "switchdev" in mode else {},
                "owner": _owner(self.roots.dev / "vfio" / group),
                # The number of a node may be another one each time.
                "own": [
                    _owner(self.roots.dev / "vfio/devices" / x) for x in own
                ],
            }
        return found

    def caps(self, vf: Path) -> dict[str, str]:
        """Return the capabilities of a virtual function's port."""
        found = {"migratable": "disable", "roce": "enable"}
        for path in vf.glob(".caps/*"):
            found[path.name] = path.read_text().strip()
        return found


def _owner(node: Path) -> tuple[int, int, int] | None:
    if not node.exists():
        return None
    found = node.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


class FolderKernel(Kernel):
    """Changes the folders of a host as Linux would."""

    def __init__(self, host: HostFolders) -> None:
        super().__init__(host.roots)
        self.host = host

    def write(
        self,
        path: Path,
        text: str,
        holders: Callable[[], str] = nobody,
    ) -> None:
        """Write to a file, with all that follows from it."""
        # Not through the kernel's name for it, which may lead elsewhere.
        code = 0
        if path.name == "sriov_numvfs":
            code = self._numvfs(int(text))
        elif path.name == "bind":
            code = self._bind(text, path.parent.name)
        elif path.name == "unbind":
            code = self._unbind(text)
        elif path.name == "driver_override":
            path.write_text(f"{text.strip() or '(null)'}\n")
        elif path.name == "sriov_drivers_autoprobe":
            path.write_text(f"{text}\n")
        else:
            code = errno.ENOENT
        if code:
            raise OSError(code, os.strerror(code), str(path))

    def _numvfs(self, count: int) -> int:
        host = self.host
        there = sorted(host.pf.glob("virtfn*"))
        if count and there:
            return errno.EBUSY
        for link in there:
            self._unbind(link.resolve().name)
            shutil.rmtree(link.resolve())
            link.unlink()
        for number in range(count):
            folder = host.devices / host.vf(number)
            group = host.root / f"groups/{10 + number}"
            group.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            (folder / "physfn").symlink_to(host.pf)
            (folder / "iommu_group").symlink_to(group)
            (folder / "driver_override").write_text("(null)\n")
            (host.pf / f"virtfn{number}").symlink_to(folder)
            self._bind(folder.name, OWN)
        (host.pf / "sriov_numvfs").write_text(f"{count}\n")
        return 0

    def _bind(self, vf: str, driver: str) -> int:
        folder = self.host.devices / vf
        probe = (self.host.pf / "sriov_drivers_autoprobe").read_text()
        override = (folder / "driver_override").read_text().strip()
        if (folder / "driver").is_symlink():
            return errno.EBUSY
        if override not in ("(null)", driver):
            return errno.ENODEV
        # Linux matches a function by its ID only if no override is set, and
        # does not even try it while new functions are not probed.
        if override == "(null)" and (driver != OWN or probe == "0\n"):
            return errno.ENODEV
        (folder / "driver").symlink_to(self.host.drivers / driver)
        if driver in (OURS, OTHER):
            group = (folder / "iommu_group").resolve().name
            nodes = self.host.roots.dev / "vfio"
            made = [nodes / group]
            if (nodes / "devices").exists():
                # The first number that is free.
                name = next(
                    f"vfio{number}"
                    for number in count()
                    if not (nodes / f"devices/vfio{number}").exists()
                )
                made.append(nodes / "devices" / name)
                (folder / "vfio-dev" / name).mkdir(parents=True)
            for node in made:
                node.touch()
                node.chmod(0o600)
        return 0

    def _unbind(self, vf: str) -> int:
        folder = self.host.devices / vf
        (folder / "driver").unlink(missing_ok=True)
        group = (folder / "iommu_group").resolve().name
        (self.host.roots.dev / "vfio" / group).unlink(missing_ok=True)
        for own in (folder / "vfio-dev").glob("*"):
            (self.host.roots.dev / "vfio/devices" / own.name).unlink()
            own.rmdir()
        return 0
