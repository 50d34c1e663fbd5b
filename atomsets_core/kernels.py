"""The way to the compiled loops, which are a faster route and never the only one."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def compiled_module(name: str) -> Any:
    """The module `atomsets_core.<name>`, which works with numba alone; None without."""
    try:
        return importlib.import_module(f"atomsets_core.{name}")
    except ImportError:
        return None
