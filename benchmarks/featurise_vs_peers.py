"""How fast structures become MEGNet features, beside the machine's limits and beside other packages, in one run.

python benchmarks/featurise_vs_peers.py --structures FILE.parquet --peer-python ENVIRONMENT/bin/python

--structures: Parquet with lattice, Z, frac, of which a random sample is timed beside embedded ones. --peer-python: an
interpreter with matgl and matminer, which need other versions of some packages; without it they are left out and the
result says so. Results go to benchmarks/results/featurise_vs_peers.json part by part, and into docs/speed.md.

The bound is what the plain order of MEGNet's arithmetic costs when every operation runs at the rate that torch reaches
on this machine with arrays in the cache: 41 thousand multiply-adds, 672 softplus and 100 exp a bond. Rounds of all
measurements follow each other; a time is the best round, a ratio is the median of the ratios within the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, best, describe, keep, limits, pick, read_structures
from speed_page import write_page

from atomsets_core.parents import CUTOFF, MAX_BONDS_COMPILED, MEGNet, read_weights
from atomsets_core.sources import load_elastic, load_flla
from atomsets_core.structures import Structures, count_unlike_bonds, graph_batches
from atomsets_core.structures import neighbours as listed_neighbours

LEVELS = ("V0", "V1", "V2", "V3")

KERAS_MS, KERAS_ATOMS = 164.0, 4.6
"""The original Keras describer: milliseconds for a structure of so many atoms, measured once."""

OUT = RESULTS / "featurise_vs_peers.json"


def main() -> None:
    """Measure part by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, help="Parquet with lattice, Z, frac; a random sample of it is timed")
    parser.add_argument("--peer-python", help="interpreter with matgl and matminer")
    parser.add_argument("--n", type=int, default=400, help="structures in a sample")
    parser.add_argument("--peer-n", type=int, default=100, help="structures for the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    samples = {"embedded": pick(load_flla().structures, options.n, rng)}
    if options.structures:
        samples["materials_project"] = pick(read_structures(options.structures), options.n, rng)
    result = describe(
        f"python benchmarks/featurise_vs_peers.py --n {options.n} --peer-n {options.peer_n} --rounds {options.rounds}"
        + (" --structures FILE" if options.structures else "")
        + (" --peer-python PYTHON" if options.peer_python else ""),
        ("torch", "numba", "numpy", "pymatgen"),
        seed=options.seed,
        rounds=options.rounds,
        samples={},
    )
    result["start"] = start_times()
    for name, structures in samples.items():
        print(f"{name}: parts", file=sys.stderr, flush=True)
        result["samples"][name] = time_sample(structures, options.rounds)
        result["samples"][name]["alike"] = alike(structures)
        keep(options.out, result)
    result["keras"] = time_small(load_elastic().structures, options.rounds)
    result["peers"] = {}
    for name, structures in samples.items():
        result["peers"][name] = {}
        for row in time_peers(pick(structures, options.peer_n, rng), options.peer_python):
            result["peers"][name][row.pop("name")] = row
            keep(options.out, result)
    tell(result)
    if options.out == OUT:
        write_page()


def time_sample(structures: Structures, rounds: int) -> dict[str, Any]:
    """Microseconds a bond of each part, with one and with two threads."""
    weights = read_weights()
    fast, plain = MEGNet(weights), MEGNet(weights, compiled=False)
    if not fast.compiled:
        sys.exit("the compiled path is missing: install numba")
    batches = [graph for _, graph in graph_batches(structures, CUTOFF, MAX_BONDS_COMPILED // 2, [])]
    n_bonds = sum(len(graph.centre) for graph in batches)
    every = [*fast.site_levels, *fast.structure_levels]

    def network(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda graph: fast.forward(graph, every), batches))

    def neighbours(threads: int) -> None:
        shares = [structures.take(np.arange(i, len(structures), threads)) for i in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda share: list(graph_batches(share, CUTOFF, MAX_BONDS_COMPILED, [])), shares))

    lists, counted = neighbour_libraries(structures)
    fast.featurize(structures)
    by_threads: dict[str, Any] = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        parts: dict[str, Callable[[], Any]] = {
            "network": lambda threads=threads: network(threads),  # type: ignore[misc]
            "featurize_all": lambda: fast.featurize(structures),
            "featurize_V0_to_V3": lambda: fast.featurize(structures, LEVELS),
            "featurize_V1": lambda: fast.featurize(structures, ["V1"]),
            "featurize_V0": lambda: fast.featurize(structures, ["V0"]),
            "network_torch": lambda: [plain.forward(graph, every) for graph in batches],
            "featurize_all_torch": lambda: plain.featurize(structures),
            "neighbours": lambda threads=threads: neighbours(threads),  # type: ignore[misc]
            **(lists if threads == 1 else {}),
        }
        table = []
        for _ in range(rounds):
            row = limits()
            row.update({name: best(part) / n_bonds * 1e6 for name, part in parts.items()})
            again = limits()
            row.update({name: (min if name != "product_gflops" else max)(row[name], again[name]) for name in again})
            table.append(row)
            print(f"  {threads} thread(s): network {row['network']:.3f} us a bond", file=sys.stderr, flush=True)
        by_threads[str(threads)] = {
            "us_per_bond": {name: min(row[name] for row in table) for name in parts},
            "limits": {
                name: (max if name == "product_gflops" else min)(row[name] for row in table) for name in limits()
            },
            "network_over_bound": statistics.median(row["network"] / row["bound_us"] for row in table),
            "torch_over_bound": statistics.median(row["network_torch"] / row["bound_us"] for row in table),
            "neighbours_over_network": statistics.median(row["neighbours"] / row["network"] for row in table),
            "structures_per_second": len(structures) / (min(row["featurize_all"] for row in table) * n_bonds * 1e-6),
        }
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return {"structures": len(structures), "bonds": n_bonds, "bonds_by_library": counted, "threads": by_threads}


def neighbour_libraries(structures: Structures) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Neighbour lists by the libraries that are installed, and how many bonds each finds."""
    cells = [
        (structures.lattice[i], structures.frac[structures.offsets[i] : structures.offsets[i + 1]] % 1.0)
        for i in range(len(structures))
    ]

    def pymatgen(cell: np.ndarray, frac: np.ndarray) -> int:
        return len(listed_neighbours(cell, frac, CUTOFF)[0])

    calls: dict[str, Callable[[np.ndarray, np.ndarray], int]] = {"neighbours_pymatgen": pymatgen}
    try:
        from vesin import NeighborList

        calculator = NeighborList(cutoff=CUTOFF, full_list=True)

        def vesin(cell: np.ndarray, frac: np.ndarray) -> int:
            return len(calculator.compute(points=frac @ cell, box=cell, periodic=True, quantities="ijd")[0])

        calls["neighbours_vesin"] = vesin
    except ImportError:
        print("vesin is not installed: left out", file=sys.stderr)
    try:
        from matscipy.neighbours import neighbour_list

        def matscipy(cell: np.ndarray, frac: np.ndarray) -> int:
            return len(neighbour_list("ijd", cell=cell, pbc=[True] * 3, positions=frac @ cell, cutoff=CUTOFF)[0])

        calls["neighbours_matscipy"] = matscipy
    except ImportError:
        print("matscipy is not installed: left out", file=sys.stderr)

    def all_of(call: Callable[[np.ndarray, np.ndarray], int]) -> int:
        return sum(call(*cell) for cell in cells)

    return (
        {name: lambda call=call: all_of(call) for name, call in calls.items()},  # type: ignore[misc]
        {name: all_of(call) for name, call in calls.items()},
    )


def alike(structures: Structures) -> dict[str, Any]:
    """Share of bonds that is left when what the network can't tell apart is computed once, and what finding it costs.

    With distances as they are, and rounded to 1e-4 Angstrom, beyond which features change by more than they may.
    """
    found: dict[str, Any] = {}
    for name, digits in (("exact", None), ("rounded", 4)):
        bonds = left = 0
        used = 0.0
        for _, graph in graph_batches(structures, CUTOFF, MAX_BONDS_COMPILED, []):
            if digits is not None:
                graph = replace(graph, distance=np.round(graph.distance, digits).astype(np.float32))
            start = time.process_time()
            left += count_unlike_bonds(graph, 3)
            used += time.process_time() - start
            bonds += len(graph.centre)
        found[name] = {"share_left": left / bonds, "us_per_bond": used / bonds * 1e6}
    return found


def start_times() -> dict[str, float]:
    """Seconds to the first features: with an empty cache of compiled code, and with a full one."""
    code = (
        "import time, numpy as np; from atomsets_core.parents import load_parent;"
        "from atomsets_core.sources.embedded import load_elastic; s = load_elastic().structures.take(np.arange(3));"
        "m = load_parent('megnet'); t = time.perf_counter(); m.featurize(s); print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        seconds = [
            float(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)) for _ in range(3)
        ]
    return {"compile_seconds": seconds[0], "load_seconds": min(seconds[1:])}


def time_small(structures: Structures, rounds: int) -> dict[str, float]:
    """Structures as small as the one that the original describer was timed on, to its levels, one thread."""
    chosen = structures.take(np.flatnonzero((structures.n_atoms >= 4) & (structures.n_atoms <= 5)))
    mean = float(chosen.n_atoms.mean())
    parent = MEGNet(read_weights())
    torch.set_num_threads(1)
    parent.featurize(chosen)
    ms = best(lambda: parent.featurize(chosen), rounds) / len(chosen) * 1e3
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return {
        "structures": len(chosen),
        "atoms": mean,
        "ms": ms,
        "keras_ms": KERAS_MS,
        "keras_atoms": KERAS_ATOMS,
        "times_faster": KERAS_MS / ms,
    }


def time_peers(structures: Structures, peer_python: str | None) -> Any:
    """Milliseconds a structure with one thread: ours and each peer's, on the same structures, round about."""
    fast, plain = MEGNet(read_weights()), MEGNet(read_weights(), compiled=False)
    # What a peer refuses would be counted for ours alone.
    usable = {str(name) for name in fast.featurize(structures).material_id}
    structures = structures.take(np.flatnonzero([str(name) in usable for name in structures.material_id]))
    items = [
        {"lattice": cell.tolist(), "numbers": s.numbers.tolist(), "frac": s.frac.tolist()}
        for s, cell in ((structures.take([i]), structures.lattice[i]) for i in range(len(structures)))
    ]
    objects = structures.to_pymatgen()
    torch.set_num_threads(1)

    def plain_torch() -> None:
        plain.featurize(_by_pymatgen(objects))

    def ours() -> float:
        fast.featurize(structures, LEVELS)
        return best(lambda: fast.featurize(structures, LEVELS), 3)

    bonds = fast.featurize(structures, LEVELS).bonds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "structures.json"
        path.write_text(json.dumps(items))
        before = ours()
        yield _row("ours", before, before, len(structures), bonds, what="V0 to V3, compiled")
        seconds = best(plain_torch, 2)
        yield _row(
            "torch", seconds, before, len(structures), bonds, what="pymatgen objects and the plain torch network"
        )
        for name in ("chgnet", "matgl", "matminer"):
            python = sys.executable if name == "chgnet" else peer_python
            print(f"peer {name}", file=sys.stderr, flush=True)
            if python is None:
                yield {"name": name, "skipped": "no --peer-python"}
                continue
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            command = [python, str(Path(__file__).with_name("peers.py")), name, str(path)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                yield {"name": name, "skipped": done.stderr.strip().splitlines()[-1][:200]}
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            reference = min(before, ours())
            yield _row(name, found.pop("seconds"), reference, len(structures), found.pop("bonds", bonds), **found)
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def _by_pymatgen(objects: list[Any]) -> Structures:
    from atomsets_core.structures import as_structures

    return as_structures(objects)


def _row(name: str, seconds: float, ours: float, n: int, bonds: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "structures": n,
        "bonds": bonds,
        "ms_per_structure": seconds / n * 1e3,
        "us_per_bond": seconds / bonds * 1e6,
        "ours_faster": seconds / ours,
        **more,
    }


def tell(result: dict[str, Any]) -> None:
    """Print the ratios."""
    for name, sample in result["samples"].items():
        for threads, row in sample["threads"].items():
            print(
                f"{name}, {threads} thread(s): network {row['us_per_bond']['network']:.3f} us a bond = "
                f"{row['network_over_bound']:.2f} of the bound; neighbour lists "
                f"{row['neighbours_over_network']:.3f} of the network"
            )
    small = result["keras"]
    print(f"{small['atoms']:.1f}-atom structures: {small['ms']:.3f} ms, {small['times_faster']:.0f} times the original")
    for name, peers in result["peers"].items():
        for peer, row in peers.items():
            text = row.get("skipped") or f"{row['ms_per_structure']:.2f} ms a structure, ours {row['ours_faster']:.1f}x"
            print(f"{name}, {peer}: {text}")


if __name__ == "__main__":
    main()
