"""The way to compiled loops: numba, with a cache on disk that can neither stop a run nor go stale.

Loops stand in the `*_kernel.py` files, which decorate them with `compiled`. Without numba importing such a file fails,
`compiled_module` gives None for it, and the caller takes the plain route: a faster route is never the only one.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code that runs without the interpreter lock.

    It is compiled at its first call and kept in `__pycache__` beside its file, or in the user's cache folder where
    that can't be written (`NUMBA_CACHE_DIR` overrides both). Files are replaced in one step, so workers that compile
    at the same time don't disturb each other. Where nothing can be written, each process compiles for itself.
    """
    import numba  # here, so that everything else of this package can be had without it

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


@cache
def compiled_module(name: str) -> Any:
    """The module `atomsets_core.<name>`, which works with numba alone; None without."""
    try:
        return importlib.import_module(f"atomsets_core.{name}")
    except ImportError:
        return None
