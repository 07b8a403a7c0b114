# SPDX-License-Identifier: GPL-2.0-or-later
"""Give virtual functions to a VFIO driver, so that it can be taken back.

Each change is noted in the ledger before it is made; see
`vfio_p2p.agent.ledger`. A preparation that fails puts everything back, and
one that was killed is put back by the next one, or by ``restore``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vfio_p2p.agent.arguments import AgentParser, add_who
from vfio_p2p.agent.eswitch import caps_of
from vfio_p2p.agent.failure import HOST, SKIP, AgentError
from vfio_p2p.agent.functions import (
    driver_of,
    group_node,
    override_of,
    vfs_of,
)
from vfio_p2p.agent.kernel import Kernel, undisturbed
from vfio_p2p.agent.ledger import BEGIN, COMPLETE, Ledger, Note, nothing
from vfio_p2p.agent.locks import locked
from vfio_p2p.agent.operations import (
    Attribute,
    Binding,
    EswitchMode,
    NumVFs,
    Operation,
    Override,
    Ownership,
    OwnNodeOwnership,
    PortCap,
    from_note,
    load,
    owner_of,
)
from vfio_p2p.agent.request import Preparation, parse
from vfio_p2p.agent.restore import require_root, take_back
from vfio_p2p.agent.roots import Roots
from vfio_p2p.agent.situation import Situation, examine, pfs_of

FORMAT = 1

_AUTOPROBE = "sriov_drivers_autoprobe"


def run(arguments: Sequence[str], roots: Roots) -> dict[str, Any]:
    """Prepare the host as a request on stdin says.

    :param arguments: ``--who`` says on whose behalf.
    :param roots: Where the kernel's folders are.
    :raise AgentError: When it cannot be done. The host is as it was then.
    """
    parser = AgentParser("prepare")
    add_who(parser)
    parser.parse_args(list(arguments))
    wanted = parse(sys.stdin.buffer.read())
    require_root()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    return prepare(wanted, Ledger(roots), Kernel(roots))


def prepare(
    wanted: Preparation,
    ledger: Ledger,
    kernel: Kernel,
    at: Callable[[str], None] = nothing,
) -> dict[str, Any]:
    """Prepare the host.

    :param wanted: The request.
    :param ledger: The ledger.
    :param kernel: The kernel.
    :param at: Called with a name before and after each change, so that a
        test can end the process there.
    :raise AgentError: When it cannot be done. The host is as it was then.
    """
    named = pfs_of(wanted, kernel)
    ledger.drop_foreign()
    with locked(kernel.roots, named) as locks:
        kernel.locks = locks
        notes = [x for x in ledger.pending() if x.pf in named]
        _refuse_others(notes, wanted)
        vfs = _finished(notes, set(named), kernel)
        changed = vfs is None
        recovered = 0
        loaded = False
        if vfs is None:
            recovered = take_back(ledger, kernel, set(named))
            # Functions that are named may just have been taken back.
            named = pfs_of(wanted, kernel)
            situations = examine(wanted, named, kernel)
            loaded = load(kernel, wanted.driver)
            with _all_or_nothing(ledger, kernel, set(named)):
                vfs = _Steps(wanted, ledger, kernel, at).take(situations)
        return {
            "format": FORMAT,
            "vfs": [_described(kernel, x) for x in vfs],
            "ledger": str(ledger.path),
            "changed": changed,
            "loaded": [wanted.driver] if loaded else [],
            "recovered": recovered,
        }


def _refuse_others(notes: list[Note], wanted: Preparation) -> None:
    """Refuse what another preparation has that is complete."""
    complete = {x.pf for x in notes if x.op == COMPLETE}
    for note in notes:
        if (
            note.op == BEGIN
            and note.pf in complete
            and note.fields.get("wish") != wanted.wish()
        ):
            who = note.fields.get("who")
            raise AgentError(
                f"{note.pf} is prepared in another way"
                + (f" (by {who})" if who else ""),
                f"'vfio-p2p host restore --pf {note.pf}' puts it back.",
                SKIP,
            )


def _finished(
    notes: list[Note], pfs: set[str], kernel: Kernel
) -> list[str] | None:
    """Return the virtual functions of a preparation that is complete.

    :return: None if it is not, or if somebody has changed what it made.
    """
    complete = [x for x in notes if x.op == COMPLETE]
    if {x.pf for x in complete} != pfs:
        return None
    last = {}
    for note in notes:
        if note.op not in (BEGIN, COMPLETE):
            target = tuple(
                note.fields.get(x) for x in ("vf", "cap", "name")
            )
            operation = from_note(note.pf, note.op, note.fields)
            last[(note.pf, note.op, *target)] = operation
    changed = [x for x in last.values() if x.old != x.new]
    if not all(x.holds(kernel) for x in changed):
        return None
    return [vf for note in complete for vf in note.fields["vfs"]]


@contextmanager
def _all_or_nothing(
    ledger: Ledger, kernel: Kernel, pfs: set[str]
) -> Iterator[None]:
    """Put everything back when the block fails.

    :raise AgentError: When that fails as well.
    """
    try:
        yield
    except BaseException as err:
        with undisturbed():
            try:
                take_back(ledger, kernel, pfs)
            except (AgentError, OSError) as also:
                raise AgentError(
                    f"{err}; and then, while it was put back: {also}",
                    "When the cause is gone, 'vfio-p2p host restore' puts "
                    "back the rest.",
                    getattr(err, "code", HOST),
                ) from err
        raise


class _Steps:
    """Makes the changes of a preparation, one after another."""

    def __init__(
        self,
        wanted: Preparation,
        ledger: Ledger,
        kernel: Kernel,
        at: Callable[[str], None],
    ) -> None:
        self._wanted = wanted
        self._ledger = ledger
        self._kernel = kernel
        self._roots = kernel.roots
        self._at = at

    def take(self, situations: Sequence[Situation]) -> list[str]:
        """Prepare physical functions; return their virtual ones."""
        wanted = self._wanted
        found = {}
        for each in situations:
            self._ledger.append(
                each.pf, BEGIN, wish=wanted.wish(), who=wanted.who
            )
            found[each.pf] = self._take(each)
        for pf, vfs in found.items():
            # udev may set an owner when a driver is bound, so it comes last.
            for vf in vfs:
                self._own(pf, vf)
        for pf, vfs in found.items():
            self._ledger.append(pf, COMPLETE, vfs=vfs)
        return [vf for vfs in found.values() for vf in vfs]

    def _take(self, situation: Situation) -> list[str]:
        pf = situation.pf
        before = {
            vf: driver_of(self._roots, vf) for vf in situation.touched
        }
        for vf in situation.touched:
            if self._must_go(situation, vf):
                self._release(situation, vf)
        self._renumber(situation)
        if situation.eswitch is not None:
            self._change(
                EswitchMode(pf, situation.eswitch, self._wanted.eswitch)
            )
        vfs = list(situation.vfs or vfs_of(self._roots, pf))
        for vf in vfs:
            self._bind(pf, vf)
        for vf, driver in before.items():
            # The others go back to their drivers, in the new mode.
            if vf not in vfs and situation.numvfs is None:
                self._change(Binding(pf, "", driver, vf))
        return vfs

    def _must_go(self, situation: Situation, vf: str) -> bool:
        """Whether a virtual function must leave the driver that it has."""
        return (
            situation.numvfs is not None
            or situation.eswitch is not None
            or driver_of(self._roots, vf) != self._wanted.driver
            or any(
                x.old != x.new for x in self._wanted_caps(situation.pf, vf)
            )
        )

    def _release(self, situation: Situation, vf: str) -> None:
        """Unbind a virtual function, and note what may get lost by it."""
        pf = situation.pf
        for kind in (Ownership, OwnNodeOwnership):
            owner = owner_of(kind.node(self._roots, vf))
            if owner is not None:
                self._keep(kind(pf, owner, owner, vf))
        driver = driver_of(self._roots, vf)
        self._change(Binding(pf, driver, "", vf))
        if situation.numvfs is None and situation.eswitch is None:
            return
        for cap, value in caps_of(self._kernel, pf, vf).items():
            self._keep(PortCap(pf, value, value, vf, cap))
        override = override_of(self._roots, vf)
        self._keep(Override(pf, override, override, vf))

    def _renumber(self, situation: Situation) -> None:
        if situation.numvfs is None:
            return
        pf = situation.pf
        probe = Attribute(pf, "1", "0", _AUTOPROBE)
        # Now: without it, no function would go to a driver without an
        # override.
        if probe.present(self._kernel) == probe.old:
            self._change(probe)
        number = NumVFs(pf, None, None).present(self._kernel)
        self._change(NumVFs(pf, number, "0"))
        self._change(NumVFs(pf, "0", str(situation.numvfs)))

    def _bind(self, pf: str, vf: str) -> None:
        wanted = self._wanted.driver
        if driver_of(self._roots, vf) == wanted:
            return
        for cap in self._wanted_caps(pf, vf):
            self._change(cap)
        override = override_of(self._roots, vf)
        self._change(Override(pf, override, wanted, vf))
        self._change(Binding(pf, "", wanted, vf))

    def _own(self, pf: str, vf: str) -> None:
        node = group_node(self._roots, vf)
        if owner_of(node) is None:
            raise AgentError(
                f"{vf} is bound to {self._wanted.driver}, and there is no "
                f"{node or 'IOMMU group for it'}",
                "The driver must be one of VFIO.",
            )
        if self._wanted.uid is None:
            return
        for kind in (Ownership, OwnNodeOwnership):
            owner = owner_of(kind.node(self._roots, vf))
            if owner is None:
                continue
            new = {
                "uid": self._wanted.uid,
                "gid": self._wanted.gid,
                "mode": owner["mode"] | 0o600,
            }
            self._change(kind(pf, owner, new, vf))

    def _wanted_caps(self, pf: str, vf: str) -> list[PortCap]:
        if not self._wanted.port_caps:
            return []
        there = caps_of(self._kernel, pf, vf)
        return [
            PortCap(pf, there.get(cap), value, vf, cap)
            for cap, value in self._wanted.port_caps
        ]

    def _keep(self, operation: Operation) -> None:
        """Note a value that other changes may lose."""
        with undisturbed():
            self._ledger.append(
                operation.pf, operation.op, **operation.fields()
            )

    def _change(self, operation: Operation) -> None:
        """Note an operation, and do it."""
        if operation.old == operation.new:
            return
        self._at("before")
        with undisturbed():
            self._ledger.append(
                operation.pf, operation.op, **operation.fields()
            )
            operation.do(self._kernel)
        self._at("after")


def _described(kernel: Kernel, vf: str) -> dict[str, Any]:
    node = group_node(kernel.roots, vf)
    return {
        "address": vf,
        "group": int(node.name) if node else None,
        "path": str(node or ""),
    }
