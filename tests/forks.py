"""Processes that are forks of one which has imported everything, where a test isn't about how they start.

A process of its own takes five seconds of a processor to import what a campaign needs.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext

PRELOADED = "tests.preloaded"


def fork_server() -> ForkServerContext:
    """The one fork server of this process, which starts with the first process that it is asked for.

    Its processes have the environment of that moment, whatever is set later.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def check_preloaded() -> None:
    """In such a process: a fork server passes over what it can't import, and all would be imported anew each time.

    Raises:
        ImportError: it could not.
    """
    if PRELOADED not in sys.modules:
        raise ImportError(f"the fork server could not import {PRELOADED}")


@contextmanager
def forked_workers() -> Iterator[None]:
    """Dask workers of this process are such forks."""
    import dask
    from distributed import utils

    server = fork_server()
    first = server.Process(target=check_preloaded)
    first.start()
    first.join()
    assert first.exitcode == 0, f"see why: python -c 'import {PRELOADED}'"
    utils._forkserver_preload_set = True  # Dask would have it preload Dask alone
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield
