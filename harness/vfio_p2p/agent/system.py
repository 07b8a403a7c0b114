# SPDX-License-Identifier: GPL-2.0-or-later
"""What kind of machine the host is, and what its kernel has."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfio_p2p.agent import files, tools
from vfio_p2p.agent.roots import Roots

LOADED = "loaded"
AVAILABLE = "available"
BUILT_IN = "built-in"


def system(
    roots: Roots, modules: Sequence[str], programs: Sequence[str]
) -> dict[str, Any]:
    """Describe the host.

    :param roots: Where the kernel's folders are.
    :param modules: The kernel modules of which is told whether they are
        there.
    :param programs: The programs of which is told whether they can be run.
    """
    devlink, version = tools.iproute2("devlink", roots)
    if not version:
        version = tools.iproute2("ip", roots)[1]
    kernel = os.uname().release
    groups = files.names(roots.sys / "kernel/iommu_groups")
    return {
        "name": os.uname().nodename,
        "boot_id": files.text(roots.proc / "sys/kernel/random/boot_id"),
        "kernel": kernel,
        "cpu": _table(roots.proc / "cpuinfo").get("model name", ""),
        "cores": os.cpu_count() or 1,
        "memory_kib": _memory_kib(roots),
        "numa_nodes": _numa_nodes(roots),
        "load": _load(roots),
        "time_ns": time.time_ns(),
        "python": platform.python_version(),
        "iproute2": version,
        "devlink": devlink,
        "kvm": os.access(roots.dev / "kvm", os.R_OK | os.W_OK),
        "iommu_groups": len(groups),
        "iommu": files.names(roots.sys / "class/iommu"),
        "modules": _modules(roots, kernel, modules),
        "programs": {
            path: os.path.isfile(path) and os.access(path, os.X_OK)
            for path in programs
        },
    }


def _table(path: Path) -> dict[str, str]:
    """Return the first value of each name in lines of ``name: value``."""
    found: dict[str, str] = {}
    for line in files.text(path).split("\n"):
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _memory_kib(roots: Roots) -> int:
    words = _table(roots.proc / "meminfo").get("MemTotal", "").split()
    return int(words[0]) if words else 0


def _numa_nodes(roots: Roots) -> int:
    nodes = [
        name
        for name in files.names(roots.sys / "devices/system/node")
        if name.startswith("node") and name[len("node"):].isdigit()
    ]
    return len(nodes)


def _load(roots: Roots) -> list[float]:
    words = files.text(roots.proc / "loadavg").split()[:3]
    return [float(x) for x in words] or [0.0, 0.0, 0.0]


def _modules(
    roots: Roots, kernel: str, wanted: Sequence[str]
) -> dict[str, str]:
    """Say how each module is there; "" stands for not at all."""
    folder = roots.modules / kernel
    available = _listed(folder / "modules.dep")
    built_in = _listed(folder / "modules.builtin")
    found = {}
    for name in wanted:
        module = roots.sys / "module" / name
        if (module / "initstate").exists():
            found[name] = LOADED
        elif name in built_in or module.is_dir():
            found[name] = BUILT_IN
        else:
            found[name] = AVAILABLE if name in available else ""
    return found


def _listed(path: Path) -> set[str]:
    """Return the names of the modules in a list of depmod."""
    lines = files.text(path).split("\n")
    paths = (line.partition(":")[0] for line in lines)
    return {
        os.path.basename(x).partition(".ko")[0].replace("-", "_")
        for x in paths
    }
