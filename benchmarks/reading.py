"""How long this version takes to read what people have, side by side with another one.

python benchmarks/reading.py --data STRUCTURES.parquet --before OTHER/bin/python --out benchmarks/results/reading.json

OTHER/bin/python is a Python in which the other version is installed. --data is any Parquet with lattice, Z and frac.
Its first structures are written as CIFs, with every site listed, and random formulas as a CSV, into a temporary folder.
Each reading is a process of its own, one version after the other, round after round; stated are the seconds of the
processor, of all threads, of the best round, which other work on the machine disturbs less than those of the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from machine import describe, keep
from pymatgen.core import Element

from atomsets_core.sources import read_blocks
from atomsets_core.structures import Structures

READ = """
import sys, time
from atomsets_core.sources import pull
pull(sys.argv[3], compositions=sys.argv[1] == "formulas")  # compiled loops, imports and the file cache
started, clock = time.process_time(), time.perf_counter()
pulled = pull(sys.argv[2], compositions=sys.argv[1] == "formulas")
print(time.process_time() - started, time.perf_counter() - clock, len(pulled.structures))
"""

PULL = """
import sys, tempfile, time
from atomsets_core.sources import pull_into
from atomsets_core.storage import Store
with tempfile.TemporaryDirectory() as folder:
    pull_into(Store(folder), "structures.parquet", sys.argv[3])
    started, clock = time.process_time(), time.perf_counter()
    pulled = pull_into(Store(folder), "structures.parquet", sys.argv[2])
print(time.process_time() - started, time.perf_counter() - clock, pulled.structures)
"""


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--before", type=Path, required=True, help="Python with the other version")
    parser.add_argument("--what", default="", help="how the other version is called, such as its commit")
    parser.add_argument("--n", type=int, default=10_000, help="CIFs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="folder for the files, which are there the next time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = f"python benchmarks/reading.py --n {options.n} --rounds {options.rounds}"
    about = describe(command, ("pymatgen", "numpy", "pyarrow", "pandas"), other_version=options.what)
    with tempfile.TemporaryDirectory() as folder:
        for found in measure(options, options.scratch or Path(folder)):
            if options.out:
                keep(options.out, {**about, **found})
    print(json.dumps({**about, **found}, indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """Seconds of each kind of reading by both versions, after each round."""
    if not (scratch / "few.csv").exists():
        write_files(options, scratch)
    kinds = {
        "cifs": (READ, scratch / "cifs", scratch / "few"),
        "parquet": (READ, options.data, scratch / "small.parquet"),
        "formulas": (READ, scratch / "formulas.csv", scratch / "few.csv"),
        "pull of parquet": (PULL, options.data, scratch / "small.parquet"),
    }
    pythons = {"before": options.before, "now": Path(sys.executable)}
    seconds: dict[str, dict[str, list[list[float]]]] = {kind: {name: [] for name in pythons} for kind in kinds}
    for _ in range(options.rounds):
        for kind, (code, big, little) in kinds.items():
            for name, python in pythons.items():
                command = [str(python), "-c", code, kind, str(big), str(little)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=scratch)
                seconds[kind][name].append([float(word) for word in done.stdout.split()])
                print(kind, name, seconds[kind][name][-1], file=sys.stderr, flush=True)
        yield {
            "processor_seconds": {
                kind: {name: round(min(row[0] for row in rows), 2) for name, rows in both.items()}
                for kind, both in seconds.items()
            },
            "clock_seconds": {
                kind: {name: round(min(row[1] for row in rows), 2) for name, rows in both.items()}
                for kind, both in seconds.items()
            },
            "rounds": [len(rows) for both in seconds.values() for rows in both.values()][-1],
            "read": {kind: {name: int(rows[0][2]) for name, rows in both.items()} for kind, both in seconds.items()},
        }


def write_files(options: argparse.Namespace, scratch: Path) -> None:
    """What is read: CIFs, tables of formulas, and a little of each to begin with."""
    _, blocks = read_blocks(str(options.data))
    written = 0
    for block in blocks:
        for folder, most in (("cifs", options.n), ("few", 20)):
            (scratch / folder).mkdir(parents=True, exist_ok=True)
            write_cifs(block.structures, scratch / folder, most - written)
        if not written:
            pq.write_table(block.structures.take(range(20)).to_arrow(), scratch / "small.parquet")
        written += len(block.structures)
        if written >= options.n:
            break
    write_formulas(scratch / "formulas.csv", 100_000)
    write_formulas(scratch / "few.csv", 100)


def write_cifs(structures: Structures, folder: Path, most: int) -> None:
    """One CIF for each structure, every site listed."""
    for row, structure in enumerate(structures.take(range(max(0, min(most, len(structures))))).to_pymatgen()):
        name = str(structures.material_id[row]).replace("/", "_")
        structure.to(filename=str(folder / f"{name}.cif"), fmt="cif")


def write_formulas(path: Path, n: int) -> None:
    """A table of n formulas of three elements, with two columns of numbers."""
    rng = random.Random(0)  # noqa: S311
    symbols = [Element.from_Z(z).symbol for z in range(1, 84)]
    rows = [
        f"m-{row},{''.join(f'{symbol}{rng.randint(2, 9)}' for symbol in rng.sample(symbols, 3))},"
        f"{5 * rng.random():.4f},{200 * rng.random():.2f}"
        for row in range(n)
    ]
    path.write_text("\n".join(["id,formula,gap,K", *rows]) + "\n")


if __name__ == "__main__":
    main()
