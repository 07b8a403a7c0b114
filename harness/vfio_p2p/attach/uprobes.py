# SPDX-License-Identifier: GPL-2.0-or-later
"""A witness that needs no monitor: a bpftrace program for one QEMU's file.

The program prints what QEMU's `log` trace backend would, behind a prefix with
time and process that `journalctl -o short-unix` has, too.  It uses

* uprobes at functions that QEMU exports.  Their arguments are the same from
  QEMU 10.0 to 11.1 (system/runstate.c, migration/migration.c,
  migration/savevm.c, hw/vfio/migration.c);
* the system calls by which QEMU talks to a device: ioctl() for its state, and
  read() and close() for its data (linux/vfio.h).

The other functions of hw/vfio/migration.c have no name in the file.  What
their lines would say follows from the function that called them:

* A request within vm_state_notify() is that of a callback.  The prepare
  callback is the one that asks for P2P states.
* The data of a device in STOP_COPY is complete when read() returns 0.
* The cleanup of a device ends with close() of its data.
* A request within migration_call_notifiers() is that of the notifier.

There is one return probe, at a function that never switches to another stack.
A return probe at one that does could kill QEMU, whose coroutines have stacks
of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vfio_p2p.attach.elf import Elf
from vfio_p2p.errors import SourceError
from vfio_p2p.trace import printable
from vfio_p2p.uapi import P2P_STATES, DeviceState

# In struct VFIODevice of QEMU 8.2 to 11.1, where only pointers are before it.
NAME_OFFSET = 72
_SET_STATE = "vfio_migration_set_state"
# A variable of QEMU 10.0 and newer, whatever a distribution calls its release.
_NEW = "hw_compat_9_2"
# The tables that are read, and the functions that are probed.
_NEEDED = (
    "MigrationStatus_lookup",
    "RunState_lookup",
    "migrate_set_state",
    "migration_call_notifiers",
    "qemu_loadvm_state",
    "qemu_loadvm_state_cleanup",
    "qemu_savevm_state_cleanup",
    "qemu_savevm_state_complete_precopy",
    _SET_STATE,
    "vfio_multifd_save_complete_precopy_thread",
    "vm_state_notify",
)
# struct QEnumLookup (include/qapi/util.h): array, features, size.
_SIZE_AT = 16
_MOST_VALUES = 256
_BASES = frozenset(0x40 + base for base in range(8) if base != 4)
_HINT = (
    "Uprobes need QEMU 10.0 or newer that was built with --enable-modules, "
    "or that was not stripped. Without them, 'vfio-p2p record' uses QEMU's "
    "own trace events."
)
_OFFSET_HINT = (
    "Give --name-offset; 'gdb -batch -ex \"print (long) &((VFIODevice *) "
    "0)->name\" QEMU' prints it if there is debugging information."
)


def bpftrace_program(
    elf: Elf,
    path: str,
    *,
    pid: int | None = None,
    name_offset: int | None = None,
) -> str:
    """Return a bpftrace program that witnesses the migrations of a QEMU.

    :param elf: QEMU's file.
    :param path: Its path on the machine that the program is to run on.
    :param pid: The only process to look at; None leaves that to the first
        argument of the program.
    :param name_offset: Where struct VFIODevice has the name of a device, in
        bytes; None if it is as in QEMU's releases, which is checked then.
    :raise SourceError: When the file lacks what the program needs.
    """
    missing = [name for name in _NEEDED if name not in elf.symbols]
    if _NEW not in elf.symbols and "vm_state_notify" in elf.symbols:
        raise SourceError(
            f"{elf.name} is older than QEMU 10.0, and does not export "
            f"{', '.join(missing) or _NEW}",
            _HINT,
        )
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise SourceError(
            f"{elf.name} does not export {missing[0]}{more}", _HINT
        )
    if not re.fullmatch(r"/[\w./+-]+", path):
        raise SourceError(
            f"bpftrace has no use for the path {printable(path)}",
            "Give --path with an absolute path of letters, digits, '.', '+', "
            "'-' and '_', to which the file can be linked.",
        )
    if name_offset is None:
        name_offset = NAME_OFFSET
        if not _loads(elf.code(_SET_STATE), name_offset):
            raise SourceError(
                f"{_SET_STATE}() of {elf.name} reads nothing at the place "
                "where QEMU 10.0 to 11.1 have a device's name",
                _OFFSET_HINT,
            )
    values = {
        "path": path,
        "chosen": f"pid == {pid}" if pid else "$1 == 0 || pid == $1",
        "argument": "" if pid else " PID",
        "name_offset": str(name_offset),
        "states": _map("state", {x.value: x.name for x in DeviceState}),
        "runs": _map("run", enumeration(elf, "RunState_lookup")),
        "statuses": _map("status", enumeration(elf, "MigrationStatus_lookup")),
        "p2p": " || ".join(f"$asked == {x.value}" for x in sorted(P2P_STATES)),
        "running": str(DeviceState.RUNNING.value),
        "stop_copy": str(DeviceState.STOP_COPY.value),
    }
    return re.sub(r"%\{(\w+)\}", lambda found: values[found[1]], _TEXT)


def enumeration(elf: Elf, lookup: str) -> dict[int, str]:
    """Return the values of an enumeration of QEMU's, from its own table.

    :param elf: QEMU's file.
    :param lookup: The name of the table, e.g. ``RunState_lookup``.
    :raise SourceError: When it is no such table.
    """
    table, _ = elf.symbols[lookup]
    count = elf.number(table + _SIZE_AT, 4)
    if not 0 < count <= _MOST_VALUES:
        raise SourceError(f"{lookup} of {elf.name} is no table", _HINT)
    texts = elf.pointer(table)
    return {
        value: elf.text(elf.pointer(texts + 8 * value))
        for value in range(count)
    }


def _loads(code: bytes, offset: int) -> bool:
    """Return whether some instruction loads a pointer at an offset.

    It is ``mov offset(register), register`` or ``push offset(register)``.
    """
    # A ModRM byte whose offset has one byte; 4 would be a third operand.
    return any(
        where & 0xC7 in _BASES
        and last == offset
        and (
            (opcode == 0x8B and prefix & 0xF8 == 0x48)
            or (opcode == 0xFF and where & 0x38 == 0x30)
        )
        for prefix, opcode, where, last in zip(
            code, code[1:], code[2:], code[3:], strict=False
        )
    )


def _map(name: str, values: Mapping[int, str]) -> str:
    """Fill a map; bpftrace takes its size from the first text."""
    order = sorted(values, key=lambda value: (-len(values[value]), value))
    return "\n".join(
        f'    @{name}[{value}] = "{values[value]}";' for value in order
    )


_TEXT = """\
#!/usr/bin/env bpftrace
/*
 * Made by 'vfio-p2p trace-script' for %{path}
 * alone.  Run it as root, end it by Ctrl-C, and sort what it printed, since
 * lines of several CPUs can come in another order:
 *
 *     bpftrace -q -o FILE THIS%{argument}
 *     sort -s -k 1,1 FILE >trace.log
 *
 * The lines vfio_vmstate_change*, vfio_save_*, vfio_load_cleanup and
 * vfio_migration_state_notifier follow from the others and from system calls.
 */
BEGIN
{
%{states}
%{runs}
%{statuses}
}

uprobe:%{path}:vm_state_notify
/%{chosen}/
{
    @caller[tid] = 1;
    @running[tid] = arg0 & 0xff;
    @reason[tid] = arg1 & 0xffffffff;
    printf("%s uprobe qemu[%d]: vm_state_notify running %d reason %d (%s)\\n",
           strftime("%s.%f", nsecs), pid, @running[tid], @reason[tid],
           @run[@reason[tid]]);
}

uprobe:%{path}:migrate_set_state
/%{chosen}/
{
    // It does nothing if the status is not the expected one.
    if (*(uint32 *)arg0 == (arg1 & 0xffffffff)) {
        printf("%s uprobe qemu[%d]: migrate_set_state new state %s\\n",
               strftime("%s.%f", nsecs), pid, @status[arg2 & 0xffffffff]);
    }
}

uprobe:%{path}:migration_call_notifiers
/%{chosen}/
{
    @caller[tid] = 2;
    @type[tid] = arg1 & 0xffffffff;
}

uprobe:%{path}:qemu_savevm_state_cleanup
/%{chosen}/
{
    @caller[tid] = 3;
}

uprobe:%{path}:qemu_loadvm_state_cleanup
/%{chosen}/
{
    @caller[tid] = 4;
}

uprobe:%{path}:vfio_multifd_save_complete_precopy_thread
/%{chosen}/
{
    @caller[tid] = 5;
}

uprobe:%{path}:qemu_savevm_state_complete_precopy,
uprobe:%{path}:qemu_loadvm_state
/%{chosen}/
{
    @caller[tid] = 0;
}

uprobe:%{path}:vfio_migration_set_state
/%{chosen}/
{
    @inside[tid] = 1;
    @name[tid] = str(*(uint64 *)(arg0 + %{name_offset}));
    @asked[tid] = arg1 & 0xffffffff;
    if (@caller[tid] == 2) {
        printf("%s uprobe qemu[%d]: vfio_migration_state_notifier  (%s) ",
               strftime("%s.%f", nsecs), pid, @name[tid]);
        printf("state %d\\n", @type[tid]);
    }
    printf("%s uprobe qemu[%d]: vfio_migration_set_state  (%s) ",
           strftime("%s.%f", nsecs), pid, @name[tid]);
    printf("new state %s, recover state %s\\n", @state[@asked[tid]],
           @state[arg2 & 0xffffffff]);
}

// VFIO_DEVICE_FEATURE and VFIO_DEVICE_RESET
tracepoint:syscalls:sys_enter_ioctl
/@inside[tid] && (args->cmd == 0x3b75 || args->cmd == 0x3b6f)/
{
    @command[tid] = args->cmd;
    @feature[tid] = args->arg;
}

tracepoint:syscalls:sys_exit_ioctl
/@command[tid]/
{
    if (args->ret == 0) {
        $state = (uint32)%{running};
        if (@command[tid] == 0x3b75) {
            // struct vfio_device_feature_mig_state, behind 8 other bytes
            $state = *uptr((uint32 *)(@feature[tid] + 8));
            $fd = *uptr((int32 *)(@feature[tid] + 12));
            if ($fd >= 0) {
                @open[pid, $fd] = 1;
                @data[pid, $fd] = @name[tid];
            }
        }
        @now[pid, @name[tid]] = $state;
        printf("%s uprobe qemu[%d]: vfio_migration_set_device_state  (%s) ",
               strftime("%s.%f", nsecs), pid, @name[tid]);
        printf("state %s\\n", @state[$state]);
    }
    delete(@command[tid]);
    delete(@feature[tid]);
}

uretprobe:%{path}:vfio_migration_set_state
/@inside[tid]/
{
    $asked = @asked[tid];
    if (@caller[tid] == 1) {
        if (%{p2p}) {
            printf("%s uprobe qemu[%d]: vfio_vmstate_change_prepare  (%s) ",
                   strftime("%s.%f", nsecs), pid, @name[tid]);
        } else {
            printf("%s uprobe qemu[%d]: vfio_vmstate_change  (%s) ",
                   strftime("%s.%f", nsecs), pid, @name[tid]);
        }
        printf("running %d reason %s device state %s\\n", @running[tid],
               @run[@reason[tid]], @state[$asked]);
    }
    delete(@inside[tid]);
}

tracepoint:syscalls:sys_enter_read
/@open[pid, args->fd]/
{
    @reading[tid] = args->fd + 1;
}

tracepoint:syscalls:sys_exit_read
/@reading[tid]/
{
    $name = @data[pid, @reading[tid] - 1];
    if (args->ret == 0 && @now[pid, $name] == %{stop_copy}) {
        if (@caller[tid] == 5) {
            printf("%s uprobe qemu[%d]: ", strftime("%s.%f", nsecs), pid);
            printf("vfio_save_complete_precopy_thread_end  (%s) ret 1\\n",
                   $name);
        } else {
            printf("%s uprobe qemu[%d]: ", strftime("%s.%f", nsecs), pid);
            printf("vfio_save_complete_precopy  (%s) ret 0\\n", $name);
        }
    }
    delete(@reading[tid]);
}

tracepoint:syscalls:sys_enter_close
/@open[pid, args->fd]/
{
    $name = @data[pid, args->fd];
    if (@caller[tid] == 3) {
        printf("%s uprobe qemu[%d]: vfio_save_cleanup  (%s)\\n",
               strftime("%s.%f", nsecs), pid, $name);
    }
    if (@caller[tid] == 4) {
        printf("%s uprobe qemu[%d]: vfio_load_cleanup  (%s)\\n",
               strftime("%s.%f", nsecs), pid, $name);
    }
    delete(@open[pid, args->fd]);
    delete(@data[pid, args->fd]);
}

// Otherwise bpftrace prints them.
END
{
    clear(@state); clear(@run); clear(@status); clear(@caller);
    clear(@running); clear(@reason); clear(@type); clear(@inside);
    clear(@name); clear(@asked); clear(@command); clear(@feature);
    clear(@open); clear(@data); clear(@now); clear(@reading);
}
"""
