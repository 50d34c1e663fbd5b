"""How much memory this process has held, and giving back what it holds for nothing."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa


def peak_mb() -> float:
    """Most resident memory of this process, MB.

    Linux says it itself; `getrusage`, which others have, begins with the figure of the process that forked this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def release() -> None:
    """Give back to the system what young cycles hold and what the allocators of Arrow and the C library keep."""
    gc.collect(1)
    pa.default_memory_pool().release_unused()
    if (library := _c_library()) is not None:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _c_library() -> Any:
    """The C library where it has glibc's malloc_trim, else None."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.malloc_trim.argtypes, library.malloc_trim.restype = [ctypes.c_size_t], ctypes.c_int
        return library
    return None
