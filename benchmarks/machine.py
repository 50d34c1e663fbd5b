"""What every benchmark of speed says about the machine, and the limits it is measured against."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from atomsets_core.structures import Structures, from_arrow

RESULTS = Path(__file__).resolve().parent / "results"

MULTIPLY_ADDS, SOFTPLUS, EXP = 41_000, 672, 100
"""Of a bond, in the plain order of MEGNet's arithmetic."""

BUSY = 0.5
"""Load before the start above which other work shared the cores."""


def describe(command: str, packages: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """When, where, with what and under what load."""
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "shared_machine": os.getloadavg()[0] > BUSY,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        **more,
    }


def processor() -> str:
    """Name and vector width of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {torch.backends.cpu.get_cpu_capability()}"
    return platform.processor()


def best(function: Callable[[], Any], times: int = 1) -> float:
    """Seconds of the best of several calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def limits() -> dict[str, float]:
    """What torch reaches now, with its present number of threads, and what a bond costs at those rates."""
    x, w, out, z = torch.randn(2048, 64), torch.randn(64, 64), torch.empty(2048, 64), torch.randn(4096, 64)
    product = best(lambda: torch.mm(x, w, out=out), 200) / (2048 * 64 * 64)
    softplus = best(lambda: torch.nn.functional.softplus(z), 30) / z.numel()
    exp = best(lambda: torch.exp(z), 30) / z.numel()
    return {
        "product_gflops": 2e-9 / product,
        "softplus_ns": softplus * 1e9,
        "exp_ns": exp * 1e9,
        "bound_us": (MULTIPLY_ADDS * product + SOFTPLUS * softplus + EXP * exp) * 1e6,
    }


def read_structures(path: Path) -> Structures:
    """The structures of a Parquet file."""
    table = pq.read_table(path)
    return from_arrow(table, id_column(path))[0]


def id_column(path: Path) -> str:
    """Name of the column of identifiers in a Parquet file; "" for none."""
    names = pq.read_schema(path).names
    return next((name for name in ("material_id", "mp", "id") if name in names), "")


def pick(structures: Structures, n: int, rng: np.random.Generator) -> Structures:
    """A random sample."""
    return structures.take(rng.choice(len(structures), min(n, len(structures)), replace=False))


def keep(path: Path, result: Any) -> None:
    """Write a result, replacing what was there in one step: a benchmark that is cut off keeps what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)
