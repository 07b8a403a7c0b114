# SPDX-License-Identifier: GPL-2.0-or-later
"""What the preflight looks at of a host as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.devices.vf.drivers import numbers
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.devices.vf.wanted import Scene

# QEMU pins the guest's memory and some ROMs. For 64 MiB of memory 64 MiB were
# not enough, and 64.5 MiB were.
_ROMS_MIB = 2


def host_lines(scene: Scene) -> Iterator[CheckLine]:
    """Examine the kernel, the tools, and the caller's rights.

    :param scene: The host, and what is wanted of it.
    """
    yield _kernel(scene)
    yield _module(scene)
    yield _iommu(scene)
    if scene.driver.iproute2 and not all(
        scene.without_devlink(card) for card in scene.cards
    ):
        yield _devlink(scene)
    yield _memlock(scene)
    for path in scene.wanted.qemus:
        able = scene.inventory.host.programs.get(path)
        yield CheckLine(
            scene.wanted.name,
            "QEMU",
            able,
            f"{path} {_CAN_RUN[able]}",
            f"{path} can be run",
            f"Check the path and its permissions: 'ls -l {path}'.",
        )


_CAN_RUN = {
    True: "can be run",
    False: "is missing, or cannot be run",
    None: "was not looked for",
}


def _kernel(scene: Scene) -> CheckLine:
    found, wanted = scene.inventory.host.kernel, scene.driver.kernel
    return CheckLine(
        scene.wanted.name,
        "kernel",
        numbers(found) >= numbers(wanted),
        found,
        f"{wanted} or later",
        "Boot a later kernel.",
    )


def _module(scene: Scene) -> CheckLine:
    driver = scene.driver
    state = scene.inventory.host.modules.get(driver.module)
    mend = f"Boot a kernel that has it ({driver.config})."
    if driver.in_debian is False:
        mend += " Debian's kernels have not."
    return CheckLine(
        scene.wanted.name,
        f"module {driver.module}",
        None if state is None else bool(state),
        "not looked for" if state is None else state or "not there",
        "loaded, available or built-in",
        mend,
    )


def _iommu(scene: Scene) -> CheckLine:
    host = scene.inventory.host
    on = bool(host.iommu and host.iommu_groups)
    return CheckLine(
        scene.wanted.name,
        "IOMMU",
        on,
        f"{', '.join(host.iommu) or 'none'}, {host.iommu_groups} groups",
        "on, with groups",
        "Switch it on in the firmware's set-up (VT-d, AMD-Vi, SMMU), and "
        "boot an Intel machine with 'intel_iommu=on'.",
    )


def _devlink(scene: Scene) -> CheckLine:
    found, wanted = scene.inventory.host, scene.driver.iproute2 or ""
    there = f"iproute2 {found.iproute2}" if found.iproute2 else "no iproute2"
    return CheckLine(
        scene.wanted.name,
        "devlink",
        bool(found.devlink) and numbers(found.iproute2) >= numbers(wanted),
        there if found.devlink or not found.iproute2
        else f"{there} without devlink",
        f"devlink of iproute2 {wanted} or later",
        "Install a later iproute2, as root; on Debian 12: 'apt-get install "
        "-t bookworm-backports iproute2'.",
    )


def _memlock(scene: Scene) -> CheckLine:
    caller = scene.inventory.caller
    needed_bytes = (scene.ram_mib + _ROMS_MIB) << 20
    limit = caller.memlock_bytes
    kib = needed_bytes >> 10
    return CheckLine(
        scene.wanted.name,
        f"locked memory of {caller.user}",
        limit is None or limit >= needed_bytes,
        "no limit" if limit is None else f"at most {limit >> 10} KiB",
        f"{kib} KiB for a guest of {scene.ram_mib} MiB",
        f"Write '{caller.user} - memlock {kib}' to "
        "/etc/security/limits.d/vfio-p2p.conf as root, and log in again; for "
        f"a service, set LimitMEMLOCK={kib}K.",
    )
