"""Benchmark tables and learning curves, and the page about them.

python benchmarks/accuracy.py run --data DIR [--tasks a,b] [--variants x,y]      all folds, or what is missing of them
python benchmarks/accuracy.py curves --data DIR                                  errors against the training size
python benchmarks/accuracy.py features --data DIR                                CPU time of the features
python benchmarks/accuracy.py write-docs --published FILE.csv                    docs/accuracy.md from what is stored

Results lie in benchmarks/results/accuracy, one JSON file for each task and variant; a stopped run goes on where it was.
FILE.csv has the columns task, algorithm, mean, std: the published entries of Matbench v0.1.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from atomsets_core.features import parse_features
from atomsets_core.jobs import PACKAGES, VARIANTS, hardware, specifications, union
from atomsets_core.parents import load_parent
from atomsets_core.sources import TASKS, Task, load_dataset

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "accuracy"
FEATURES = ROOT / "benchmarks" / "results" / "accuracy_features.json"
PAGE = ROOT / "docs" / "accuracy.md"
README = ROOT / "README.md"
# The last point of each curve is the whole training part of the fold, from the result of the task itself.
CURVES = {
    "mp2018_e_form": (100, 300, 1000, 3000, 10_000, 40_000),
    "matbench_log_kvrh": (100, 300, 1000, 3000),
    "matbench_phonons": (100, 300),
}
CURVE_VARIANTS = ("auto", "megnet-scratch", "random-forest")
COLOURS = {"auto": "#1f6f8b", "megnet-scratch": "#c05a2e", "random-forest": "#7a7a7a"}

OVERLAP = {
    False: "The parents never saw a label of this task. They saw most of its structures, relaxed by the Materials "
    "Project, with their energies; CHGNet and SevenNet with forces and stresses too, of which stiffness is a "
    "derivative.",
    True: "No parent saw any of these labels. The default recipe is told what the parent of compositions expects of a "
    "crystal: formation energy, gap, volume, learned from computed crystals of the Materials Project",
}
KNOWN = {
    "mp2018_e_form": "The MEGNet parent was trained on formation energies of most of these crystals, CHGNet and "
    "SevenNet on total energies from which they follow: these errors are too small to be true elsewhere. The authors "
    "of MEGNet report 0.028 eV/atom for it from scratch, with 60,000 crystals of the same release and far longer "
    "training (Chen et al., Chem. Mater. 31, 3564 (2019)).",
}
"""In place of `OVERLAP`, where parents saw the labels."""

OF_CURVE = {
    "mp2018_e_form": "Here AtomSets' parents know most of the answers, which no number of training rows gives the "
    "other two; the curves of moduli and phonons are the fair ones. From 10,000 rows on MEGNet from scratch gets no "
    "more steps, hence the flat end.",
}
"""What a curve needs said besides who wins."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "curves", "features", "write-docs"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks", help="by default all of Matbench")
    parser.add_argument("--variants", help="by default all")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--published", type=Path)
    options = parser.parse_args()
    if options.action == "write-docs":
        if options.published is None:
            parser.error("write-docs needs --published")
        PAGE.write_text(page(options.published))
        README.write_text(
            re.sub(
                r"(?s)(<!-- accuracy -->\n).*?(<!-- end of accuracy -->)",
                lambda match: f"{match[1]}{summary(options.published)}\n{match[2]}",
                README.read_text(),
            )
        )
        return
    if options.data is None:
        parser.error(f"{options.action} needs --data")
    if options.action == "features":
        FEATURES.write_text(json.dumps(time_features(options.data), indent=1) + "\n")
        return
    for arguments in wanted(options):
        command = [sys.executable, "-m", "atomsets_flows.cli", "benchmark", *arguments]
        done = subprocess.run(
            [*command, "--data", str(options.data), "--workers", options.workers], cwd=ROOT, check=False
        )
        if done.returncode:
            sys.exit(done.returncode)


def wanted(options: argparse.Namespace) -> Iterable[list[str]]:
    """Arguments of `atomsets benchmark`, one list a run, the cheapest variants first."""
    tasks = options.tasks.split(",") if options.tasks else [name for name in TASKS if TASKS[name].matbench]
    variants = (
        options.variants.split(",") if options.variants else sorted(VARIANTS, key=lambda v: v == "megnet-scratch")
    )
    if options.action == "curves":
        for task, sizes in CURVES.items():
            for size in sizes:
                for variant in CURVE_VARIANTS:
                    yield [task, "--variant", variant, "--folds", "0", "--train-rows", str(size)]
        return
    for task in tasks:
        for variant in variants:
            if VARIANTS[variant].fits(TASKS[task]):
                yield [task, "--variant", variant]


def time_features(data: Path, sample: int = 100) -> dict[str, Any]:
    """CPU milliseconds a structure of each parent of the default recipe, on some of each task, one thread."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "command": "python benchmarks/accuracy.py features --data DIR",
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "seed": 0,
        "structures": sample,
        "milliseconds": {},
    }
    for name, task in TASKS.items():
        if task.compositions:
            continue
        dataset = load_dataset(name, data)
        structures = dataset.take(np.random.default_rng(0).permutation(len(dataset))[:sample])
        spec = parse_features(union(specifications("auto", task, len(dataset))))
        for parent in spec.parents:
            network = load_parent(parent)
            network.featurize(structures.take([0]), spec.needed(parent))  # compiled, weights read
            started = time.process_time()
            network.featurize(structures, spec.needed(parent))
            spent = (time.process_time() - started) / sample * 1000
            found["milliseconds"].setdefault(name, {})[parent] = round(spent, 2)
        print(name, found["milliseconds"][name], flush=True)
    return found


def feature_minutes(name: str, rows: int) -> float:
    """CPU minutes that the features of so many rows of a task take, by what was measured on some; 0 for formulas."""
    if not FEATURES.is_file():
        return 0.0
    return sum(json.loads(FEATURES.read_text())["milliseconds"].get(name, {}).values()) * rows / 60_000


def stored(published: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Our results and the published entries."""
    with published.open(newline="") as file:
        return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))], list(csv.DictReader(file))


def minutes(result: dict[str, Any]) -> float:
    """CPU minutes of all folds; features are made once for all variants and tasks, often before."""
    return sum(fold["cpu_seconds"] for fold in result["folds"].values()) / 60


def score_of(task: Task) -> str:
    """Name of the score that published entries can be compared by."""
    return "rocauc_of_labels" if task.classes else "mae"


def best_of(entries: list[dict[str, str]], task: Task) -> dict[str, str]:
    """The best of a task's published entries."""
    return (max if task.classes else min)(entries, key=lambda entry: float(entry["mean"]))


def summary(published: Path) -> str:
    """A line for each task of Matbench that the default recipe has done."""
    results, entries = stored(published)
    lines = [
        "| task | rows | AtomSets, default recipe | best published | random forest | CPU minutes, with features |",
        "|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        of = {r["variant"]: r for r in results if r["task"] == name and r["complete"]}
        theirs = [e for e in entries if e["task"] == name and e["algorithm"] != "Dummy"]
        if not theirs or not {"auto", "random-forest"} <= set(of):
            continue
        score, best = score_of(task), best_of(theirs, task)
        ours, forest = of["auto"], of["random-forest"]
        what = "ROC-AUC of labels" if task.classes else task.unit
        some = "" if ours["rows"] == ours["rows_official"] else f" of {ours['rows_official']:,}"
        also = f" ({ours['mean']['rocauc']:.4g} of probabilities)" if task.classes else ""
        old = "" if ours["recipe_version"] == VARIANTS["auto"].version(task) else " (older version of the recipe)"
        lines.append(
            f"| {name.removeprefix('matbench_')}, {what} | {ours['rows']:,}{some} | "
            f"{ours['mean'][score]:.4g}{also}{old} | "
            f"{float(best['mean']):.4g} ({best['algorithm']}) | {forest['mean'][score]:.4g} | "
            f"{minutes(ours) + feature_minutes(name, ours['rows']):.0f} |"
        )
    return "\n".join(lines)


def page(published: Path) -> str:
    """The whole page."""
    results, entries = stored(published)
    parts = [HEAD, standing(results, entries)]
    for name in TASKS:
        mine = [r for r in results if r["task"] == name and r["train_rows"] is None and r["folds"]]
        if mine:
            parts.append(section(name, mine, [e for e in entries if e["task"] == name]))
    curves = [r for r in results if r["folds"] and "0" in r["folds"]]
    parts += [text for task in CURVES if (text := curve(task, [r for r in curves if r["task"] == task]))]
    return "\n\n".join(parts) + "\n"


def standing(results: list[dict[str, Any]], entries: list[dict[str, str]]) -> str:
    """Where the default recipe is ahead of every published entry, where not, and what an old result is of."""
    ahead, behind, old = [], [], []
    for r in results:
        theirs = [e for e in entries if e["task"] == r["task"] and e["algorithm"] != "Dummy"]
        if r["variant"] != "auto" or not r["complete"] or not theirs:
            continue
        task = TASKS[r["task"]]
        classes, ours, best = task.classes, r["mean"][score_of(task)], best_of(theirs, task)
        if ours > float(best["mean"]) if classes else ours < float(best["mean"]):
            ahead.append(r["task"])
        else:
            better = sum(float(e["mean"]) > ours if classes else float(e["mean"]) < ours for e in theirs)
            behind.append(f"{r['task']} (behind {better} of {len(theirs)} entries, the best {best['algorithm']})")
        if r["recipe_version"] != VARIANTS["auto"].version(task):
            old.append(r["task"])
    lines = [
        f"Ahead of every published entry: {', '.join(ahead) or 'nowhere'}. Not ahead: {', '.join(behind) or 'none'}."
    ]
    if old:
        lines.append(f"Measured with an older version of the recipe: {', '.join(old)}.")
    return "\n".join(lines)


def section(name: str, mine: list[dict[str, Any]], entries: list[dict[str, str]]) -> str:
    """One task's table: ours in bold, published entries as they are, best first."""
    task, score = TASKS[name], score_of(TASKS[name])
    rows: list[tuple[float, str]] = []
    for r in mine:
        of = "" if r["complete"] else f", folds {', '.join(r['folds'])} only"
        mean, std = r["mean"][score], r["std"][score]
        spread = f" ± {std:.2g}" if len(r["folds"]) > 1 else ""
        more = f" {r['mean']['rocauc']:.4f} |" if task.classes else ""
        rows.append((mean, f"| **{r['title']}**{of} | {mean:.4g}{spread} |{more} {minutes(r):.1f} |"))
    for e in entries:
        more = " |" if task.classes else ""
        rows.append(
            (float(e["mean"]), f"| {e['algorithm']} | {float(e['mean']):.4g} ± {float(e['std']):.2g} |{more} |")
        )
    rows.sort(reverse=task.classes)
    head = "ROC-AUC of labels | ROC-AUC of probabilities" if task.classes else f"MAE, {task.unit}"
    count = f"{mine[0]['rows']:,} of {mine[0]['rows_official']:,} rows"
    partial = "" if mine[0]["rows"] == mine[0]["rows_official"] else " The missing rows make it no leaderboard score."
    overlap = KNOWN.get(name, OVERLAP[task.compositions])
    if task.compositions:
        overlap += unseen(mine, score) or "."
    elif FEATURES.is_file():
        spent = feature_minutes(name, mine[0]["rows"])
        partial += f" Features of the default recipe take {spent:.0f} CPU minutes, once for all variants and folds."
    columns = "|---|---|---|---|" if task.classes else "|---|---|---|"
    table = "\n".join([f"| model | {head} | CPU minutes, features apart |", columns, *(text for _, text in rows)])
    return f"## {name}\n\n{count}.{partial} {overlap}\n\n`atomsets benchmark {name} --data DIR`\n\n{table}"


def unseen(mine: list[dict[str, Any]], score: str) -> str:
    """The end of a sentence: how many rows are of compositions that were not among these, and the error on them."""
    found = [r for r in mine if r["variant"] == "auto" and r.get("unseen")]
    if not found:
        return ""
    of, every = found[0]["unseen"], found[0]["rows"]
    if of["rows"] == every:
        return ", none of these compositions among them."
    name = "ROC-AUC of labels" if score != "mae" else "MAE"
    return (
        f", {every - of['rows']:,} of these {every:,} compositions among them; on the {of['rows']:,} others its "
        f"{name} is {of['mean'][score]:.4g}."
    )


def curve(name: str, results: list[dict[str, Any]]) -> str:
    """Table of errors against the number of training rows, and the picture; empty where nothing is stored."""
    limited = [r for r in results if r["train_rows"]]
    if not limited:
        return ""
    sizes: dict[str, dict[int, float]] = {}
    for r in [*limited, *(r for r in results if r["train_rows"] is None and r["variant"] in CURVE_VARIANTS)]:
        sizes.setdefault(r["variant"], {})[r["folds"]["0"]["n_train"]] = r["folds"]["0"]["scores"]["mae"]
    sizes = {variant: sizes[variant] for variant in CURVE_VARIANTS if variant in sizes}
    picture = draw(name, sizes)
    every = sorted({n for of in sizes.values() for n in of})
    lines = [f"| training rows | {' | '.join(VARIANTS[v].title for v in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    for n in every:
        lines.append(f"| {n:,} | " + " | ".join(f"{of[n]:.4g}" if n in of else "" for of in sizes.values()) + " |")
    return "\n".join(
        [
            f"## Learning curve of {name}",
            "",
            f"MAE in {TASKS[name].unit} on the test part of fold 0, one seed; the last point is all training rows.",
            "",
            f"![{name}]({picture})",
            "",
            *lines,
            "",
            f"{verdict(sizes)} {OF_CURVE.get(name, '')}".rstrip(),
        ]
    )


def verdict(sizes: dict[str, dict[int, float]]) -> str:
    """In words, where the default recipe has the smaller error and where not, against each of the others."""
    sentences = []
    for variant, errors in sizes.items():
        both = sorted(set(errors) & set(sizes.get("auto", {})))
        if variant == "auto" or not both:
            continue
        parts = []
        for ahead, word in ((True, "wins"), (False, "loses")):
            at = [n for n in both if (sizes["auto"][n] < errors[n]) == ahead]
            if at:
                less = [abs(1 - sizes["auto"][n] / errors[n]) for n in at]
                span = f"{min(less):.0%}" if len(at) == 1 else f"{min(less):.0%} to {max(less):.0%}"
                change = "smaller" if ahead else "larger"
                parts.append(f"{word} with {', '.join(f'{n:,}' for n in at)} rows (its error is {span} {change})")
        sentences.append(f"Against {VARIANTS[variant].title} AtomSets {' and '.join(parts)}.")
    return " ".join(sentences)


def draw(name: str, sizes: dict[str, dict[int, float]]) -> str:
    """Draw a static SVG; its path as seen from the page."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="training rows", ylabel=f"MAE, {TASKS[name].unit}")
    for variant, of in sizes.items():
        n = sorted(of)
        label = "AtomSets, default recipe" if variant == "auto" else VARIANTS[variant].title
        axes.plot(n, [of[k] for k in n], "o-", color=COLOURS.get(variant), label=label)
    axes.legend(frameon=False)
    path = PAGE.parent / "images" / f"learning-curve-{name}.svg"
    with rc_context({"svg.hashsalt": name}):  # the same file from the same figures
        figure.savefig(path, metadata={"Date": None})
    return f"images/{path.name}"


HEAD = """# Accuracy

Written by `python benchmarks/accuracy.py write-docs --published FILE.csv` from the files in
[benchmarks/results/accuracy](../benchmarks/results/accuracy), which `atomsets benchmark` writes: predictions by
official identifier, what was chosen, seeds, versions, CPU time and hardware of every fold.

- Folds are the official ones of Matbench v0.1 (Dunn et al., npj Comput. Mater. 6, 138 (2020)), checked by digest; mean
  and standard deviation are over the folds. The mp2018 set has one split of its own. Ours are in bold, one seed.
- The default recipe is the same for every task: `atomsets_core/models/recipe.py` and `auto.py`. Scaling, choice of
  levels and scale of the target, stacking and training see the training part of a fold alone; a test shuffles the
  labels of the test part and finds the same predictions.
- AtomSets-V0 to V3 and MLP-v, f2, f1 are the publication's: one network of its sizes on one level of MEGNet, 10,000
  steps, the epoch chosen on a tenth of the training rows. MEGNet from scratch is the graph network itself, 50 passes
  within 5,000 to 10,000 steps of 32 structures, the epoch chosen likewise: what minutes of a CPU allow. Those are seven
  passes on the whole of the mp2018 set, where it falls short of what it can learn and, for the gap, of the forest. More
  would still lower its error; the published MegNet had far longer. It starts from wider weights than the publication's.
  Those mostly gave larger errors; but on 100 phonon rows they had 99.5 1/cm, which beats the default recipe there; most
  of that difference is in the few test rows far beyond the sample's values.
- Published entries are names and figures from the public leaderboard. For classes, the package matbench 0.6 turns
  probabilities into labels at 0.5 before it computes what it calls ROC-AUC, so the column "of labels" is the one to
  compare; the ROC-AUC of the probabilities themselves stands beside it. Which of the two an entry was scored by can't
  be seen from the leaderboard.
- A complete result of a whole task goes to matbench fold by fold: `task.record(k, list(fold["predictions"].values()),
  params=fold["parameters"])` with `fold = result["folds"][str(k)]`."""

if __name__ == "__main__":
    main()
