"""How fast crystals are told apart, beside pymatgen's StructureMatcher in the same run, and whether both agree.

    python benchmarks/same_crystal.py --data structures.parquet --out benchmarks/results/same_crystal.json

Drawn from the file are structures whose formula comes more than once. pymatgen's way is the rule spelled out with its
own tools and spglib: the same reduced formula, a volume within 20 %, the same space group (of mirrored ones the first),
and primitive cells of as many sites that StructureMatcher fits. Each structure is prepared once there, too. CPU seconds
are of this process; compiled loops are loaded before, and how long that takes is stated by itself.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import spglib
from machine import describe
from pymatgen.analysis.structure_matcher import StructureMatcher

from atomsets_core.structures import TOLERANCES, Structures, from_arrow, same_crystal

MIRRORED = {78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180, 213: 212}
"""Second -> first of each pair of space groups that are mirror images of each other."""


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet with lattice, Z and frac")
    parser.add_argument("--n", type=int, default=1000, help="structures")
    parser.add_argument("--most-sites", type=int, default=60, help="of a structure; larger ones aren't drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    structures = drawn(options.data, options.n, options.most_sites, options.seed)
    result = describe(
        f"python benchmarks/same_crystal.py --data {options.data.name} --n {options.n} --seed {options.seed}",
        ("pymatgen", "spglib", "numba"),
        **measure(structures),
    )
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


def drawn(path: Path, n: int, most_sites: int, seed: int) -> Structures:
    """Whole groups of one formula, in random order, until there are n structures."""
    structures, _, _ = from_arrow(pq.read_table(path))
    structures = structures.take(structures.n_atoms <= most_sites)
    groups: dict[str, list[int]] = defaultdict(list)
    for row, formula in enumerate(structures.formulas):
        groups[formula].append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    rng = np.random.default_rng(seed)
    rows = [row for i in rng.permutation(len(repeated)) for row in repeated[i][:20]][:n]
    return structures.take(rows)


def measure(structures: Structures) -> dict[str, Any]:
    """CPU seconds of both, and where they disagree."""
    len(structures.formulas)
    start = time.process_time()
    same_crystal(structures.take(np.arange(min(40, len(structures)))))
    loading = time.process_time() - start
    start = time.process_time()
    ours = same_crystal(structures, seconds=1e9).of
    seconds = time.process_time() - start
    start = time.process_time()
    theirs = by_pymatgen(structures)
    their_seconds = time.process_time() - start
    names = structures.material_id
    return {
        "n_structures": len(structures),
        "median_sites": float(np.median(structures.n_atoms)),
        "cpu_seconds": round(seconds, 2),
        "cpu_seconds_first_forty_with_loading": round(loading, 2),
        "cpu_seconds_pymatgen": round(their_seconds, 2),
        "ratio": round(their_seconds / seconds, 1),
        "same": int((ours != np.arange(len(ours))).sum()),
        "same_by_pymatgen": int((theirs != np.arange(len(theirs))).sum()),
        "disagree": [
            {
                "formula": structures.formulas[row],
                "id": names[row],
                "ours": names[ours[row]],
                "pymatgen": names[theirs[row]],
            }
            for row in np.flatnonzero(ours != theirs)
        ],
    }


def by_pymatgen(structures: Structures) -> np.ndarray:
    """(n,) int64, the first row that is the same crystal."""
    of = np.arange(len(structures))
    groups: dict[str, list[int]] = defaultdict(list)
    for row, formula in enumerate(structures.formulas):
        groups[formula].append(row)
    matcher = StructureMatcher(primitive_cell=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rows in groups.values():
            known: list[tuple[int, int, float, Any]] = []
            for row in rows:
                number, volume, primitive = prepared(structures, row)
                for other, other_number, other_volume, other_primitive in known:
                    ratio = max(volume, other_volume) / min(volume, other_volume)
                    if number != other_number or ratio > TOLERANCES.volume_ratio:
                        continue
                    if len(primitive) == len(other_primitive) and matcher.fit(primitive, other_primitive):
                        of[row] = other
                        break
                else:
                    known.append((row, number, volume, primitive))
    return of


def prepared(structures: Structures, row: int) -> tuple[int, float, Any]:
    """Number of the space group, volume of a site (cubic Angstrom), and primitive cell."""
    one = structures.take([row])
    crystal = one.to_pymatgen()[0]
    try:
        cell: Any = (one.lattice[0], one.frac, one.numbers)
        found = spglib.get_symmetry_dataset(cell, symprec=TOLERANCES.symprec)
    except spglib.SpglibError:
        found = None
    number = 0 if found is None else int(found.number)
    return MIRRORED.get(number, number), crystal.volume / len(crystal), crystal.get_primitive_structure()


if __name__ == "__main__":
    main()
