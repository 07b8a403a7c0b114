# SPDX-License-Identifier: GPL-2.0-or-later
"""Put a host back as it was, from the ledger alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from vfio_p2p.agent.arguments import AgentParser, add_who
from vfio_p2p.agent.failure import INPUT, AgentError
from vfio_p2p.agent.functions import checked_address, vfs_of
from vfio_p2p.agent.holders import refuse_used
from vfio_p2p.agent.kernel import Kernel, undisturbed
from vfio_p2p.agent.ledger import BEGIN, COMPLETE, UNDONE, Ledger, Note
from vfio_p2p.agent.locks import locked
from vfio_p2p.agent.operations import EswitchMode, NumVFs, from_note
from vfio_p2p.agent.roots import Roots

FORMAT = 1


def run(arguments: Sequence[str], roots: Roots) -> dict[str, Any]:
    """Restore the host.

    :param arguments: ``--pf ADDRESS`` restores one physical function only;
        ``--who`` says on whose behalf.
    :param roots: Where the kernel's folders are.
    :raise AgentError: When the host cannot be restored.
    """
    parser = AgentParser("restore")
    add_who(parser)
    parser.add_argument("--pf")
    pf = parser.parse_args(list(arguments)).pf
    require_root()
    return restore(
        Ledger(roots), Kernel(roots), pf and checked_address(pf)
    )


def require_root(uid: int | None = None) -> None:
    """Refuse to go on as another user than root.

    :param uid: The user; by default the one of this process.
    :raise AgentError: When it is not root.
    """
    if (os.geteuid() if uid is None else uid) != 0:
        raise AgentError(
            "only root can change the host's devices",
            "Be root on the host, or allow 'sudo' there (sudo = true in "
            "hosts.toml).",
            INPUT,
        )


def restore(
    ledger: Ledger, kernel: Kernel, pf: str | None = None
) -> dict[str, Any]:
    """Undo what the ledger says, and remove it.

    :param ledger: The ledger.
    :param kernel: The kernel.
    :param pf: The only physical function that is restored.
    :return: How much was undone, and whether the ledger was of another
        boot.
    :raise AgentError: When a function is taken or in use, or the kernel does
        not do it. What is undone stays so.
    """
    dropped = ledger.drop_foreign()
    pfs = {x.pf for x in ledger.pending(pf)}
    with locked(kernel.roots, pfs) as locks:
        kernel.locks = locks
        undone = take_back(ledger, kernel, pfs)
    return {"format": FORMAT, "undone": undone, "dropped": dropped}


def take_back(ledger: Ledger, kernel: Kernel, pfs: set[str]) -> int:
    """Undo the changes of physical functions whose locks we hold.

    :return: How many changes the ledger had.
    :raise AgentError: When a function is in use, or the kernel does not do
        it. What is undone stays so.
    """
    notes = [x for x in ledger.pending() if x.pf in pfs]
    operations = {
        x.number: from_note(x.pf, x.op, x.fields)
        for x in notes
        if x.op not in (BEGIN, COMPLETE)
    }
    refuse_used(kernel.roots, sorted(_touched(notes, kernel)))
    for note in reversed(notes):
        with undisturbed():
            if note.number in operations:
                operations[note.number].undo(kernel)
            ledger.append(note.pf, UNDONE, of=note.number)
    ledger.close()
    return len(operations)


def _touched(notes: list[Note], kernel: Kernel) -> set[str]:
    """Return the virtual functions that undoing may change."""
    found = {x.fields["vf"] for x in notes if "vf" in x.fields}
    for note in notes:
        if note.op in (NumVFs.op, EswitchMode.op):
            found |= set(vfs_of(kernel.roots, note.pf))
    return found
