# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU saves of a VM besides its memory, as far as it must be known.

It is a migration stream (QEMU's docs/devel/migration).  Two things in it
depend on the host:

* The section ``timer`` has the offsets of clocks that the VM does not read,
  as its clock counts instructions (QEMU's softmmu/cpu-timers.c).
* The VM stops itself, and QEMU's main loop learns of that later.  If its
  thread is late, it finds all CPUs idle and the VM still running.  With
  ``sleep=off`` it then moves the VM's clock to the next timer at once
  (icount_start_warp_timer()).  So the clock of a VM that stopped in time is
  between two timers, and that of a late one has exactly the time of a timer.
"""

from __future__ import annotations

import hashlib
import struct
from functools import cached_property

from vfio_p2p.errors import TestbedError

# cpu_ticks_offset, unused, cpu_clock_offset; after the section's name come
# its instance and its version.
_TIMER = b"\x05timer"
_NUMBERS_BYTES = 8
_OFFSETS_BYTES = 24
# After the subsection's name come its version, qemu_icount_bias, and
# qemu_icount, which counts instructions of 2 ns.
_ICOUNT = b"timer/icount"
_VERSION_BYTES = 4
_CLOCKS = struct.Struct(">qq")
_SHIFT = 1


class SavedState:
    """The saved state of a VM.

    :param data: The stream.
    :raise TestbedError: When it has no clock that counts instructions.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._timer = data.find(_TIMER)
        self._icount = data.find(_ICOUNT)
        if self._timer < 0 or self._icount < self._timer:
            raise TestbedError(
                "the outer VM was saved without its clock",
                "Use --boot, which needs no snapshot, and report this.",
            )

    @property
    def clock_ns(self) -> int:
        """The VM's clock."""
        at = self._icount + len(_ICOUNT) + _VERSION_BYTES
        bias_ns, instructions = _CLOCKS.unpack_from(self._data, at)
        return int(bias_ns + (instructions << _SHIFT))

    @property
    def is_late(self) -> bool:
        """Whether the clock was moved to a timer after the VM had stopped.

        Devices save the times of their timers.
        """
        return struct.pack(">q", self.clock_ns) in self._data

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all that does not depend on the host."""
        at = self._timer + len(_TIMER) + _NUMBERS_BYTES
        data = bytearray(self._data)
        data[at : at + _OFFSETS_BYTES] = bytes(_OFFSETS_BYTES)
        return hashlib.sha256(data).hexdigest()
