# SPDX-License-Identifier: GPL-2.0-or-later
"""The arguments of every command besides its request."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from vfio_p2p.errors import HarnessError

if TYPE_CHECKING:
    from vfio_p2p.plans.workshop import Workshop
    from vfio_p2p.progress import Reporter


# Each call of `Printer.show` is a system call.
_LINES = 500


class Printer:
    """Standard output, whose reader may go away at any time."""

    def show(self, text: str) -> None:
        """Print a text and a newline, at once.

        A reader that has enough and goes away, such as ``head``, does not
        change the exit code, which is the verdict.

        :raise HarnessError: When the text cannot be written.
        """
        if sys.stdout is None:
            raise HarnessError(
                "standard output is closed",
                "Redirect it to a file or program, or to /dev/null.",
            )
        try:
            print(text, flush=True)
        except BrokenPipeError:
            self._discard()
        except (OSError, UnicodeError) as err:
            self._discard()
            raise HarnessError(
                f"standard output: {getattr(err, 'strerror', None) or err}",
                "Redirect the output to a file or program that accepts it.",
            ) from err

    @staticmethod
    def _discard() -> None:
        # Text that is still buffered would raise the same error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class Context:
    """The output and the workshop of a command.

    :param printer: Standard output.
    :param given: The workshop that builds and runs; None is this machine.
    :param json: Whether one JSON document is printed instead of text.
    """

    printer: Printer
    given: Workshop | None = None
    json: bool = False

    @property
    def workshop(self) -> Workshop:
        """The workshop that builds and runs."""
        if self.given is not None:
            return self.given
        from vfio_p2p.plans.workshop import LOCAL

        return LOCAL

    def show(self, text: str) -> None:
        """Print a text and a newline; see `Printer.show`."""
        self.printer.show(text)

    def show_lines(self, lines: Iterable[str]) -> None:
        """Print many lines, of which no more than a few are kept.

        :param lines: The lines, without newlines at their ends.
        """
        several = iter(lines)
        while some := list(islice(several, _LINES)):
            self.printer.show("\n".join(some))

    def show_json(self, document: object) -> None:
        """Print plain values as one JSON document."""
        self.printer.show(json.dumps(document, indent=2))

    @contextmanager
    def reporter(self) -> Iterator[Reporter]:
        """Show progress on stderr as long as the context lasts."""
        from vfio_p2p.cli.progress import display

        with display() as shown:
            yield shown
