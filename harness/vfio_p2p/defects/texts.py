# SPDX-License-Identifier: GPL-2.0-or-later
"""The texts on defects: a table, a section of a page, and a mail."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from vfio_p2p.defects.model import Defect, Evidence, load_defects

_WIDTH = 72
_PAGE_WIDTH = 79
_HOW = {
    Evidence.SHOWN: "runs show it",
    Evidence.READ: "read in the source, not run",
    Evidence.ABSENT: "the same runs do not show it",
}


def page(defects: Iterable[Defect]) -> str:
    """Return the page's table and sections, as Markdown.

    :param defects: The defects.
    """
    defects = tuple(defects)
    rows = [
        "| # | What | Severity | Follow-up | Shown by runs |",
        "|---|---|---|---|---|",
        *(
            f"| [{x.number}](#{_anchor(x)}) | {x.short} | {x.severity} | "
            f"{f'`{x.followup}`' if x.followup else 'none'} | "
            f"{', '.join(x.having(Evidence.SHOWN))} |"
            for x in defects
        ),
    ]
    return "\n\n".join(["\n".join(rows), *map(section, defects)])


def _anchor(defect: Defect) -> str:
    """Return the anchor that a heading gets."""
    heading = f"{defect.number}. {defect.title}".lower()
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-")


def section(defect: Defect) -> str:
    """Return what is known of a defect, as Markdown.

    :param defect: The defect.
    """
    parts = [_led(name, text) for name, text in _parts(defect)]
    parts.insert(-1 if defect.repair else len(parts), _releases(defect))
    return "\n\n".join([f"## {defect.number}. {defect.title}", *parts])


def _led(name: str, text: str) -> str:
    """Put a name before a text, whose first paragraph is wrapped again."""
    first, blank, rest = text.strip().partition("\n\n")
    lines = textwrap.wrap(
        f"**{name}.** {' '.join(first.splitlines())}", _PAGE_WIDTH,
        break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines) + blank + rest


def _parts(defect: Defect) -> Iterator[tuple[str, str]]:
    for name, text in (
        ("What happens", defect.what),
        ("Why", defect.why),
        ("Drivers", defect.drivers),
        ("Expected", defect.expected),
        ("Reproduce", defect.reproduce),
        ("Known", defect.known),
        ("Workaround", defect.workaround),
        ("Follow-up", defect.repair),
    ):
        if text:
            yield name, text


def _releases(defect: Defect) -> str:
    found = [
        f"{', '.join(names)}: {how}"
        for evidence, how in _HOW.items()
        if (names := defect.having(evidence))
    ]
    return "\n".join(
        textwrap.wrap(f"**Releases.** {'; '.join(found)}.", _PAGE_WIDTH)
    )


def mail(defect: Defect, patch: bytes = b"") -> str:
    """Write the mail that reports a defect to QEMU's list.

    :param defect: The defect.
    :param patch: The patch that repairs it, if there is one.
    """
    lines = [
        "From: YOUR NAME <YOUR@ADDRESS>",
        "To: qemu-devel@nongnu.org",
        f"Subject: [BUG] {defect.subject}",
        "",
        *_plain(defect.what),
        "",
        *_headed("QEMU versions", _versions(defect)),
        *_headed(
            "How to reproduce",
            [
                *textwrap.wrap(
                    "With vfio-p2p, which needs no hardware: it boots QEMU "
                    "with simulated vfio-pci devices in a VM, and one "
                    "command shows it.",
                    _WIDTH,
                ),
                "",
                f"    {defect.command}",
                "",
                *textwrap.wrap(
                    _others(defect), _WIDTH, break_on_hyphens=False
                ),
            ],
        ),
        *_headed("Analysis", _plain(defect.why)),
    ]
    for name, text in (
        ("Drivers", defect.drivers),
        ("Expected", defect.expected),
        ("Also seen", defect.known),
        ("Workaround", defect.workaround),
        ("Patch" if defect.followup else "Repair", defect.repair),
    ):
        if text:
            lines += _headed(name, _plain(text))
    if patch:
        lines += [
            *textwrap.wrap(
                "The patch, as it was tried on 10.0.13. It is not sent as "
                "one yet, since I would like to know first what you think of "
                "the report.",
                _WIDTH,
            ),
            "",
            *(f"> {x}".rstrip() for x in _diff(patch)),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _headed(name: str, lines: Sequence[str]) -> list[str]:
    return [name, "-" * len(name), *lines, ""]


def _plain(text: str) -> list[str]:
    """Return Markdown as the text of a mail, which has no other findings."""
    found: list[str] = []
    prose: list[str] = []
    for line in [*_in_words(text).strip("\n").splitlines(), ""]:
        # Items of a list and lines of logs and code stay as they are.
        item = not prose and re.match(r"[a-z]\) ", line)
        if line and not line[0].isspace() and not item:
            prose.append(line.replace("`", ""))
            continue
        found += textwrap.wrap(
            " ".join(prose), _WIDTH, break_on_hyphens=False
        )
        prose = []
        code = line[:4].isspace() and line.strip()
        found.append(line if code else line.replace("`", ""))
    return found[:-1]


def _in_words(text: str) -> str:
    """Name other findings by what they are about."""
    known = {str(x.number): x.subject for x in load_defects()}

    def named(mark: re.Match[str]) -> str:
        subject = known[mark[1]].partition(": ")[2]
        return f'my report "{subject}"'

    return re.sub(r"finding (\d+)", named, text)


def _versions(defect: Defect) -> list[str]:
    return [
        f"  {release:<8}  {_HOW[evidence]}"
        for release, evidence in defect.affected.items()
    ]


def _others(defect: Defect) -> str:
    others = [x for x in defect.scenarios if x not in defect.command.split()]
    if not others:
        return "The run leaves QEMU's traces and the devices' own logs."
    return (
        "The run leaves QEMU's traces and the devices' own logs. These "
        f"scenarios show it, too: {', '.join(others)}."
    )


def _diff(patch: bytes) -> list[str]:
    """Return the diff of a patch, without its letter and signature."""
    text = patch.decode(errors="replace")
    start = text.find("\ndiff --git ") + 1
    return re.split(r"^-- $", text[start:], flags=re.M)[0].splitlines()
