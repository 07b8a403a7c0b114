# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU saves of a VM besides its memory, as far as it must be known.

It is a migration stream (QEMU's docs/devel/migration).  Two things in its
section ``timer`` (QEMU's softmmu/cpu-timers.c) depend on the host:

* The offsets of clocks that the VM does not read, as its clock counts
  instructions.
* The time for which the CPU has been idle.  The VM's clock is the time of its
  instructions and this time.  The VM stops itself, and QEMU's main loop learns
  of that later.  If its thread is late, it finds an idle CPU and the VM still
  running.  With ``sleep=off`` it then moves the clock to the next timer at
  once (icount_start_warp_timer()).  The timer itself does not run any more.
  So the only other differences are what devices calculate from the clock when
  they are saved, such as the counter of the HPET.
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
_IDLE = struct.Struct(">q")
# More than any VM has been idle when it stops, with the time until the next
# timer: 0.1 s with the debug kernel, and 0.2 s with our own one.
_MOST_IDLE_NS = 10**9


class SavedState:
    """The saved state of a VM.

    :param data: The stream.
    :raise TestbedError: When it has no clock that counts instructions.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._timer = data.find(_TIMER)
        icount = data.find(_ICOUNT)
        if self._timer < 0 or icount < self._timer:
            raise TestbedError(
                "the outer VM was saved without its clock",
                "Use --boot, which needs no snapshot, and report this.",
            )
        self._idle = icount + len(_ICOUNT) + _VERSION_BYTES

    def settled(self) -> bytes:
        """Return the stream with a clock that does not depend on the host.

        The clock is moved on until the CPU has been idle for a second.

        :raise TestbedError: When it has been idle for longer.
        """
        (idle_ns,) = _IDLE.unpack_from(self._data, self._idle)
        if not 0 <= idle_ns <= _MOST_IDLE_NS:
            raise TestbedError(
                f"the outer VM was idle for {idle_ns} ns",
                "Use --boot, which needs no snapshot, and report this.",
            )
        data = bytearray(self._data)
        _IDLE.pack_into(data, self._idle, _MOST_IDLE_NS)
        return bytes(data)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all that does not depend on the host."""
        at = self._timer + len(_TIMER) + _NUMBERS_BYTES
        data = bytearray(self._data)
        data[at : at + _OFFSETS_BYTES] = bytes(_OFFSETS_BYTES)
        return hashlib.sha256(data).hexdigest()
