# SPDX-License-Identifier: GPL-2.0-or-later
"""The same work on many inputs, on all processors."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from vfio_p2p.errors import HostError

Input = TypeVar("Input")
Output = TypeVar("Output")

# Fewer inputs are done by the time that other processes have started.
_MANY = 64
_CHUNK = 16

# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def each(
    function: Callable[[Input], Output], inputs: Sequence[Input]
) -> Iterator[Output]:
    """Call a function with each input; yield its results in their order.

    :param function: It must have no side effects, and its outputs must be
        such as can be pickled.
    :param inputs: The inputs.
    :raise HostError: When a process was killed.
    """
    processors = len(os.sched_getaffinity(0))
    if len(inputs) < _MANY or processors < 2:
        yield from map(function, inputs)
        return
    # A new interpreter would take longer to start than this work takes, and
    # would run the program of somebody who uses our Python API once more.
    pool = ProcessPoolExecutor(
        processors, get_context("fork"), _begin, (os.getpid(),)
    )
    try:
        with warnings.catch_warnings():
            # Threads of ours hold no lock that a child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = pool.map(
                partial(_output, function), inputs, chunksize=_CHUNK
            )
        for known, output in zip(inputs, found, strict=True):
            # What a child could not do fails here again, as it would have.
            yield output[0] if output else function(known)
    except BrokenProcessPool as err:
        raise HostError(
            "a process that read a part of the input was killed",
            "If the kernel's log says that memory ran out, give less input.",
        ) from err
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """Prepare a child, which ends with its parent and on Ctrl-C."""
    # Reading 1,000 bundles leaves 2 MB in cycles, and collecting them takes a
    # tenth of the time.
    gc.disable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _output(
    function: Callable[[Input], Output], known: Input
) -> tuple[Output] | None:
    try:
        return (function(known),)
    except Exception:
        return None
