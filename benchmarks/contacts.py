"""How near atoms come in known crystals, in parts of the sum of their covalent radii, and which crystals are refused.

python benchmarks/contacts.py STRUCTURES.parquet ... --out benchmarks/results/contacts.json

Each file has columns lattice, Z and frac, and one of identifiers. Found are the shortest contacts, how many structures
have a shorter one than some fractions, every structure that `without_overlaps` refuses, and how long that takes, in
seconds of the processor beside those of reading the file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, keep

from atomsets_core.sources import read_blocks
from atomsets_core.structures import Refusal, graph_batches, radii, without_overlaps

FRACTIONS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)

CUTOFF = 3.4
"""Angstrom: 0.65 of the longest sum of radii, caesium's with itself."""


def main() -> None:
    """Look at every file, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--id-column", default="material_id")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = f"python benchmarks/contacts.py {' '.join(file.name for file in options.files)}"
    result = describe(command, ("pymatgen", "numpy", "pyarrow"))
    result["files"] = {file.name: look_at(file, options.id_column) for file in options.files}
    print(json.dumps(result, indent=1))
    if options.out:
        keep(options.out, result)


def look_at(file: Path, id_column: str) -> dict[str, Any]:
    """What is found in one file."""
    shortest: list[np.ndarray] = []
    refused: list[Refusal] = []
    seconds = {"read": 0.0, "check": 0.0}
    started = time.process_time()
    n_seen, blocks = read_blocks(str(file), id_column)
    for number, block in enumerate(blocks):
        structures = block.structures
        if not number:
            without_overlaps(structures)  # compiles its loops
            started = time.process_time()
        seconds["read"] += time.process_time() - started
        started = time.process_time()
        refused += without_overlaps(structures)[1]
        seconds["check"] += time.process_time() - started
        isolated: list[Refusal] = []
        for _, graphs in graph_batches(structures, CUTOFF, 1_000_000, isolated):
            radius = radii(graphs.numbers)
            part = graphs.distance / (radius[graphs.centre] + radius[graphs.neighbour])
            starts = np.concatenate([[0], np.cumsum(graphs.n_bonds)[:-1]])
            shortest.append(np.minimum.reduceat(part, starts))
        started = time.process_time()
    every = np.concatenate(shortest)
    return {
        "structures": n_seen,
        "shortest_contact": round(float(every.min()), 3),
        "below": {f"{fraction:.2f}": int((every < fraction).sum()) for fraction in FRACTIONS},
        "refused": {refusal.material_id: refusal.reason for refusal in refused},
        "processor_seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


if __name__ == "__main__":
    main()
