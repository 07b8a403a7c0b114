# SPDX-License-Identifier: GPL-2.0-or-later
"""Add results to a history endlessly, and print those that were stored."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

from histories import entry
from vfio_p2p.history.database import open_history


def main(path: Path) -> None:
    """Write pairs of results until killed."""
    with open_history(path, write=True) as history:
        for number in count():
            pair = [
                replace(entry(), digest=f"{number}-{half}")
                for half in ("a", "b")
            ]
            history.add(pair)
            print(number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
