"""How fast structures become MEGNet features, beside what the machine could do at best, all measured in one run.

python benchmarks/featurize.py --out benchmarks/results/featurize.json [--structures FILE.parquet]
python benchmarks/featurize.py --write-docs benchmarks/results/featurize.json

The second form measures nothing and writes docs/speed.md again.

The bound is what the plain order of MEGNet's arithmetic costs when every operation runs at the rate that torch reaches
on this machine with arrays in the cache: 41 thousand multiply-adds, 672 softplus and 100 exp a bond. Rounds of all
measurements follow each other; a time is the best round, a ratio is the median of the ratios within the rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from speed_page import write_page

from atomsets_core import graphs
from atomsets_core.graphs import graph_batches
from atomsets_core.parents.megnet import CUTOFF, MAX_BONDS_COMPILED, MEGNet, read_weights
from atomsets_core.sources.embedded import load_flla
from atomsets_core.structures import Structures, from_arrow

MULTIPLY_ADDS, SOFTPLUS, EXP = 41_000, 672, 100
"""Of a bond, in the plain order of the arithmetic."""

LEVELS = ("V0", "V1", "V2", "V3")


def main() -> None:
    """Measure, or write the page from what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the result goes")
    parser.add_argument("--structures", type=Path, help="Parquet with lattice, Z, frac; a random sample of it is timed")
    parser.add_argument("--whole", action="store_true", help="also featurise all of --structures once, two threads")
    parser.add_argument("--n", type=int, default=800, help="structures in a sample")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write-docs", type=Path, metavar="RESULT", help="only write docs/speed.md from a result")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(Path(options.worker[0]), float(options.worker[1]))
        return
    if not options.write_docs:
        text = json.dumps(measure(options), indent=1) + "\n"
        if not options.out:
            print(text)
            return
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    write_page(json.loads((options.write_docs or options.out).read_text()))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as the JSON that is stored."""
    rng = np.random.default_rng(options.seed)
    samples = {"embedded": pick(load_flla().structures, options.n, rng)}
    everything = None
    if options.structures:
        everything = read_structures(options.structures)
        samples["materials_project"] = pick(everything, options.n, rng)
    result: dict[str, Any] = {
        "command": f"python benchmarks/featurize.py --n {options.n} --rounds {options.rounds}"
        + (" --structures FILE" if options.structures else "")
        + (" --whole" if options.whole else ""),
        "date": time.strftime("%Y-%m-%d"),
        "seed": options.seed,
        "shared_machine": os.getloadavg()[0] > 0.5,
        "rounds": options.rounds,
        "load_before": os.getloadavg()[0],
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "numba", "numpy", "pymatgen")},
        "start": start_times(),
        "samples": {},
    }
    for name, structures in samples.items():
        print(name, file=sys.stderr)
        result["samples"][name] = time_sample(structures, options.rounds)
        result["samples"][name]["workers"] = time_workers(structures, options.rounds)
    result["matgl"] = time_matgl(samples["embedded"])
    if everything is not None and options.whole:
        result["whole"] = time_whole(options.structures)
    return result


def pick(structures: Structures, n: int, rng: np.random.Generator) -> Structures:
    """A random sample."""
    return structures.take(rng.choice(len(structures), min(n, len(structures)), replace=False))


def read_structures(path: Path) -> Structures:
    """The structures of a Parquet file."""
    table = pq.read_table(path)
    name = next((c for c in ("material_id", "mp", "id") if c in table.column_names), "")
    return from_arrow(table, name)[0]


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
    """What torch reaches now, with its present number of threads."""
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

    def pymatgen() -> None:
        for i in range(len(structures)):
            sites = slice(structures.offsets[i], structures.offsets[i + 1])
            graphs.neighbours(structures.lattice[i], structures.frac[sites], CUTOFF)

    fast.featurize(structures)
    by_threads: dict[str, Any] = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        parts: dict[str, Callable[[], Any]] = {
            "network": lambda threads=threads: network(threads),  # type: ignore[misc]
            "featurize_all": lambda: fast.featurize(structures),
            "featurize_V0_to_V3": lambda: fast.featurize(structures, LEVELS),
            "featurize_V1": lambda: fast.featurize(structures, ["V1"]),
            "network_torch": lambda: [plain.forward(graph, every) for graph in batches],
            "featurize_all_torch": lambda: plain.featurize(structures),
            "neighbours": lambda threads=threads: neighbours(threads),  # type: ignore[misc]
            "neighbours_pymatgen": pymatgen,
        }
        table = []
        for _ in range(rounds):
            row = limits()
            row.update({name: best(part) / n_bonds * 1e6 for name, part in parts.items()})
            again = limits()
            row.update({name: (min if name != "product_gflops" else max)(row[name], again[name]) for name in again})
            table.append(row)
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
    return {"structures": len(structures), "bonds": n_bonds, "threads": by_threads}


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


def time_workers(structures: Structures, rounds: int) -> dict[str, Any]:
    """Structures a second of one and of two worker processes with one thread each, and the memory of one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "structures.parquet"
        pq.write_table(structures.to_arrow(), path)
        rates: dict[int, list[float]] = {1: [], 2: []}
        used: dict[int, list[float]] = {1: [], 2: []}
        memory, before = [], []
        for _ in range(min(rounds, 2)):
            for n in (1, 2):
                outs = run_workers(path, n)
                rates[n].append(n * len(structures) / (max(o["stop"] for o in outs) - min(o["start"] for o in outs)))
                used[n] += [o["used"] for o in outs]
                memory += [o["peak_mb"] for o in outs]
                before += [o["before_mb"] for o in outs]
    return {
        "structures_per_second": {str(n): max(rate) for n, rate in rates.items()},
        "two_over_one": statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True)),
        "two_over_one_processor_time": 2 * min(used[1]) / min(used[2]),
        "peak_mb": max(memory),
        "ready_mb": max(before),
    }


def peak_mb() -> float:
    """Most memory this process has held; `getrusage` would begin with the figure of the parent process."""
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def run_workers(path: Path, n: int) -> list[dict[str, float]]:
    """What `worker` printed in each of n processes that started together."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", str(path), str(time.time() + 12.0)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    outputs: list[dict[str, float]] = [json.loads(process.communicate()[0]) for process in processes]
    return outputs


def worker(path: Path, begin: float) -> None:
    """Featurise a file's structures three times from a given moment on; print when and with how much memory."""
    structures = read_structures(path)
    parent = MEGNet(read_weights())
    parent.featurize(structures.take(np.arange(2)))
    before = peak_mb()
    time.sleep(max(0.0, begin - time.time()))
    start, used = time.time(), time.process_time()
    for _ in range(3):
        parent.featurize(structures)
    used = (time.process_time() - used) / 3
    stop = start + (time.time() - start) / 3
    print(json.dumps({"start": start, "stop": stop, "used": used, "peak_mb": peak_mb(), "before_mb": before}))


def time_whole(path: Path) -> dict[str, float]:
    """Seconds from the file to the default features of all its structures."""
    start = time.perf_counter()
    structures = read_structures(path)
    read = time.perf_counter()
    features = MEGNet(read_weights()).featurize(structures, LEVELS)
    done = time.perf_counter()
    return {
        "structures": len(features),
        "sites": int(features.n_atoms.sum()),
        "refused": len(features.refused),
        "read_seconds": read - start,
        "featurize_seconds": done - read,
        "peak_mb": peak_mb(),
    }


def time_matgl(structures: Structures) -> dict[str, Any]:
    """Microseconds a bond of matgl's MEGNet with untrained weights of the same sizes, if it is installed."""
    try:
        from matgl.ext.pymatgen import Structure2Graph, get_element_list
        from matgl.models import MEGNet as Other
    except Exception as error:
        return {"skipped": f"matgl is not installed ({type(error).__name__})"}
    items = structures.take(np.arange(min(100, len(structures)))).to_pymatgen()
    converter = Structure2Graph(get_element_list(items), cutoff=CUTOFF)
    start = time.perf_counter()
    converted = [converter.get_graph(item) for item in items]
    made = time.perf_counter()
    model = Other(cutoff=CUTOFF, is_classification=False)
    bonds = sum(
        int(graph.num_edges if hasattr(graph, "num_edges") else len(graph.edge_index[0])) for graph, *_ in converted
    )
    with torch.inference_mode():
        for item in items:
            model.predict_structure(item)
    done = time.perf_counter()
    return {"graphs_us": (made - start) / bonds * 1e6, "graphs_and_network_us": (done - made) / bonds * 1e6}


if __name__ == "__main__":
    main()
