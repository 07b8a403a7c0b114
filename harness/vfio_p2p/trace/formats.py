# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU traces, by version: the lines of the `log` backend as data.

The formats are those of hw/vfio/trace-events, migration/trace-events and the
trace-events of the run-state code, in the releases of `VERSIONS`.  QEMU 11.0
was not seen and is taken to be like 10.2.  A template is the event's format
string with names in place of conversions: ``{x}`` is a word, ``{x:d}`` a
signed number, ``{x:u}`` an unsigned one, and ``{x:x}`` a hexadecimal one
behind ``0x``.

An event can change its *meaning* along with its text:
vfio_migration_set_state says "done" up to 9.0 and "about to try" from 9.1.
`Kind` is the meaning.

A new release of QEMU is one more line in `VERSIONS`, as long as it changes
no event of ours.  tests/functional/test_trace_events.py compares this table
with the releases that Debian has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache, lru_cache

from vfio_p2p.variant import release_of

VERSIONS = (
    "8.1",
    "8.2",
    "9.0",
    "9.1",
    "9.2",
    "10.0",
    "10.1",
    "10.2",
    "11.0",
    "11.1",
)


@lru_cache
def release_number(version: str) -> tuple[int, int]:
    """Return the numbers of a release, so that releases can be compared.

    :param version: A text that begins with them, e.g. ``10.0`` or
        ``10.0.13 (Debian)``.
    :raise ValueError: When it does not.
    """
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?!\d)", version)
    if not found:
        raise ValueError(f"{version!r} is not a release such as '10.0'")
    return int(found[1]), int(found[2])


class Kind(Enum):
    """What a line says, whatever the version calls it."""

    SUCCEEDED = auto()      # a request succeeded, even one for "stay here"
    ATTEMPT = auto()        # a request is about to be made, or found moot
    CHANGED = auto()        # the cached state changed, also by a recovery
    PREPARE = auto()        # the prepare callback returns
    MAIN = auto()           # the main callback returns
    NOTIFY = auto()         # a run-state change begins
    REALIZE = auto()        # a device that can migrate was plugged
    SAVE_SETUP = auto()     # vfio_save_setup() returns
    COMPLETE = auto()       # the device's part of the stream is written
    SAVE_CLEANUP = auto()   # vfio_save_cleanup() returns
    LOAD_CLEANUP = auto()   # vfio_load_cleanup() returns
    STATUS = auto()         # the migration's own state
    NOTIFIER = auto()       # the device learns of the migration's end
    OTHER = auto()
    MESSAGE = auto()        # no trace event, but an error message of QEMU's
    REMARK = auto()         # anything else that QEMU or libvirt says
    UNKNOWN = auto()        # a known event in an unknown format
    DROPPED = auto()        # QEMU reports that it lost events


def missing_events(version: str, names: Iterable[str]) -> list[str]:
    """Return the events that a QEMU should have and lacks.

    :param version: What QEMU prints; one that is newer than all `VERSIONS`
        is taken for the newest.
    :param names: The events that it has.
    """
    release = release_of(version) or release_number(VERSIONS[-1])
    at = max(
        (x for x in VERSIONS if release_number(x) <= release),
        key=release_number,
        default=VERSIONS[0],
    )
    has = set(names)
    index = VERSIONS.index
    return sorted(
        {
            fmt.event
            for fmt in FORMATS
            if fmt.kind is not Kind.OTHER
            and index(fmt.since) <= index(at) <= index(fmt.versions[1])
            and fmt.event not in has
        }
    )


@dataclass(frozen=True, slots=True)
class Format:
    """One event's text in a range of versions.

    :param event: The name of the trace event.
    :param since: The first of `VERSIONS` with this text.
    :param until: The last one; None if the newest still has it.
    :param template: The text after the event's name.
    :param kind: What such a line says.
    """

    event: str
    since: str
    until: str | None
    template: str
    kind: Kind = Kind.OTHER

    @property
    def versions(self) -> tuple[str, str]:
        """The first and the last of `VERSIONS` with this text."""
        return self.since, self.until or VERSIONS[-1]

    def kind_of(self, fields: Mapping[str, object]) -> Kind:
        """Return what the event says with these arguments.

        :param fields: A value for every field of the template.
        """
        return Kind.PREPARE if fields.get("pre") else self.kind

    def text(self, fields: Mapping[str, object]) -> str:
        """Return the line that QEMU prints, without a prefix.

        :param fields: A value for every field of the template.
        """
        return self.renderer(fields)

    @property
    def renderer(self) -> Callable[[Mapping[str, object]], str]:
        """The function `text`, for callers that need it often."""
        return _python_format(self.event, self.template).format_map


@cache
def _python_format(event: str, template: str) -> str:
    text = re.sub(r"\{(\w+):x\}", r"0x{\1:x}", template)
    text = re.sub(r"\{(\w+):u\}", r"{\1:d}", text)
    # The format strings of vfio's events begin with another blank.
    lead = " " if event.startswith("vfio_") else ""
    return f"{event} {lead}{text}"


_DEVICE = "({device})"
_VMSTATE = f"{_DEVICE} running {{running:d}} reason {{reason}} "
_SIZES = "precopy initial size {initial:%s} precopy dirty size {dirty:%s}"
_ESTIMATE = f"{_DEVICE} precopy {{precopy:%s}} postcopy {{postcopy:%s}} "
_EXACT = _ESTIMATE + "stopcopy size {stopcopy:%s} "
_DOWNTIME = (
    "type={type} idstr={idstr} instance_id={instance:d} downtime={downtime:d}"
)


def _hex_then_decimal(
    event: str, template: str, until: str | None = None
) -> tuple[Format, Format]:
    """Make two formats: sizes were hexadecimal up to 9.1 (fa4e20defe)."""
    count = template.count("%s")
    return (
        Format(event, "8.1", "9.1", template % (("x",) * count)),
        Format(event, "9.2", until, template % (("u",) * count)),
    )


FORMATS: tuple[Format, ...] = (
    Format(
        "vfio_migration_set_state", "8.1", "9.0",
        f"{_DEVICE} state {{state}}", Kind.SUCCEEDED,
    ),
    # 11ebce2a55 moved the line to the function's entry.
    Format(
        "vfio_migration_set_state", "9.1", None,
        f"{_DEVICE} new state {{state}}, recover state {{recover}}",
        Kind.ATTEMPT,
    ),
    Format(
        "vfio_migration_set_device_state", "9.1", None,
        f"{_DEVICE} state {{state}}", Kind.CHANGED,
    ),
    Format(
        "vfio_vmstate_change", "8.1", None,
        f"{_VMSTATE}device state {{state}}", Kind.MAIN,
    ),
    # The first posting of the series had one event for both callbacks.  It
    # was never released.
    Format(
        "vfio_vmstate_change", "8.1", "8.1",
        f"{_VMSTATE}pre state change {{pre:d}} device state {{state}}",
        Kind.MAIN,
    ),
    # Released in 8.2; the series adds it to the base that it is applied to.
    Format(
        "vfio_vmstate_change_prepare", "8.1", None,
        f"{_VMSTATE}device state {{state}}", Kind.PREPARE,
    ),
    Format(
        "vfio_migration_realize", "8.1", None, _DEVICE, Kind.REALIZE
    ),
    Format(
        "vfio_migration_init", "11.1", None,
        f"{_DEVICE} mig_flags {{flags:x}}, precopy_info_v2_used {{v2:d}}, "
        "dirty_pages_supported {dirty:d}",
    ),
    Format(
        "vfio_migration_state_notifier", "8.1", "8.2",
        f"{_DEVICE} state {{status}}", Kind.NOTIFIER,
    ),
    Format(
        "vfio_migration_state_notifier", "9.0", None,
        f"{_DEVICE} state {{type:d}}", Kind.NOTIFIER,
    ),
    *(
        Format(
            "vfio_save_setup", since, until,
            f"{_DEVICE} data buffer size {{size:{base}}}", Kind.SAVE_SETUP,
        )
        for since, until, base in (("8.1", "9.1", "x"), ("9.2", None, "u"))
    ),
    *_hex_then_decimal("vfio_save_iterate", f"{_DEVICE} {_SIZES}"),
    Format("vfio_save_iterate_start", "9.2", None, _DEVICE),
    Format("vfio_save_block", "8.1", None, f"{_DEVICE} data_size {{n:d}}"),
    Format("vfio_save_block_precopy_empty_hit", "9.2", None, _DEVICE),
    Format("vfio_save_complete_precopy_start", "9.2", None, _DEVICE),
    Format(
        "vfio_save_complete_precopy", "8.1", None,
        f"{_DEVICE} ret {{ret:d}}", Kind.COMPLETE,
    ),
    Format(
        "vfio_save_complete_precopy_thread_start", "10.0", None,
        f"{_DEVICE} idstr {{idstr}} instance {{instance:u}}",
    ),
    # With multifd device state transfer the device is read up to here.
    Format(
        "vfio_save_complete_precopy_thread_end", "10.0", None,
        f"{_DEVICE} ret {{ret:d}}", Kind.COMPLETE,
    ),
    Format(
        "vfio_save_cleanup", "8.1", None, _DEVICE, Kind.SAVE_CLEANUP
    ),
    Format("vfio_save_device_config_state", "8.1", None, _DEVICE),
    *_hex_then_decimal(
        "vfio_state_pending_estimate", f"{_ESTIMATE}{_SIZES}", "11.0"
    ),
    *_hex_then_decimal(
        "vfio_state_pending_exact", f"{_EXACT}{_SIZES}", "11.0"
    ),
    Format(
        "vfio_state_pending", "11.1", None,
        f"{_DEVICE} stopcopy size {{stopcopy:u}}, precopy initial size "
        "{initial:u}, precopy dirty size {dirty:u}, request switchover ack "
        "{ack:d}, exact {exact:d}, final {final:d}",
    ),
    Format(
        "vfio_query_precopy_size", "11.1", None,
        f"{_DEVICE} init {{initial:u}}, dirty {{dirty:u}}, "
        "reinit {reinit:d}, ret {ret:d}",
    ),
    Format(
        "vfio_query_precopy_size_request_switchover_ack", "11.1", None,
        _DEVICE,
    ),
    Format(
        "vfio_query_stop_copy_size", "11.1", None,
        f"{_DEVICE} stopcopy size {{stopcopy:u}} ret {{ret:d}}",
    ),
    Format("vfio_send_init_data_flag", "11.1", None, _DEVICE),
    Format(
        "vfio_load_cleanup", "8.1", None, _DEVICE, Kind.LOAD_CLEANUP
    ),
    Format("vfio_load_state", "8.1", None, f"{_DEVICE} data {{flag:x}}"),
    *_hex_then_decimal(
        "vfio_load_state_device_data", f"{_DEVICE} size {{n:%s}} ret {{ret:d}}"
    ),
    Format("vfio_load_device_config_state", "8.1", "9.2", _DEVICE),
    Format("vfio_load_device_config_state_start", "10.0", None, _DEVICE),
    Format("vfio_load_device_config_state_end", "10.0", None, _DEVICE),
    Format("vfio_load_bufs_thread_start", "10.0", None, _DEVICE),
    Format("vfio_load_bufs_thread_end", "10.0", None, _DEVICE),
    Format("vfio_load_state_device_buffer_start", "10.0", None, _DEVICE),
    Format("vfio_load_state_device_buffer_end", "10.0", None, _DEVICE),
    *(
        Format(
            f"vfio_load_state_device_buffer_{what}", "10.0", None,
            f"{_DEVICE} idx {{index:u}}",
        )
        for what in ("incoming", "starved", "load_start", "load_end")
    ),
    Format(
        "vm_state_notify", "8.1", None,
        "running {running:d} reason {number:d} ({reason})", Kind.NOTIFY,
    ),
    Format(
        "migrate_set_state", "8.1", None, "new state {status}", Kind.STATUS
    ),
    Format("migration_completion_vm_stop", "8.1", None, "ret {ret:d}"),
    Format(
        "migration_bitmap_sync_end", "8.1", None, "dirty_pages {pages:u}"
    ),
    Format("migration_return_path_end_after", "8.1", "8.1", "{error:d}"),
    Format("migration_return_path_end_after", "8.2", None, ""),
    Format("migrate_fd_cleanup", "8.1", "9.2", ""),
    Format("migration_cleanup", "10.0", None, ""),
    Format("migration_call_notifiers", "11.1", None, "type={type:d}"),
    Format("savevm_state_cleanup", "8.1", None, ""),
    Format(
        "process_incoming_migration_co_end", "8.1", "10.1",
        "ret={ret:d} postcopy-state={postcopy:d}",
    ),
    Format(
        "process_incoming_migration_co_end", "10.2", None, "ret={ret:d}"
    ),
    # virtio_vmstate_change() sets the status that the device has already.
    Format(
        "virtio_set_status", "8.1", None, "vdev {vdev:x} val {value:u}"
    ),
    Format("source_return_path_thread_switchover_acked", "8.1", "10.2", ""),
    Format(
        "source_return_path_thread_switchover_acked", "11.1", None,
        "switchover_ack_pending_num {pending:u}",
    ),
    Format("vmstate_downtime_save", "8.2", None, _DOWNTIME),
    Format("vmstate_downtime_load", "8.2", None, _DOWNTIME),
    Format("vmstate_downtime_checkpoint", "8.2", None, "{checkpoint}"),
)


@dataclass(frozen=True, slots=True)
class Prefix:
    """A text that can stand before an event's name.

    :param pattern: A regular expression.  Its groups are the thread, seconds
        and microseconds or ISO 8601 time, where the prefix has them.
    :param since: The first of `VERSIONS` that prints it.
    :param until: The last one; None if the newest still prints it.
    """

    pattern: str
    since: str
    until: str | None

    @property
    def versions(self) -> tuple[str, str]:
        """The first and the last of `VERSIONS` that print it."""
        return self.since, self.until or VERSIONS[-1]


PREFIXES: tuple[Prefix, ...] = (
    # scripts/tracetool/backend/log.py, with -msg timestamp=on.
    Prefix(
        r"(?P<tid>\d{1,10})@(?P<sec>\d{1,11})\.(?P<usec>\d{6}):",
        "8.1", "10.0",
    ),
    # util/log.c since 012842c075, with the same option: the thread is gone.
    # GLib omits the fraction when it is zero.
    Prefix(
        r"(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ",
        "10.1", None,
    ),
    # Posted in January 2026 and not in 11.1: guest, program and thread are
    # printed as they are before an error message.
    Prefix(
        r"(?:(?P<iso2>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) )?"
        r"(?:\[[^\]]{1,128}\] )?[\w.+-]{1,64}:? ?"
        r"\((?P<tid2>\d{1,10}):[^)]{0,32}\): ",
        "10.2", None,
    ),
    Prefix("", "8.1", None),
)

# Error messages of QEMU that bear on a verdict (hw/vfio, migration,
# util/error).
MESSAGES: tuple[str, ...] = (
    "Failed setting device state to",
    "Failed setting device in recover state",
    "Failed resetting device, err",
    "data_fd out of sync",
    "Multiple VFIO devices migration is supported only if",
    "Migration is currently not supported with multiple VFIO devices",
    "VFIO migration is not supported",
    "VFIO Migration is not supported",
    "load of migration failed",
    "terminating on signal",
)

# The device could not do what QEMU asked of it.
FAILURE_MESSAGES: tuple[str, ...] = MESSAGES[:4]

_KINDS = {
    "d": r"-?\d{1,20}",
    "u": r"\d{1,20}",
    "x": r"0x[0-9a-f]{1,16}",
}
_WORD = r"\S{1,256}"
_WORDS = {
    "device": r"[^()]{1,256}",
    "state": r"UNKNOWN STATE|[A-Z0-9_]{1,32}",
    "recover": r"UNKNOWN STATE|[A-Z0-9_]{1,32}",
    "reason": r"[a-z-]{1,32}",
    "status": r"[a-z-]{1,32}",
}


def pattern(template: str) -> str:
    """Return the regular expression of a template.

    It has one named group per field.  Fields are bounded and cannot run into
    their neighbours, so that a hostile line costs linear time.

    :param template: As in `Format`.
    """
    parts = re.split(r"\{(\w+)(?::([dux]))?\}", template)
    found = [re.escape(parts[0])]
    for name, kind, text in zip(
        parts[1::3], parts[2::3], parts[3::3], strict=True
    ):
        field = _KINDS[kind] if kind else _WORDS.get(name, _WORD)
        found.append(f"(?P<{name}>{field}){re.escape(text)}")
    return "".join(found)


def arguments(template: str) -> tuple[tuple[str, str], ...]:
    """Return the template's fields in order, each with its conversion.

    The fields are the event's arguments: every trace event of this table
    prints all of its arguments, once and in order.  The conversion of a word
    is empty.

    :param template: As in `Format`.
    """
    found = re.findall(r"\{(\w+)(?::([dux]))?\}", template)
    return tuple((name, conversion) for name, conversion in found)


def numbers(template: str) -> set[str]:
    """Return the names of the template's fields that are numbers.

    :param template: As in `Format`.
    """
    return {name for name, conversion in arguments(template) if conversion}


@lru_cache(maxsize=4096)
def is_word(name: str, text: str) -> bool:
    """Return whether a field of a template can have this value.

    :param name: The name of a field that is no number.
    :param text: The value.
    """
    return re.fullmatch(_WORDS.get(name, _WORD), text) is not None
