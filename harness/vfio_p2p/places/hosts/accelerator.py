# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether KVM works on a host, found out by a guest of ours.

The existence of /dev/kvm proves nothing: there are hosts on which it can be
opened, and guests do not run.
"""

from __future__ import annotations

from enum import StrEnum

from vfio_p2p.machine.host import Host
from vfio_p2p.scenario.argv import HEARTBEAT, Launcher

# If KVM works, the first beat comes in less than a second.
_LIMIT_S = 20
_KILL_S = 2 * _LIMIT_S

# QEMU runs until the guest's serial port has a beat; then, or when that takes
# too long, its monitor is told to quit.
_TRY = f"""\
log=$1; shift
rm -f "$log"
{{
    i=0
    while [ $i -lt {_LIMIT_S} ] && ! grep -q beat "$log" 2>/dev/null; do
        sleep 1; i=$((i + 1))
    done
    echo quit
}} | timeout -k 1 {_KILL_S} "$@" -monitor stdio -serial "file:$log" \\
    >/dev/null 2>&1
grep -q beat "$log"
"""


class Accelerator(StrEnum):
    """What runs a guest's instructions."""

    TCG = "tcg"
    KVM = "kvm"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of QEMU, which follow those that choose TCG."""
        if self is Accelerator.TCG:
            return ()
        return ("-machine", "accel=kvm", "-cpu", "host")


async def kvm_works(host: Host, launcher: Launcher) -> bool:
    """Run a guest on KVM, and wait for its first sign of life.

    :param host: The host.
    :param launcher: A QEMU that is ready to be started there.
    :raise HostError: When the host is gone.
    """
    done = await host.run(
        [
            *("sh", "-c", _TRY, "sh", f"{launcher.firmware}/kvm.log"),
            *launcher.argv,
            *("-machine", "q35"),
            *Accelerator.KVM.arguments,
            *("-m", "32", "-nodefaults", "-no-user-config"),
            *("-display", "none", "-L", str(launcher.firmware)),
            *("-bios", HEARTBEAT),
            *("-fw_cfg", "name=opt/vfio-p2p/heartbeat,string=1000 0"),
        ],
        limit_s=_KILL_S + _LIMIT_S,
    )
    return done.status == 0
