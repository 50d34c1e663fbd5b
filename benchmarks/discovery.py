"""How well each head finds what it has never seen, on four data sets: tables, plots and the page docs/discovery.md.

    python benchmarks/discovery.py --data DATA --write-docs                    # all, hours on 2 cores
    python benchmarks/discovery.py --only elastic,elastic_polymorphs           # embedded data alone
    python benchmarks/discovery.py --only log_kvrh --data DATA --write-docs    # the others keep their stored results

DATA is a folder with matbench_log_kvrh_gvrh.parquet, matbench_phonons.json.gz and mp2018_megnet_eform_gap.parquet. Work
goes to discoveries/NAME and goes on where it was stopped; results go to benchmarks/results/discovery_NAME.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atomsets_flows.server import quiet_environment  # noqa: E402  # settings must stand before prefect is imported

quiet_environment(verbose=False)

from atomsets_core.report import choice_sentence, search_rows, sentence, table_header, table_rows  # noqa: E402
from atomsets_flows.runs import Asked, discover  # noqa: E402

RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
SEARCH = {"n_start": 200, "batch": 25, "rounds": 24, "share": 0.01}
QUICK = ["AtomSets, chgnet", "AtomSets, linear readout, chgnet", "AtomSets from scratch", "Gaussian process, chgnet"]
QUICK += ["ridge, all features", "ridge, composition", "random forest, composition"]
SETS: dict[str, dict[str, Any]] = {
    "elastic": {},
    "elastic_polymorphs": {"strict": False},
    "phonons": {
        "source": "matbench_phonons.json.gz", "targets": ["last phdos peak"], "unit": "1/cm", "transform": "log10",
        "seeds": 5,
    },
    "log_kvrh": {
        "source": "matbench_log_kvrh_gvrh.parquet", "id_column": "mbid", "targets": ["log10_K_VRH"],
        "unit": "log10 GPa", "transform": "none", "seeds": 3, "heads": QUICK, "search": {**SEARCH, "seeds": 5},
    },
    "gap": {
        "source": "mp2018_megnet_eform_gap.parquet", "id_column": "mp", "targets": ["gap"], "unit": "eV",
        "transform": "none", "seeds": 3, "rows": 8000, "heads": QUICK,
    },
}  # fmt: skip


def main() -> None:
    """Measure, store, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, help="repeats, instead of those of each data set")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path, default=Path("discoveries"))
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    for name in filter(None, options.only.split(",")):
        asked = {"name": name, **SETS[name], "workers": options.workers}
        if "source" in asked:
            if options.data is None:
                sys.exit(f"{name} needs --data")
            asked["source"] = str(options.data / asked["source"])
        if options.seeds:
            asked["seeds"] = options.seeds
        # Both protocols on the embedded data share features.
        if name.startswith("elastic"):
            asked["features"] = str(options.folder / "features-elastic")
        result = discover(Asked.model_validate(asked), str(options.folder / name))
        stored = RESULTS / f"discovery_{name}.json"
        stored.write_text(
            json.dumps({"command": f"python benchmarks/discovery.py --only {name}", **trimmed(result)}) + "\n"
        )
        print(f"{name}: {result['seconds']:.0f} s")
        for told in result["targets"].values():
            print(f"  {told['target']}: {sentence(result, told)}")
    if options.write_docs:
        write_docs()


def trimmed(result: dict[str, Any]) -> dict[str, Any]:
    """What is worth keeping: everything but the hits of each repeat."""
    targets = {}
    for name, told in result["targets"].items():
        runs = [{k: v for k, v in run.items() if k not in ("heads", "inner")} for run in told["runs"]]
        table = [{**row, "hits": np.round(row["hits"], 2).tolist()} for row in told["table"]]
        parity = {**told["parity"], **{k: np.round(told["parity"][k], 4).tolist() for k in ("true", "predicted")}}
        targets[name] = {**told, "runs": runs, "table": table, "parity": parity}
    # of a path the name alone: the folder is somebody's own
    source = {
        **result["source"],
        **({"path": Path(result["source"]["path"]).name} if "path" in result["source"] else {}),
    }
    return {**result, "targets": targets, "source": source, "asked": {**result["asked"], "features": None}}


def write_docs() -> None:
    """Put every stored result into docs/discovery.md and its plots beside it."""
    text = (DOCS / "discovery.md").read_text()
    for name in SETS:
        path = RESULTS / f"discovery_{name}.json"
        if path.exists():
            block = section(name, json.loads(path.read_text()))
            pattern = rf"(?s)(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
            text = re.sub(pattern, lambda match, block=block: match[1] + block + match[2], text)
    (DOCS / "discovery.md").write_text(text)


def section(name: str, result: dict[str, Any]) -> str:
    """Markdown of one data set."""
    cores, versions = result["machine"]["cores"], result["versions"]
    lines = [
        f"`{result['command']}`, {result['seconds']:.0f} s in its last run on {cores} cores; torch "
        f"{versions['torch']}, scikit-learn {versions['scikit-learn']}. {result['counts']['used']:,} of "
        f"{result['counts']['seen']:,} entries.",
        "",
    ]
    for told in result["targets"].values():
        header = table_header(result)
        lines += [f"**{told['target']}**: {sentence(result, told)}", ""]
        if choice := choice_sentence(told):
            lines += [f"Chosen inside the training part: {choice}.", ""]
        lines += [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(row)} |" for row in table_rows(told)]
        picture = f"images/discovery-{name}-{re.sub('[^a-z]+', '-', told['target'].lower())}.svg"
        plot(result, told, DOCS / picture)
        lines += ["", f"![Hits against budget, and parity, of {told['target']}]({picture})", ""]
        if told["search"]:
            lines += [
                f"| search | got there | values learned | of blind picking's {told['search']['random_budget']:,.0f} |"
            ]
            lines += ["|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in search_rows(told)), ""]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], told: dict[str, Any], path: Path) -> None:
    """Hits against budget, parity with the range beyond training shaded, and searches where there are any."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "discovery"
    from matplotlib import pyplot as plt

    from atomsets_core.report import shown

    panels = 3 if told["search"] else 2
    figure, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 3.8), constrained_layout=True)
    colors = iter(("#2c7fc0", "#d9770f", "#12936a", "#b0639b", "#6b4fa0", "#a33"))
    for row in shown(told):
        style = {"random": ("#858b94", ":"), "oracle": ("#858b94", "-")}.get(row["head"]) or (next(colors), "-")
        axes[0].plot(
            np.arange(1, len(row["hits"]) + 1), row["hits"], color=style[0], ls=style[1], lw=1.4, label=row["head"]
        )
    axes[0].axvline(told["runs"][0]["n_hidden"], color="#858b94", ls=":", lw=0.8)
    axes[0].set(xlabel="looked at", ylabel="hidden found", title=told["target"])
    axes[0].legend(fontsize=6.5, loc="lower right")
    found = told["parity"]
    true, predicted, hidden = (np.array(found[key]) for key in ("true", "predicted", "hidden"))
    ends = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    beyond = (found["boundary"], ends[1]) if result["asked"]["goal"] == "maximize" else (ends[0], found["boundary"])
    axes[1].axvspan(*beyond, color="#d9770f", alpha=0.12, lw=0)
    axes[1].plot(ends, ends, color="#858b94", lw=0.8)
    step = max(1, len(true) // 600)
    for chosen, color in ((~hidden, "#2c7fc0"), (hidden, "#d9770f")):
        axes[1].plot(true[chosen][::step], predicted[chosen][::step], ".", ms=3.5, color=color)
    scale = result["asked"]["unit"]
    scale = f"log10 {scale}" if result["asked"]["transform"] == "log10" else scale
    axes[1].set(xlabel=f"true, {scale}", ylabel=f"predicted, {scale}", title=found["head"])
    axes[1].title.set_fontsize(9)
    if told["search"]:
        for row in told["search"]["table"]:
            blind = row["search"] == "random"
            axes[2].plot(
                np.arange(1, len(row["curve"]) + 1), row["curve"], lw=1.2, label=row["search"],
                color="#858b94" if blind else None, ls=":" if blind else "-",
            )  # fmt: skip
        axes[2].axhline(told["search"]["n_wanted"] / 2, color="#858b94", ls=":", lw=0.8)
        axes[2].set(xlabel="values learned", ylabel=f"found of the {told['search']['n_wanted']} best")
        axes[2].legend(fontsize=6.5)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
