"""Writes docs/speed.md from the stored results of the benchmarks of speed; those that are missing are named.

python benchmarks/speed_page.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "speed.md"
RESULTS = HERE / "results"

NAMES = {"embedded": "Embedded formation energies", "materials_project": "Materials Project"}

ROWS = {
    "network": "Network, compiled",
    "network_torch": "Network, torch",
    "neighbours": "Neighbour lists, ours",
    "neighbours_vesin": "Neighbour lists, vesin (one thread)",
    "neighbours_matscipy": "Neighbour lists, matscipy (one thread)",
    "neighbours_pymatgen": "Neighbour lists, pymatgen (one thread)",
    "featurize_V0": "Structures to V0",
    "featurize_V1": "Structures to V1",
    "featurize_V0_to_V3": "Structures to V0-V3",
    "featurize_all": "Structures to all levels",
    "featurize_all_torch": "Structures to all levels, torch",
}


def write_page() -> None:
    """docs/speed.md: what was measured, where, and what it is made of."""
    lines = [
        "# Speed of featurisation",
        "",
        "Written by `python benchmarks/speed_page.py` from `benchmarks/results/`; each part names its own command.",
        "",
    ]
    for name, part in PARTS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            lines += [*part(json.loads(path.read_text())), ""]
        else:
            lines += [f"Not measured yet: `python benchmarks/{name}.py`.", ""]
    lines += NOT_ON_A_CARD
    PAGE.write_text("\n".join(lines) + "\n")


def about(row: dict[str, Any]) -> str:
    """When, where and under what load."""
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    shared = " Other work shared the cores." if row["shared_machine"] else ""
    return (
        f"Measured on {row['date']} with `{row['command']}`: {row['processor']}, {row['cores']} cores, "
        f"{row['memory_gb']:.0f} GB, Python {row['python']}, {versions}"
        + (f", seed {row['seed']}" if "seed" in row else "")
        + f", load before the start {row['load_before']:.1f}.{shared}"
    )


def parts(result: dict[str, Any]) -> list[str]:
    """The network, neighbour lists and peers."""
    samples = result["samples"]
    lines = ["## Microseconds a bond, the bound, and peers", "", f"{about(result)} Best of {result['rounds']} rounds."]
    lines += ["", *_table(samples), ""]
    one = samples[next(iter(samples))]["threads"]
    lines += [
        "The bound is the cost of 41 thousand multiply-adds, 672 softplus and 100 exp a bond at the rates that torch "
        "reaches in the same round, with the same number of threads: " + "; ".join(_limits(one)) + ".",
        "",
        "The compiled network stays below it because it does less (the initial bond and the part it gives to the first "
        "layer are read from a table of the distance; the parts of the layers that an atom gives are worked out once "
        "an atom) and because its softplus is two polynomials in vector registers. V0 needs no graph, V1 one block.",
        "",
        *_alike(samples),
        f"First use compiles for {result['start']['compile_seconds']:.0f} s and keeps the code on disk; a later "
        f"process has its first features after {result['start']['load_seconds']:.1f} s.",
    ]
    if "keras" in result:
        row = result["keras"]
        lines += [
            "",
            f"{row['structures']} embedded structures of {row['atoms']:.1f} atoms take {row['ms']:.3f} ms each on one "
            f"thread; the original Keras describer took {row['keras_ms']:.0f} ms for {row['keras_atoms']} atoms: "
            f"{row['times_faster']:.0f} times.",
        ]
    if result.get("peers"):
        lines += ["", *_peers(result["peers"])]
    return lines


def _alike(samples: dict[str, Any]) -> list[str]:
    said = [
        f"{NAMES[name]} {row['alike']['exact']['share_left']:.0%} of the bonds with distances as they are, "
        f"{row['alike']['rounded']['share_left']:.0%} rounded to 1e-4 Angstrom, for "
        f"{row['alike']['rounded']['us_per_bond']:.2f} microseconds a bond to find them"
        for name, row in samples.items()
        if "alike" in row
    ]
    if not said:
        return []
    return [
        "Computing what symmetry makes alike once, as the CHGNet parent does, isn't done here: it would leave "
        + "; ".join(said)
        + ". Finding them takes most of what they save.",
        "",
    ]


def _table(samples: dict[str, Any]) -> list[str]:
    columns = [(name, threads) for name in samples for threads in ("1", "2")]
    heads = [f"{NAMES[name]}, {threads} thread{'s' if threads == '2' else ''}" for name, threads in columns]
    lines = ["| Microseconds a bond | " + " | ".join(heads) + " |", "|---" + "|---:" * len(columns) + "|"]

    def row(label: str, value: Callable[[dict[str, Any]], str]) -> str:
        return f"| {label} | " + " | ".join(value(samples[n]["threads"][t]) for n, t in columns) + " |"

    def time_of(key: str) -> Callable[[dict[str, Any]], str]:
        return lambda found: f"{found['us_per_bond'][key]:.3f}" if key in found["us_per_bond"] else ""

    return [
        *lines,
        *(row(label, time_of(key)) for key, label in ROWS.items()),
        row("Bound", lambda found: f"{found['limits']['bound_us']:.3f}"),
        row("Network, compiled, over the bound", lambda found: f"{found['network_over_bound']:.2f}"),
        row("Network, torch, over the bound", lambda found: f"{found['torch_over_bound']:.2f}"),
        row("Neighbour lists over network", lambda found: f"{found['neighbours_over_network']:.3f}"),
        row("Structures a second, all levels", lambda found: f"{found['structures_per_second']:,.0f}"),
        "| Structures, bonds | "
        + " | ".join(f"{samples[n]['structures']}, {samples[n]['bonds']:,}" for n, _ in columns)
        + " |",
    ]


def _limits(by_threads: dict[str, Any]) -> list[str]:
    return [
        f"with {n} thread{'s' if n == '2' else ''} {row['limits']['product_gflops']:.0f} GFLOP/s in 2048x64x64 "
        f"products, {row['limits']['softplus_ns']:.2f} ns a softplus, {row['limits']['exp_ns']:.2f} ns an exp"
        for n, row in by_threads.items()
    ]


def _peers(peers: dict[str, Any]) -> list[str]:
    lines = [
        "One thread each, the same structures, best of 2 (ours of 3, before and after each peer). Microseconds a bond "
        "are over the peer's own bonds within its own cutoff where it counts them, else over ours.",
        "",
        "| Sample | Featurisation | ms a structure | microseconds a bond | ours is faster |",
        "|---|---|---:|---:|---:|",
    ]
    for sample, found in peers.items():
        for name, row in found.items():
            if "skipped" in row:
                lines.append(f"| {NAMES[sample]} | {name}: not measured ({row['skipped']}) | | | |")
                continue
            what = f"{row['what']}" + (" (ours)" if name == "ours" else "")
            lines.append(
                f"| {NAMES[sample]} | {what} | {row['ms_per_structure']:.2f} | {row['us_per_bond']:.2f} | "
                f"{row['ours_faster']:.1f} |"
            )
    return lines


def scaling(result: dict[str, Any]) -> list[str]:
    """The command on one and two workers."""
    runs = sorted(result["runs"].values(), key=lambda row: (row["seen"], row["workers"]))
    lines = [
        "## `atomsets featurize` on one and two workers",
        "",
        about(runs[-1]) + " Each row is a run of its own; `load` is that before it.",
        "",
        "| Entries | workers | featurised + refused + duplicates | bonds | s, start included | s to start | "
        "structures/s | microseconds a bond and worker | GB on disk | peak MB: command, workers | load |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in runs:
        peaks = ", ".join(str(peak) for peak in row["peak_memory_mb"].values())
        became = f"{row['featurized']:,} + {row['refused']:,} + {row['duplicates']:,}"
        lines.append(
            f"| {row['seen']:,} | {row['workers']} | {became} "
            f"| {row['bonds']:,} | {row['seconds']['total']:.0f} | {row['seconds']['start']:.0f} | "
            f"{row['structures_per_second']:,.0f} | {row['us_per_bond_and_worker']:.2f} | {row['bytes'] / 1e9:.2f} | "
            f"{peaks} | {row['load_before']:.1f} |"
        )
    if result.get("ratios"):
        lines += [
            "",
            "Two workers over one: "
            + "; ".join(
                f"{int(n):,} structures {row['work']:.2f} (with their start {row['total']:.2f})"
                for n, row in result["ratios"].items()
            )
            + ".",
        ]
    return lines


def storage(result: dict[str, Any]) -> list[str]:
    """Shards and the disk."""
    row = result["shards"]
    lines = [
        "## Shards and the disk",
        "",
        about(result),
        "",
        f"A shard of {result['structures']:,} structures ({result['sites']:,} sites, V0 to V3) has "
        f"{row['bytes'] / 1e6:.1f} MB, {row['bytes_per_structure'] / 1e3:.1f} kB a structure, "
        f"{row['bytes'] / result['feature_bytes']:.2f} of its features as they are in memory.",
        "",
        "| | shards, MB/s on the disk | the disk itself, MB/s | ratio | structures/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for what in ("write", "read"):
        lines.append(
            f"| {what} | {row[what]['mb_per_second']:.0f} | {row['disk'][what]:.0f} | {row[what]['over_disk']:.2f} | "
            f"{row[what]['structures_per_second']:,.0f} |"
        )
    lines += [
        "",
        "| Encoding, in memory | size over features | write, MB/s of features | read |",
        "|---|---:|---:|---:|",
    ]
    for name, codec in result["codecs"].items():
        lines.append(f"| {name} | {codec['share']:.3f} | {codec['write']:.0f} | {codec['read']:.0f} |")
    return lines


COMMAND = "command with scheduler"


def memory(result: dict[str, Any]) -> list[str]:
    """Campaigns of two sizes."""
    runs = sorted(result["runs"].values(), key=lambda row: row["counts"]["pulled"])
    lines = [
        "## Memory of a whole campaign",
        "",
        about(runs[-1]),
        "",
        "| Candidates | ranked | s | pull, train, predict, rank (s) | peak MB, of all runs |",
        "|---:|---:|---:|---|---|",
    ]
    for row in runs:
        stages = ", ".join(f"{row['stages'][name]:.0f}" for name in ("pull", "train", "predict", "rank"))
        every = {name: sorted(values) for name, values in row["peaks_mb"].items()}
        peaks = ", ".join(f"{name} {values[0]:,} to {values[-1]:,}" for name, values in every.items())
        counts = row["counts"]
        lines.append(f"| {counts['pulled']:,} | {counts['ranked']:,} | {row['seconds']:.0f} | {stages} | {peaks} |")
    small, large = (max(run["peaks_mb"][COMMAND]) for run in (runs[0], runs[-1]))
    growth = (
        f"{runs[-1]['counts']['pulled'] / runs[0]['counts']['pulled']:.0f} times the candidates change the largest "
    )
    return [
        *lines,
        "",
        f"{growth}peak of the command by {large - small:+,} MB ({large / small - 1:+.1%}). "
        f"{len(runs[-1]['peaks_mb'][COMMAND])} runs of each size, times of the fastest. Features never are in "
        "memory but for one shard a worker, structures but for a block. A line of each candidate, some 90 bytes, is in "
        "the command's process while candidates are selected, looked up and ranked, with some 100 bytes of numbers of "
        "its prediction; at these sizes that hardly passes what explaining the shortlist takes.",
    ]


def precision(result: dict[str, Any]) -> list[str]:
    """bfloat16."""
    levels = "; ".join(
        f"{level} {row['mean_error_over_std']:.1e} ({row['largest_error_over_std']:.1e})"
        for level, row in result["levels"].items()
    )
    lines = [
        "## bfloat16",
        "",
        about(result),
        "",
        "The parent `megnet-bf16` has bfloat16 products and activations on the bonds. Mean (largest) error of its "
        f"features in standard deviations of the level: {levels}.",
        "",
        "| Target | float32 | bf16 | change |",
        "|---|---:|---:|---:|",
    ]
    for target, row in result["models"].items():
        exact, low = (sum(row[name]) / len(row[name]) for name in ("float32", "bf16"))
        lines.append(f"| {target}, {row['unit']} | {exact:.5f} | {low:.5f} | {low / exact - 1:+.2%} |")
    return lines


NOT_ON_A_CARD = [
    "## Not measured",
    "",
    "No graphics card was at hand: halving on a full memory, graphs made ahead and the resource GPU are tested with a "
    "device that only pretends to be full, and with torch on a CPU.",
]

PARTS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "featurise_vs_peers": parts,
    "featurise_scaling": scaling,
    "storage": storage,
    "campaign_memory": memory,
    "precision": precision,
}


if __name__ == "__main__":
    write_page()
