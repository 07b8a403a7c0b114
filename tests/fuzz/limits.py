# SPDX-License-Identifier: GPL-2.0-or-later
"""What one execution may take, and what may come of it."""

from __future__ import annotations

import os
import resource
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from vfio_p2p.errors import HarnessError, UnevenError

MOST_S = 5.0
MOST_BYTES = 500 * 10**6
# Of an execution that waits for something; a loaded machine is slow, too.
_MOST_WAIT_S = 120.0

#: How an outcome begins that must not be.
FAILURE = "failure: "

# The kernel ends the process; no code can catch or delay that.
_BY_SIGNAL = {
    signal.SIGPROF: f"it took more than {MOST_S:.0f} s of CPU time",
    signal.SIGALRM: f"it did not end within {_MOST_WAIT_S:.0f} s",
}


def limit_memory() -> None:
    """Let this process have no more memory than one execution may take.

    What it has already does not count.
    """
    pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def outcome_of(
    run: Callable[[Path], None], path: Path, *, show: bool = False
) -> str:
    """Let a target read an input, within the limits.

    A process that takes too long is ended; see `ended`.

    :param run: The target.
    :param path: The input.
    :param show: Whether the traceback of a failure is printed.
    :return: What came of it; a failure begins with `FAILURE`.
    """
    for number in _BY_SIGNAL:
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, MOST_S)
    signal.setitimer(signal.ITIMER_REAL, _MOST_WAIT_S)
    try:
        run(path)
    except HarnessError as err:
        if isinstance(err, UnevenError):
            what = f"{FAILURE}{_named(err)}"
        elif err.what.strip() and err.hint.strip():
            return type(err).__name__
        else:
            what = f"{FAILURE}no hint: {_named(err)}"
        if show:
            traceback.print_exc()
        return what
    except KeyboardInterrupt:
        raise
    except BaseException as err:
        if show:
            traceback.print_exc()
        return f"{FAILURE}{_named(err)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "answer"


def ended(status: int) -> str:
    """Say why a process ended in the middle of an execution.

    :param status: What `os.waitpid` said.
    :return: A failure.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"{FAILURE}the process ended with {code}"
    number = signal.Signals(-code)
    why = _BY_SIGNAL.get(number, f"the process was ended by {number.name}")
    return f"{FAILURE}{why}"


def _named(err: BaseException) -> str:
    """Name an exception, and the innermost line of ours that it came from."""
    frames = traceback.extract_tb(err.__traceback__)
    ours = [x for x in frames if "vfio_p2p" in x.filename] or frames
    where = ""
    if ours:
        file = ours[-1].filename.rpartition("/vfio_p2p/")[2]
        where = f" at {file}:{ours[-1].lineno}"
    return f"{type(err).__name__}{where}"
