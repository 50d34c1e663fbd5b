"""Structures per second of every parent, against the call its own package offers.

    python benchmarks/parents.py --out benchmarks/results/parents.json --write-docs

Structures of the embedded flla set, one thread, ours and theirs in turn in the same run, best of some repeats. Ours is
one call for all structures, theirs one call a structure, as their documentation shows it:

- megnet: matgl's `MEGNet.predict_structure`, its network with random weights and the sizes and cutoff of ours (matgl
  carries no weights of this model; the time doesn't depend on them);
- chgnet: `CHGNet.predict_structure(structure, task="e", return_atom_feas=True)`;
- sevennet, sevennet-l3i5: the energy from `SevenNetCalculator`, which always computes forces and stress too.

A package that is missing is skipped. --write-docs puts the table into docs/parents.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Structure

from atomsets_core.parents import Parent, load_parent
from atomsets_core.sources import load_flla
from atomsets_core.structures import Structures

DOCS = Path(__file__).resolve().parent.parent / "docs" / "parents.md"
PACKAGES = {"megnet": "matgl", "chgnet": "chgnet", "sevennet": "sevenn", "sevennet-l3i5": "sevenn"}


def main() -> None:
    """Measure, store, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parents", nargs="+", default=list(PACKAGES), choices=list(PACKAGES))
    parser.add_argument("--ours", type=int, default=200, help="structures for our call")
    parser.add_argument("--theirs", type=int, default=40, help="of these, structures for their calls")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name in options.parents:
        rows += measure(name, options.ours, options.theirs, options.repeats, options.seed)
        print(f"{name} done", file=sys.stderr)
    result = {
        "command": "python benchmarks/parents.py",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": 1},
        "versions": versions(),
        "seed": options.seed,
        "repeats": options.repeats,
        "rows": rows,
    }
    print(table(rows))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.write_docs:
        write_docs(result)


def measure(name: str, n_ours: int, n_theirs: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    """One row for each request: the default levels, and the energy, which takes the whole network."""
    try:
        parent = load_parent(name)
    except FileNotFoundError as missing:
        return [{"parent": name, "skipped": str(missing)}]
    structures = sample(parent, n_ours, seed)
    few = structures.take(np.arange(n_theirs))
    peer = PEERS[name]() if importlib.util.find_spec(PACKAGES[name]) else None
    items = few.to_pymatgen()
    requests = {"+".join(parent.default_levels): parent.default_levels, "energy": ("energy",)}
    seconds: dict[str, list[float]] = {key: [] for key in ("theirs", *requests, *(f"{key} few" for key in requests))}
    if peer is not None:
        peer(items[0])
    for _ in range(repeats):
        if peer is not None:
            seconds["theirs"].append(timed(lambda: [peer(item) for item in items]) / n_theirs)
        for key, levels in requests.items():
            seconds[f"{key} few"].append(timed(lambda levels=levels: parent.featurize(few, levels)) / n_theirs)
            seconds[key].append(timed(lambda levels=levels: parent.featurize(structures, levels)) / n_ours)
    best = {key: min(values) for key, values in seconds.items() if values}
    return [
        {
            "parent": name,
            "levels": key,
            "structures": n_ours,
            "structures_per_second": 1 / best[key],
            "peer": f"{PACKAGES[name]} {version(PACKAGES[name])}" if peer is not None else None,
            "same_structures": n_theirs,
            "structures_per_second_same": 1 / best[f"{key} few"],
            "peer_structures_per_second_same": 1 / best["theirs"] if peer is not None else None,
            "times_faster": best["theirs"] / best[f"{key} few"] if peer is not None else None,
        }
        for key in requests
    ]


def sample(parent: Parent, n: int, seed: int) -> Structures:
    """Random structures that the parent takes, n of them."""
    structures = load_flla().structures
    order = np.random.default_rng(seed).permutation(len(structures))[: n + 50]
    chosen = structures.take(order)
    refused = {refusal.structure_hash for refusal in parent.featurize(chosen, parent.default_levels).refused}
    return chosen.take([i for i in range(len(chosen)) if chosen.hashes[i] not in refused][:n])


def timed(work: Callable[[], object]) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def matgl_peer() -> Callable[[Structure], object]:
    """The MEGNet of matgl, of the same sizes."""
    from matgl.ext.pymatgen import Structure2Graph
    from matgl.models import MEGNet

    torch.manual_seed(0)
    network = MEGNet(cutoff=5.0).eval()
    converter = Structure2Graph(element_types=network.element_types, cutoff=5.0)
    state = torch.zeros(1, 2)
    return lambda structure: network.predict_structure(structure, state_attr=state, graph_converter=converter)


def chgnet_peer() -> Callable[[Structure], object]:
    """The network of chgnet."""
    from chgnet.model.model import CHGNet

    network = CHGNet.load(use_device="cpu", verbose=False)
    return lambda structure: network.predict_structure(structure, task="e", return_atom_feas=True)


def sevenn_peer(network: str) -> Callable[[Structure], object]:
    """The ASE calculator of sevenn."""
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(network, device="cpu")

    def energy(structure: Structure) -> float:
        atoms = structure.to_ase_atoms()
        atoms.calc = calculator
        return atoms.get_potential_energy()

    return energy


PEERS: dict[str, Callable[[], Callable[[Structure], object]]] = {
    "megnet": matgl_peer,
    "chgnet": chgnet_peer,
    "sevennet": partial(sevenn_peer, "7net-0"),
    "sevennet-l3i5": partial(sevenn_peer, "7net-l3i5"),
}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| parent | levels | structures/s, ours | on the same structures: ours | theirs | times faster |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "skipped" in row:
            lines.append(f"| {row['parent']} | {row['skipped']} | | | | |")
            continue
        theirs = (
            f"{row['peer_structures_per_second_same']:.1f} ({row['peer']}) | {row['times_faster']:.0f}"
            if row["peer"]
            else f"{PACKAGES[row['parent']]} is not installed | "
        )
        lines.append(
            f"| {row['parent']} | {row['levels']} | {row['structures_per_second']:.0f} "
            f"| {row['structures_per_second_same']:.0f} | {theirs} |"
        )
    return "\n".join(lines)


def write_docs(result: dict[str, Any]) -> None:
    """Put the table between the marks in docs/parents.md."""
    machine, rows = result["machine"], result["rows"]
    counts = next(row for row in rows if "skipped" not in row)
    text = (
        f"One thread of {machine['processor']}; {counts['structures']} structures of the embedded flla set, "
        f"{counts['same_structures']} of them for the comparison:\n\n{table(rows)}\n"
    )
    page, n = re.subn(
        r"(?s)(<!-- speed -->\n).*?(<!-- end of speed -->)",
        lambda match: f"{match[1]}{text}{match[2]}",
        DOCS.read_text(),
    )
    if n != 1:
        sys.exit(f"{DOCS} has no place for the table: <!-- speed --> ... <!-- end of speed -->")
    DOCS.write_text(page)


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of what the times depend on."""
    packages = ["torch", "numpy", "pymatgen", "maml", *PACKAGES.values()]
    return {"python": platform.python_version(), **{p: version(p) for p in packages if importlib.util.find_spec(p)}}


if __name__ == "__main__":
    main()
