# SPDX-License-Identifier: GPL-2.0-or-later
"""Hints for a name that does not exist: the nearest names that do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 3
# Up to this many names are printed all when none is near.
_FEW = 12
# The work grows with the length of the wrong name, which anybody may give.
_LONGEST = 100


def suggest(wrong: str, known: Iterable[str], command: str = "") -> str:
    """Return the hint that belongs to an error about an unknown name.

    :param wrong: The name that the user gave.
    :param known: The names that exist, in the order in which to print them.
    :param command: The command that prints them, e.g. ``vfio-p2p scenario
        list``; empty if there is none.
    :return: Whole sentences, on one line.
    """
    names = list(dict.fromkeys(known))
    near = nearest(wrong, names)
    sentences = []
    if near:
        *others, last = map(repr, near)
        texts = [", ".join(others), last] if others else [last]
        sentences.append(f"Did you mean {' or '.join(texts)}?")
    if command:
        sentences.append(f"'{command}' prints all names.")
    elif not names:
        sentences.append("There are none.")
    elif not near or len(names) <= _FEW:
        sentences.append(f"Known names: {', '.join(names)}.")
    return " ".join(sentences)


def nearest(wrong: str, known: Iterable[str]) -> list[str]:
    """Return the few names that are most like a wrong one, best first.

    :param wrong: The name that the user gave.
    :param known: The names that exist.
    """
    text = wrong[:_LONGEST].casefold()
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    near = difflib.get_close_matches(text, folded, _SHOWN)
    # A beginning is often too short to be similar to the whole.
    near += sorted(x for x in folded if text and x.startswith(text))
    return [folded[x] for x in dict.fromkeys(near)][:_SHOWN]
