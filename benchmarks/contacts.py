"""How near atoms come in known crystals, in parts of the sum of their covalent radii, and which crystals are refused.

python benchmarks/contacts.py /path/to/structures.parquet ...

Each file has columns lattice, Z and frac, and one of identifiers. Printed are the shortest contacts, how many
structures have a shorter one than some fractions, and every structure that `without_overlaps` refuses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from atomsets_core.sources import read_blocks
from atomsets_core.structures import Refusal, graph_batches, radii, without_overlaps

FRACTIONS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)

CUTOFF = 3.4
"""Angstrom: 0.65 of the longest sum of radii, caesium's with itself."""


def main() -> None:
    """Look at every file and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--id-column", default="material_id")
    options = parser.parse_args()
    for file in options.files:
        shortest, refused, n = look_at(file, options.id_column)
        print(f"{file.name}: {n:,} structures; the shortest contact is {shortest.min():.3f} of the radii")
        for fraction in FRACTIONS:
            print(f"  below {fraction:.2f}: {int((shortest < fraction).sum())}")
        print(f"  refused: {len(refused)}")
        for refusal in refused:
            print(f"    {refusal.material_id}: {refusal.reason}")


def look_at(file: Path, id_column: str) -> tuple[np.ndarray, list[Refusal], int]:
    """Shortest contact of each structure in parts of the radii, those that are refused, and how many there are."""
    shortest: list[np.ndarray] = []
    refused: list[Refusal] = []
    n_seen, blocks = read_blocks(str(file), id_column)
    for block in blocks:
        structures = block.structures
        refused += without_overlaps(structures)[1]
        isolated: list[Refusal] = []
        for _, graphs in graph_batches(structures, CUTOFF, 1_000_000, isolated):
            radius = radii(graphs.numbers)
            part = graphs.distance / (radius[graphs.centre] + radius[graphs.neighbour])
            starts = np.concatenate([[0], np.cumsum(graphs.n_bonds)[:-1]])
            shortest.append(np.minimum.reduceat(part, starts))
    return np.concatenate(shortest), refused, n_seen


if __name__ == "__main__":
    main()
