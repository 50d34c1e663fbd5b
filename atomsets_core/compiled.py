"""Compiled loops: numba's compiler with a cache on disk that can neither stop a run nor go stale.

Only the `*_kernel.py` modules import this; without numba that import fails and their callers take the plain route.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code that runs without the interpreter lock.

    It is compiled at its first call and kept in `__pycache__` beside its file, or in the user's cache folder where
    that can't be written (`NUMBA_CACHE_DIR` overrides both). Files are replaced in one step, so workers that compile
    at the same time don't disturb each other. Where nothing can be written, each process compiles for itself.
    """
    # Numba looks only at the file a function stands in; the name makes it new when any kernel changes.
    function.__qualname__ += f"_{_digest()}"
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return numba.njit(**options)(function)


@cache
def _digest() -> str:
    """8 hex digits that change with the text of any kernel module."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*_kernel.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
