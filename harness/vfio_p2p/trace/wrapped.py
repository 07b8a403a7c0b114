# SPDX-License-Identifier: GPL-2.0-or-later
"""What others put around QEMU's lines, and how it is taken off.

Syslog, journald, container runtimes, `ts`, `grep`, mail programs and QEMU's
own monitor put a text before each line, and other tracers print QEMU's events
in a form of their own.  Each is a `_Layer`; several can be around one line.

Only lines that concern VFIO get here, and of these only the ones that are not
QEMU's as they are, so that a plain log costs nothing.  The layers of one line
are tried first for the next one.  The work for lines that nothing fits is
bounded, since a log is untrusted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.trace.formats import FORMATS, arguments

# How many lines in vain end the search, before and after the first success.
_FAILURES = 2000
_FAILURES_AFTER = 50_000
_TRIES = 128
_MOST_LAYERS = 5
_MOST_CHAINS = 3
# A time that is no finer than this is of no use to measure with.
_COARSE_NS = 10**7

_HOST = r"[\w.:-]{1,255}"
_TAG = r"[^\s\[\]:@]{1,128}(?:\[(?P<pid>\d{1,10})\])?: ?"
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_CLOCK = r"(?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<frac>\d{1,9}))?"
_DATE = r"(?P<date>\d{4}-\d\d-\d\d)"
_ZONE = r"(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?"
_ISO = rf"{_DATE}[T ]{_CLOCK} ?{_ZONE}"

# The keys of a JSON line that hold what was printed, and when.
_MESSAGE_KEYS = (
    "msg", "message", "MESSAGE", "log", "line", "textPayload", "@message",
    "_msg", "body", "text",
)  # fmt: skip
_TIME_KEYS = ("time", "timestamp", "ts", "@timestamp")
_JOURNAL_TIME = "__REALTIME_TIMESTAMP"
_MOST_NESTED = 3


class Stamp(NamedTuple):
    """The time of what was around a line.

    :param time_ns: The time in nanoseconds since 1970, or since another
        moment if `dated` is false; None if there is none.
    :param dated: Whether it tells the day.
    :param coarse: Whether it is too coarse to be of use.
    """

    time_ns: int | None = None
    dated: bool = True
    coarse: bool = False


class Stripped(NamedTuple):
    """A line without what was around it.

    :param rest: The line as QEMU printed it.
    :param when: Reads the time of what was around it from the next field,
        which is only done if the line has no time itself.
    :param told: What that time is read from.
    :param pid: The process id that was around it, if there was one.
    """

    rest: str
    when: Callable[[Any], Stamp] | None = None
    told: Any = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class _Layer:
    """One thing that can be around a line.

    :param name: What it is called in messages, behind "read behind".
    :param take: Takes it off; returns None if it is not there.
    """

    name: str
    take: Callable[[str], Stripped | None]


def _prefix(name: str, pattern: str) -> _Layer:
    """Make a layer of a regular expression for what is before a line."""
    regex = re.compile(pattern)
    timed = not _TIMES.isdisjoint(regex.groupindex)

    def take(text: str) -> Stripped | None:
        found = regex.match(text)
        if found is None:
            return None
        groups = found.groupdict()
        pid = groups.get("pid")
        return Stripped(
            text[found.end() :],
            _time_of if timed else None,
            groups,
            int(pid) if pid else None,
        )

    return _Layer(name, take)


_TIMES = {"ns", "sec", "clock"}


def _time_of(groups: Mapping[str, str | None]) -> Stamp:
    """Return the time that a regular expression has found."""
    if nanoseconds := groups.get("ns"):
        return Stamp(int(nanoseconds))
    if seconds := groups.get("sec"):
        frac = (groups.get("frac") or "").ljust(9, "0")[:9]
        time_ns = int(seconds) * 10**9 + int(frac)
        # A count from the boot of a host has fewer digits.
        return Stamp(time_ns, len(seconds) >= 9, not groups.get("frac"))
    clock = groups.get("clock")
    if not clock:
        return Stamp()
    frac = groups.get("frac") or ""
    dated = True
    if date := groups.get("date"):
        day = date
    elif month := groups.get("month"):
        # The year is not told; two logs of one migration have the same.
        number = _MONTHS.index(month) + 1
        day = f"1972-{number:02}-{int(groups['day'] or 1):02}"
    else:
        day, dated = "1970-01-01", False
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)
        zone = groups.get("zone")
        if zone and zone[0] in "+-":
            hours, minutes = int(zone[:3]), int(zone[0] + zone[-2:])
            moment -= timedelta(hours=hours, minutes=minutes)
    except (ValueError, OverflowError):
        return Stamp()
    time_ns = int(moment.timestamp()) * 10**9 + int(frac.ljust(9, "0"))
    return Stamp(time_ns, dated, 10 ** (9 - len(frac)) > _COARSE_NS)


def _json(text: str) -> Stripped | None:
    """Take the message out of a JSON object."""
    begin = text.find("{")
    if begin < 0 or text[:begin] not in ("", "data: ", "data:"):
        return None
    try:
        found = msgspec.json.decode(text[begin:])
    except NOT_JSON:
        return None
    return _of_json(found, _MOST_NESTED)


def _of_json(found: Any, depth: int) -> Stripped | None:
    if not isinstance(found, dict) or not depth:
        return None
    for key in _MESSAGE_KEYS:
        value = found.get(key)
        if isinstance(value, str):
            pid = found.get("_PID", found.get("SYSLOG_PID"))
            return Stripped(
                value.rstrip("\r\n"),
                _json_time,
                found,
                int(pid) if isinstance(pid, str) and _is_pid(pid) else None,
            )
        inner = _of_json(value, depth - 1)
        if inner is not None:
            return inner
    return None


def _is_pid(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


_ISO_REGEX = re.compile(_ISO)


def _json_time(found: Mapping[Any, Any]) -> Stamp:
    stamp = found.get(_JOURNAL_TIME)
    if isinstance(stamp, str) and re.fullmatch(r"\d{1,17}", stamp):
        return Stamp(int(stamp) * 1000)
    for key in _TIME_KEYS:
        value = found.get(key)
        match = _ISO_REGEX.match(value) if isinstance(value, str) else None
        if match:
            return _time_of(match.groupdict())
    return Stamp()


_LTTNG = re.compile(
    rf"\[(?:{_DATE} )?(?P<clock>\d\d:\d\d:\d\d)\.(?P<frac>\d{{9}})\] "
    r"\(\+[?\d.]{1,32}\) (?:[\w.-]{1,255} )?qemu:(?P<event>\w{1,64}): "
    r"(?P<rest>\{.*)"
)
_LTTNG_FIELD = re.compile(
    r"(\w{1,64}) = (\"(?:[^\"\\]|\\.){0,512}\"|-?\d{1,20}"
    r"|0x[0-9A-Fa-f]{1,16})"
)
_VTID = re.compile(r"\b(?:vpid|vtid|pthread_id) = (\d{1,10})\b")
_UNESCAPE = re.compile(r"\\(.)")


def _lttng(text: str) -> Stripped | None:
    """Read what babeltrace prints for an event of LTTng."""
    match = _LTTNG.match(text)
    if match is None:
        return None
    groups = match.groupdict()
    event, rest = groups["event"], groups["rest"]
    # The event's own arguments are in the last braces.
    contexts, _, payload = rest.rpartition("{ ")
    values = [
        _UNESCAPE.sub(r"\1", value[1:-1]) if value[0] == '"' else value
        for _, value in _LTTNG_FIELD.findall(payload)
    ]
    said = _of_values(event, values)
    if said is None:
        return None
    pid = _VTID.search(contexts)
    return Stripped(said, _time_of, groups, int(pid[1]) if pid else None)


_EVENT_HINT = re.compile(r"vfio_|vm_state|migrat|vmstate_|savevm_|yer_ack")
_EVENT = re.compile("|".join(sorted({fmt.event for fmt in FORMATS})))


def _of_values(event: str, values: list[str]) -> str | None:
    """Return the line of an event's arguments in their order.

    :return: None if the event is not known, or has other arguments.
    """
    formats = [x for x in FORMATS if x.event == event]
    lead = " " if event.startswith("vfio_") else ""
    if len(values) == 1 and (
        values[0].startswith("(") or " " in values[0]
    ):
        return f"{event} {lead}{values[0]}"
    for fmt in reversed(formats):
        wanted = arguments(fmt.template)
        if len(wanted) != len(values):
            continue
        try:
            return fmt.text(
                {
                    name: int(value, 0) if conversion else value
                    for (name, conversion), value in zip(
                        wanted, values, strict=True
                    )
                }
            )
        except ValueError:
            continue
    return None


_ANSI = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]|\x1b[=>()][0-9AB]?|\x07|\r")


def _ansi(text: str) -> Stripped | None:
    if "\x1b" not in text and "\r" not in text:
        return None
    rest = _ANSI.sub("", text)
    return Stripped(rest) if rest != text else None


# Those that can only be what they are come first.
_LAYERS: tuple[_Layer, ...] = (
    _Layer("an object in JSON", _json),
    _Layer("the format of LTTng", _lttng),
    _prefix(
        "the format of SystemTap",
        r"(?P<pid>\d{1,10})@(?P<ns>\d{16,19}) ",
    ),
    _prefix(
        "the format of ftrace",
        r" *[^\n]{1,64}?-(?P<pid>\d{1,10}) +(?:\( *[\d-]+\) +)?"
        r"\[\d{1,5}\] +(?:\S{1,8} +)?(?P<sec>\d{1,12})\.(?P<frac>\d{6,9}): "
        r"(?:b?print: +)?(?:tracing_mark_write|0x[0-9a-f]{1,16}|[\w.]+): ",
    ),
    _prefix("a byte order mark", "\ufeff"),
    _Layer("the codes of a terminal", _ansi),
    _prefix("a monitor's prompt", r"(?:\(qemu\) ?|\(QEMU\) ?|QEMU> ?)+"),
    _prefix("marks of a quotation", r"(?:[>|] ?)+"),
    _prefix(
        "a syslog prefix",
        rf"(?:<\d{{1,3}}>)?{_MONTH} {{1,2}}(?P<day>\d{{1,2}}) {_CLOCK} "
        rf"(?:{_HOST} )?{_TAG}",
    ),
    _prefix(
        "a syslog prefix", rf"(?:<\d{{1,3}}>)?{_ISO} (?:{_HOST} )?{_TAG}"
    ),
    _prefix(
        "a syslog prefix",
        rf"<\d{{1,3}}>1 {_ISO} {_HOST} \S{{1,48}} (?:-|(?P<pid>\d{{1,10}})"
        r"|\S{1,128}) \S{1,32} (?:-|\[[^\]]{0,512}\]) (?:\ufeff)?",
    ),
    _prefix(
        "a journal's prefix",
        rf"[A-Z][a-z][a-z] {_DATE} {_CLOCK} [A-Z]{{2,5}} "
        rf"(?:{_HOST} )?{_TAG}",
    ),
    _prefix(
        "a journal's prefix",
        rf"\[? *(?P<sec>\d{{1,12}})\.(?P<frac>\d{{6}})\]? {_HOST} {_TAG}",
    ),
    _prefix("a journal's prefix", r"MESSAGE="),
    _prefix(
        "a container's prefix", rf"{_ISO} +std(?:out|err) [FP] "
    ),
    _prefix("a container's prefix", r"\[pod/[^\]]{1,300}\] "),
    _prefix("a container's prefix", r"[\w.-]{1,128} +\| ?"),
    _prefix(
        "a prefix with the time",
        rf"{_ISO}:? +(?:\[?(?:DEBUG|INFO|WARN|WARNING|ERROR|info|debug)\]? "
        r"?[|:-]? ?)?",
    ),
    _prefix(
        "a prefix with the time",
        rf"\[(?:{_DATE}[T ])?{_CLOCK} ?{_ZONE}\]:? +",
    ),
    _prefix(
        "a prefix with the time",
        rf"{_MONTH} {{1,2}}(?P<day>\d{{1,2}}) {_CLOCK} +",
    ),
    _prefix(
        "a prefix with the time",
        r"\[? *(?P<sec>\d{1,12})\.(?P<frac>\d{1,9})\]? +",
    ),
    _prefix("a prefix with the time", rf"{_CLOCK} +"),
    _prefix("the number of a line", r" *\d{1,9}(?:[:-]|\t| {1,3})"),
    _prefix(
        "the name of a file", r"[^\s:@]{1,256}[:-](?:\d{1,9}[:-])?(?=\S)"
    ),
    _prefix("the name of a host", r"(?!qemu)[\w.-]{1,253}: +"),
    _prefix("blanks", r"[ \t]+"),
)


@dataclass(slots=True)
class Wrapping:
    """Takes off what is around the lines of one log.

    :param is_event: Returns whether a text is a line of one of the events
        that the reader knows, as QEMU prints it.
    """

    is_event: Callable[[str], bool]
    #: Whether the only times are in whole seconds.
    coarse: bool = False
    #: The ways of wrapping that were found, the last one first.
    chains: list[tuple[_Layer, ...]] = field(default_factory=list)
    _counts: dict[tuple[_Layer, ...], int] = field(default_factory=dict)
    _failures: int = 0
    _rollover_ns: int = 0
    _last_ns: int = 0

    def event(self, text: str) -> Stripped | None:
        """Return an event's line without what is around it.

        :param text: The whole line.
        :return: None if no known event is in the line.
        """
        for chain in self.chains:
            found = _apply(chain, text)
            if found is not None and self._fits(text, found.rest):
                self._counts[chain] += 1
                return found
        limit = _FAILURES_AFTER if self.chains else _FAILURES
        if self._failures >= limit:
            return None
        for chain, found in _search(text):
            if self._fits(text, found.rest):
                self.chains = [chain, *self.chains[: _MOST_CHAINS - 1]]
                self._counts[chain] = self._counts.get(chain, 0) + 1
                return found
        self._failures += 1
        return None

    def _fits(self, text: str, rest: str) -> bool:
        """Return whether the rest of a line is an event, and the line whole.

        If one line of QEMU's ran into another, the first one is no prefix.
        """
        if not self.is_event(rest):
            return False
        before = text.removesuffix(rest)
        return before is text or not (
            _EVENT_HINT.search(before) and _EVENT.search(before)
        )

    def message(self, text: str) -> str:
        """Return any other line without what is around events.

        :param text: The whole line.
        """
        for chain in self.chains:
            found = _apply(chain, text)
            if found is not None:
                return found.rest
        return text

    def stamp(self, found: Stripped) -> Stamp:
        """Return the time of what was around a line.

        :param found: The line.
        """
        stamp = found.when(found.told) if found.when else Stamp()
        if stamp.coarse:
            self.coarse = True
            return Stamp()
        if stamp.time_ns is None or stamp.dated:
            return stamp
        # A time of day that comes after midnight is of the next day.
        day_ns = 86_400 * 10**9
        if stamp.time_ns + day_ns // 2 < self._last_ns:
            self._rollover_ns += day_ns
        self._last_ns = stamp.time_ns
        return stamp._replace(time_ns=stamp.time_ns + self._rollover_ns)

    def described(self, lines: int) -> str:
        """Say what was taken off; empty if nothing was.

        :param lines: How many lines of events the log has.
        """
        counts: Counter[str] = Counter()
        for chain, count in self._counts.items():
            for name in {layer.name: None for layer in chain}:
                counts[name] += count
        return ", ".join(
            name
            if count * 2 > lines
            else f"{name} ({count} line{'s' * (count != 1)})"
            for name, count in counts.items()
        )


def _apply(chain: tuple[_Layer, ...], text: str) -> Stripped | None:
    found = chain[0].take(text)
    if found is None:
        return None
    for layer in chain[1:]:
        taken = layer.take(found.rest)
        if taken is None:
            return None
        found = _joined(found, taken)
    return found


def _joined(outer: Stripped, inner: Stripped) -> Stripped:
    """Prefer the inner time, which is nearer to QEMU."""
    if inner.when is None and outer.when is not None:
        inner = inner._replace(when=outer.when, told=outer.told)
    if inner.pid is None and outer.pid is not None:
        inner = inner._replace(pid=outer.pid)
    return inner


def _search(
    text: str,
) -> Iterator[tuple[tuple[_Layer, ...], Stripped]]:
    """Yield every way to take something off, the shortest ways first."""
    waiting: list[tuple[tuple[_Layer, ...], Stripped]] = [((), Stripped(text))]
    seen = {text}
    tries = 0
    while waiting:
        chain, found = waiting.pop(0)
        for layer in _LAYERS:
            tries += 1
            if tries > _TRIES:
                return
            taken = layer.take(found.rest)
            if taken is None or taken.rest in seen:
                continue
            seen.add(taken.rest)
            step = (*chain, layer), _joined(found, taken)
            yield step
            if len(chain) + 1 < _MOST_LAYERS:
                waiting.append(step)
