# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on a run: its migrations, its ending and its assessment."""

from vfio_p2p.verdict.assess import Assessment, assess
from vfio_p2p.verdict.reading import RunReading, read_run

__all__ = ["Assessment", "RunReading", "assess", "read_run"]
