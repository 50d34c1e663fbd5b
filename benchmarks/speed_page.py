"""Writes docs/speed.md from the stored result of featurize.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "speed.md"

NAMES = {"embedded": "Embedded formation energies", "materials_project": "Materials Project"}

ROWS = {
    "network": "Network, compiled",
    "network_torch": "Network, torch",
    "neighbours": "Neighbour lists, compiled",
    "neighbours_pymatgen": "Neighbour lists, pymatgen (one thread)",
    "featurize_V1": "Structures to V1",
    "featurize_V0_to_V3": "Structures to V0-V3",
    "featurize_all": "Structures to all levels",
    "featurize_all_torch": "Structures to all levels, torch",
}


def write_page(result: dict[str, Any]) -> None:
    """docs/speed.md: what was measured, where, and what it is made of."""
    samples = result["samples"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# Speed of featurisation",
        "",
        f"Measured on {result['date']} with `{result['command'].strip()}`: {result['processor']}, "
        f"{result['cores']} cores, Python {result['python']}, {versions}, "
        f"seed {result['seed']}, best of {result['rounds']} rounds, load before the start {result['load_before']:.1f}. "
        + ("Other work shared the cores, which falls on what needs both of them. " if result["shared_machine"] else "")
        + "This page is written by `python benchmarks/featurize.py --write-docs benchmarks/results/featurize.json`.",
        "",
        *table(samples),
        "",
        "The bound is the cost of 41 thousand multiply-adds, 672 softplus and 100 exp a bond at the rates that torch "
        "reaches in the same round, with the same number of threads: "
        + "; ".join(limits(samples[name]["threads"]) for name in list(samples)[:1])
        + ".",
        "",
        "The compiled network stays below that bound because it does less (the initial bond and the part it gives to "
        "the first layer are read from a table of the distance; the parts of the layers that an atom gives are worked "
        "out once an atom) and because its softplus is two polynomials in vector registers. A batch runs on one "
        "thread; several threads or Dask workers work on different batches.",
        "",
        *workers(samples),
        "",
        f"First use compiles for {result['start']['compile_seconds']:.0f} s and keeps the code on disk; a later "
        f"process has its first features after {result['start']['load_seconds']:.1f} s.",
        *whole(result),
        "",
        "matgl's MEGNet: " + matgl(result["matgl"]),
    ]
    PAGE.write_text("\n".join(lines) + "\n")


def table(samples: dict[str, Any]) -> list[str]:
    """Microseconds a bond: parts down, samples and threads across."""
    columns = [(name, threads) for name in samples for threads in ("1", "2")]
    heads = [f"{NAMES[name]}, {threads} thread{'s' if threads == '2' else ''}" for name, threads in columns]
    lines = ["| Microseconds a bond | " + " | ".join(heads) + " |", "|---" + "|---:" * len(columns) + "|"]
    for key, label in ROWS.items():
        cells = [f"{samples[name]['threads'][threads]['us_per_bond'][key]:.3f}" for name, threads in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")

    def row(label: str, key: str, form: str) -> str:
        return f"| {label} | " + " | ".join(format(samples[n]["threads"][t][key], form) for n, t in columns) + " |"

    bounds = [f"{samples[name]['threads'][threads]['limits']['bound_us']:.3f}" for name, threads in columns]
    return [
        *lines,
        "| Bound | " + " | ".join(bounds) + " |",
        row("Network, compiled, over the bound", "network_over_bound", ".2f"),
        row("Network, torch, over the bound", "torch_over_bound", ".2f"),
        row("Neighbour lists over network, compiled", "neighbours_over_network", ".3f"),
        row("Structures a second (all levels)", "structures_per_second", ",.0f"),
        "| Structures, bonds | "
        + " | ".join(f"{samples[n]['structures']}, {samples[n]['bonds']:,}" for n, _ in columns)
        + " |",
    ]


def limits(threads: dict[str, Any]) -> str:
    """The rates behind the bound."""
    parts = []
    for n, row in threads.items():
        rate = row["limits"]
        parts.append(
            f"with {n} thread{'s' if n == '2' else ''} {rate['product_gflops']:.0f} GFLOP/s in 2048x64x64 products, "
            f"{rate['softplus_ns']:.2f} ns a softplus, {rate['exp_ns']:.2f} ns an exp"
        )
    return "; ".join(parts)


def workers(samples: dict[str, Any]) -> list[str]:
    """One and two worker processes."""
    lines = [
        "| Workers of one thread | one, structures/s | two, structures/s | two over one | the same in processor time "
        "| MB when ready, at most |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, sample in samples.items():
        row = sample["workers"]
        rates = [f"{rate:,.0f}" for rate in row["structures_per_second"].values()]
        ratios = f"{row['two_over_one']:.2f} | {row['two_over_one_processor_time']:.2f}"
        memory = f"{row['ready_mb']:.0f}, {row['peak_mb']:.0f}"
        lines.append(f"| {NAMES[name]} | {' | '.join(rates)} | {ratios} | {memory} |")
    return lines


def whole(result: dict[str, Any]) -> list[str]:
    """The run over the whole file, if there was one."""
    if "whole" not in result:
        return []
    row = result["whole"]
    return [
        "",
        f"All {row['structures']:,} Materials Project structures ({row['sites']:,} sites; {row['refused']} refused "
        f"with a reason) to V0-V3 on {result['cores']} cores: reading and checking {row['read_seconds']:.0f} s, "
        f"hashes, formulas, neighbour lists and network {row['featurize_seconds']:.0f} s, at most "
        f"{row['peak_mb'] / 1024:.1f} GB, the features themselves included.",
    ]


def matgl(row: dict[str, Any]) -> str:
    """What matgl needed, or why it was left out."""
    if "skipped" in row:
        return f"not measured, {row['skipped']}."
    return f"graphs {row['graphs_us']:.2f}, graphs and network {row['graphs_and_network_us']:.2f} microseconds a bond."
