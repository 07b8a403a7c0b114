# SPDX-License-Identifier: GPL-2.0-or-later
"""The preflight: whether hosts have what a migration of their VFs needs.

It is a pure function of inventories. Each line says what is, what is wanted,
and the command that mends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from vfio_p2p.devices.vf.check_card import card_lines
from vfio_p2p.devices.vf.check_function import vf_lines
from vfio_p2p.devices.vf.check_host import host_lines
from vfio_p2p.devices.vf.inventory import Inventory
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.devices.vf.wanted import HostsWanted, Scene, scene
from vfio_p2p.errors import InputError


def check(
    inventories: Sequence[Inventory], wanted: HostsWanted
) -> tuple[CheckLine, ...]:
    """Examine one host, or both hosts of a pair.

    :param inventories: What each host has.
    :param wanted: What is wanted of them.
    :raise SkipError: When a host has nothing to test on.
    :raise UsageError: When there is no such driver.
    """
    scenes = [
        scene(inventory, each, wanted.ram_mib)
        for inventory, each in zip(inventories, wanted.hosts, strict=True)
    ]
    return tuple(
        replace(line, mend="") if line.ok else line
        for line in _lines(scenes)
    )


def exit_code(lines: Sequence[CheckLine]) -> int:
    """Return 0, or 2 when something is wrong.

    What is not known is not wrong.

    :param lines: What was found.
    """
    wrong = any(line.ok is False for line in lines)
    return InputError.exit_code if wrong else 0


def _lines(scenes: Sequence[Scene]) -> Iterator[CheckLine]:
    for each in scenes:
        yield from host_lines(each)
        for card in each.cards:
            yield from card_lines(each, card)
            for vf in card.vfs:
                yield from vf_lines(each, card, vf)
    if len(scenes) == 2:
        yield from _pair_lines(scenes[0], scenes[1])


def _pair_lines(source: Scene, destination: Scene) -> Iterator[CheckLine]:
    """Compare what a device's state may depend on."""
    names = f"{source.wanted.name} and {destination.wanted.name}"
    kinds: tuple[tuple[Literal["psid", "firmware"], str, str], ...] = (
        ("psid", "PSID", "Use two cards of the same kind."),
        (
            "firmware",
            "firmware",
            "Burn the same firmware on both cards: 'mstflint -d PF -i FILE "
            "burn', then 'mstfwreset -d PF reset', as root.",
        ),
    )
    for kind, word, mend in kinds:
        if kind not in source.driver.same:
            continue
        one, other = _told(source, kind), _told(destination, kind)
        if not (one or other) and source.driver.devlink_optional:
            continue
        known = bool(one and other)
        yield CheckLine(
            names,
            word,
            one == other if known else None,
            f"{', '.join(one) or 'not known'} and "
            f"{', '.join(other) or 'not known'}",
            "the same on both hosts",
            mend if known else "'devlink dev info pci/PF' tells it, as root.",
        )
    one_caps, other_caps = _caps(source), _caps(destination)
    if one_caps or other_caps:
        yield CheckLine(
            names,
            "capabilities of the ports",
            one_caps == other_caps,
            f"{_spelled(one_caps)} and {_spelled(other_caps)}",
            "the same on both hosts",
            "Set them with 'devlink port function set PORT NAME VALUE' while "
            "no driver has the VF.",
        )


def _told(each: Scene, kind: Literal["psid", "firmware"]) -> list[str]:
    values = {
        (card.pf.psid if kind == "psid" else card.pf.fw_version)
        for card in each.cards
        if card.pf
    }
    # If one of several is not known, all of them are not.
    return [] if "" in values else sorted(values)


def _caps(each: Scene) -> set[tuple[str, str]]:
    return {
        item
        for card in each.cards
        for vf in card.vfs
        if vf.port
        for item in vf.port.caps.items()
    }


def _spelled(caps: set[tuple[str, str]]) -> str:
    return ", ".join(f"{x} {y}" for x, y in sorted(caps)) or "none"
