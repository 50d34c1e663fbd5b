"""How fast structures are read from Parquet and from a folder of CIFs, beside pymatgen in a plain loop.

python benchmarks/parsing.py --out benchmarks/results/parsing.json
python benchmarks/parsing.py --write-docs benchmarks/results/parsing.json

The second form measures nothing and writes the table of docs/sources.md again.

The files are written here, from a random sample of the embedded structures, into a temporary folder: as pymatgen writes
a CIF (every site listed) and with symmetry operations. Every structure that is read is compared with pymatgen's, by
content. Rounds of all measurements follow each other; a rate is that of the best round, a ratio the median of the
ratios within the rounds. Worker processes are started before; how long that takes is stated by itself.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pymatgen.core import Structure

from atomsets_core.sources import FanOut, Processes, load_flla, read_path
from atomsets_core.structures import Structures, from_pymatgen
from atomsets_tasks import connect, start_local
from atomsets_tasks import fan_out as dask_fan_out

DOCS = Path(__file__).parents[1] / "docs" / "sources.md"
BEGIN, END = "<!-- parsing -->\n", "<!-- end of parsing -->"
KINDS = {"listed": "CIF, every site listed", "symmetry": "CIF with symmetry operations"}


def main() -> None:
    """Measure, or write the table from what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the result goes")
    parser.add_argument("--n", type=int, default=2000, help="structures; a quarter of them for the CIFs with symmetry")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write-docs", type=Path, metavar="RESULT", help="only write the table from a result")
    options = parser.parse_args()
    if not options.write_docs:
        text = json.dumps(measure(options.n, options.rounds, options.seed), indent=1) + "\n"
        if not options.out:
            print(text)
            return
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    write_docs(json.loads((options.write_docs or options.out).read_text()))


def measure(n: int, rounds: int, seed: int) -> dict[str, Any]:
    """Everything, as the JSON that is stored."""
    data = load_flla().structures
    chosen = np.random.default_rng(seed).choice(len(data), n, replace=False)
    result: dict[str, Any] = {
        "command": f"python benchmarks/parsing.py --n {n} --rounds {rounds} --seed {seed}",
        "date": time.strftime("%Y-%m-%d"),
        "seed": seed,
        "rounds": rounds,
        "load_before": os.getloadavg()[0],
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name) for name in ("pymatgen", "numpy", "pyarrow", "distributed")
        },
        "samples": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for kind, size in (("listed", n), ("symmetry", n // 4)):
            place = Path(folder) / kind
            write_files(data.take(chosen[:size]), place, symprec=0.01 if kind == "symmetry" else None)
            print(f"{kind}: {size} files written", file=sys.stderr)
            result["samples"][kind] = time_folder(place, rounds)
    return result


def write_files(structures: Structures, place: Path, symprec: float | None) -> None:
    """One CIF for each structure, and all of them as Parquet beside the folder."""
    place.mkdir()
    for structure, name in zip(structures.to_pymatgen(), structures.material_id, strict=True):
        structure.to(place / f"{name}.cif", **({"symprec": symprec} if symprec else {}))
    pq.write_table(structures.to_arrow(), place.with_suffix(".parquet"), compression="zstd")


def time_folder(place: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each way to read these structures, round after round."""
    files = sorted(place.glob("*.cif"))
    expected = plain_loop(files)
    hashes = list(from_pymatgen(expected)[0].hashes)
    seconds: dict[str, list[float]] = {}
    started: dict[str, float] = {}
    with workers(started) as fan_outs:
        for _ in range(rounds):
            seconds.setdefault("pymatgen", []).append(timed(lambda: plain_loop(files)))
            for name, fan_out in fan_outs.items():
                pulled = None

                def read(fan_out: FanOut | None = fan_out) -> None:
                    nonlocal pulled
                    pulled = read_path(place, fan_out=fan_out)

                seconds.setdefault(name, []).append(timed(read))
                assert pulled is not None
                assert list(pulled.structures.hashes) == hashes, f"{name} reads other structures than pymatgen"
            seconds.setdefault("parquet", []).append(timed(lambda: read_path(place.with_suffix(".parquet"))))
    return {
        "files": len(files),
        "sites": sum(len(structure) for structure in expected),
        "bytes": sum(file.stat().st_size for file in files),
        "start_seconds": started,
        "seconds": seconds,
        "per_second": {name: len(files) / min(times) for name, times in seconds.items()},
        "times_pymatgen": {
            name: statistics.median(a / b for a, b in zip(seconds["pymatgen"], times, strict=True))
            for name, times in seconds.items()
        },
    }


def plain_loop(files: list[Path]) -> list[Structure]:
    """What one writes without this package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [Structure.from_file(file) for file in files]


@contextmanager
def workers(started: dict[str, float]) -> Iterator[dict[str, FanOut | None]]:
    """The ways to read a folder, with their processes running; `started` gets the seconds they took to start."""
    with Processes(1) as one, Processes(2) as two, connect(lambda: start_local(2, "auto")):
        ways: dict[str, FanOut | None] = {
            "here": None,
            "1 process": one,
            "2 processes": two,
            "2 Dask workers": dask_fan_out,
        }
        for name, fan_out in ways.items():
            if fan_out is not None:
                start = time.perf_counter()
                # as many items as there are workers, each long enough that none takes two
                list(fan_out(_sleep, [1.0] * 4, [60.0] * 4))
                started[name] = time.perf_counter() - start
        yield ways


def _sleep(seconds: float) -> None:
    from atomsets_core.sources import pull  # noqa: F401

    time.sleep(seconds)


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor() -> str:
    """Its name."""
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def write_docs(result: dict[str, Any]) -> None:
    """Put the table into docs/sources.md."""
    rows = [
        ("pymatgen", "pymatgen, a plain loop over `Structure.from_file`"),
        ("here", "this package, one process"),
        ("1 process", "one worker process"),
        ("2 processes", "two worker processes"),
        ("2 Dask workers", "two Dask workers"),
        ("parquet", "the same structures from Parquet"),
    ]
    samples = result["samples"]
    lines = [
        "| read by | " + " | ".join(f"{KINDS[kind]} ({samples[kind]['files']:,} files)" for kind in samples) + " |",
        "|---|" + "---|" * len(samples),
    ]
    for name, title in rows:
        cells = [
            f"{samples[kind]['per_second'][name]:,.0f} a second ({samples[kind]['times_pymatgen'][name]:.1f} x)"
            for kind in samples
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    starting = samples["listed"]["start_seconds"]["2 processes"] - 2  # two of the four pauses of a second
    about = (
        f"`{result['command']}`: {result['processor']}, {result['cores']} cores, Python {result['python']}, "
        f"{versions}, {result['date']}; load before: {result['load_before']:.1f}. Best of {result['rounds']} rounds, "
        "in brackets the ratio to pymatgen; each structure is the same as pymatgen's. Two processes take "
        f"{starting:.0f} s more to start."
    )
    text = DOCS.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCS.write_text(text[:before] + "\n".join([*lines, "", about]) + "\n" + text[after:])


if __name__ == "__main__":
    main()
