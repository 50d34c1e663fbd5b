"""What intervals, domain and choice are worth for candidates that are unlike the training data.

    python benchmarks/trust.py --data DATA --write-docs     # all; goes on where it was stopped
    python benchmarks/trust.py --only "n," --splits value   # some

For each property a part of the data is taken for candidates, chosen unlike the rest: the compounds of some elements,
some clusters of feature space, or the best tenth of the values with a fifth of the others; for the bulk modulus also
the 1,028 candidates of the embedded campaign whose value the Materials Project computed later. The rest does what a
campaign does: simulated discoveries choose a head and an acquisition and say how far values beyond the range reach, the
head is trained, and rows weighed by how candidate-like they are give the intervals. Then the candidates' values are
looked at. No label of a candidate is used before. One thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pymatgen.core import Composition
from sklearn.cluster import KMeans

from atomsets_core.discovery import Design, Rows, acquisition, answer, campaign_heads, choose, recipes, scored
from atomsets_core.features import featurize, parse_features
from atomsets_core.jobs import labels_of
from atomsets_core.models import (
    AtomSetsRegressor,
    Beyond,
    believed,
    kept_together,
    likeness,
    pooled_features,
    r_precision,
    regressor_of,
    trust_candidates,
)
from atomsets_core.parents import Features
from atomsets_core.sources import pull
from atomsets_core.structures import Structures
from atomsets_core.transforms import find_transform

ROOT = Path(__file__).resolve().parent.parent
SHARED, RESULTS, DOCS = ROOT.parent / "shared" / "data", ROOT / "benchmarks" / "results" / "trust.json", ROOT / "docs"
PACKAGES = ("torch", "numpy", "scikit-learn")
COVERAGE, SHARE = 0.9, 0.1
SPEC = "megnet:V0+V1+V2+V3"
MODEL = {"features": SPEC, "members": 5, "folds": 5}
"""Half the networks of a campaign."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DataSet:
    """One property: where it comes from, the column, its transform and unit, and how many rows are taken at most."""

    name: str
    source: str
    target: str
    transform: str
    unit: str
    goal: str = "maximize"
    rows: int = 1200


DATA_SETS = (
    DataSet("bulk modulus K", "embedded:elastic", "K_VRH", "log10", "GPa"),
    DataSet("shear modulus G", "embedded:elastic", "G_VRH", "log10", "GPa"),
    DataSet("refractive index n", "matminer_dielectric_constant.parquet", "n", "log10", ""),
    DataSet("phonons, last peak", "matbench_phonons.json.gz", "last phdos peak", "log10", "1/cm"),
    DataSet("band gap, where there is one", "mp2018_megnet_eform_gap.parquet", "gap", "none", "eV"),
    DataSet("piezoelectric modulus", "matminer_piezoelectric_tensor.parquet", "eij_max", "log10", "C/m2", rows=941),
    DataSet("perovskites, formation energy", "matbench_perovskites.parquet", "e_form", "none", "eV", goal="minimize"),
    DataSet("dielectric, electronic part", "matminer_dielectric_constant.parquet", "poly_electronic", "log10", ""),
)
LATER = DataSet("bulk modulus K, computed later", "embedded:elastic", "K_VRH", "log10", "GPa", rows=2000)


@dataclass(frozen=True)
class Labelled:
    """Structures with features and values on the scale of the model."""

    features: Features
    y: npt.NDArray[np.float64]


def main() -> None:
    """Measure, store, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--only", default="", help="part of a data set's name")
    parser.add_argument("--splits", default="element,cluster,value,later")
    parser.add_argument("--seeds", type=int, default=2, help="simulated discoveries that the choice rests on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    stored = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    rows = {(row["data"], row["split"]): row for row in stored["rows"]}
    wanted = options.splits.split(",")
    for dataset, split, prepare in _questions(options.data):
        if options.only in dataset.name and split in wanted and (dataset.name, split) not in rows:
            labelled, candidates = prepare()
            rows[dataset.name, split] = measure(dataset, split, labelled, candidates, options.seeds)
            print(
                json.dumps({k: v for k, v in rows[dataset.name, split].items() if k not in ("heads", "compared")}),
                flush=True,
            )
            result = {
                "command": f"python benchmarks/trust.py --seeds {options.seeds}",
                "coverage_asked": COVERAGE,
                "features": SPEC,
                "model": MODEL,
                "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
                "machine": _processor(),
                "rows": list(rows.values()),
            }
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.write_docs:
        write_docs(json.loads(options.out.read_text()))


def _questions(data: Path) -> Iterator[tuple[DataSet, str, Callable[[], tuple[Labelled, Mask]]]]:
    """Data set, split, and what gives its structures and which of them are candidates."""
    for dataset in DATA_SETS:
        path = dataset.source if ":" in dataset.source else str(data / dataset.source)
        if not (":" in path or Path(path).exists()):
            continue
        for split in ("element", "cluster", "value"):
            yield dataset, split, lambda d=dataset, p=path, s=split: _cut(d, load(d, p), s)
    if (data / "matbench_log_kvrh_gvrh.parquet").exists() and (data / "mp_structures_nongnome_all.parquet").exists():
        yield LATER, "later", lambda: later(data)


def load(dataset: DataSet, path: str) -> Labelled:
    """At most `rows` rows of a data set at random, with features; zeros of a gap are left out, for metals have none."""
    pulled = pull(path)
    model = AtomSetsRegressor(transform=dataset.transform)
    usable, values, _ = labels_of(pulled, (dataset.target,), model)
    values = values.reshape(-1)
    if dataset.target == "gap":
        usable &= values > 0
    if dataset.target == "e_form":
        values = values / 5  # the task gives eV for the cell of five atoms
    rows = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(usable))[: dataset.rows])
    return _labelled(pulled.structures.take(rows), values[rows], dataset)


def _labelled(structures: Any, values: npt.NDArray[np.float64], dataset: DataSet) -> Labelled:
    value_of = dict(zip(structures.hashes, values, strict=True))
    found = featurize(structures, SPEC)
    of_row = np.array([value_of[name] for name in found.structure_hash])
    return Labelled(found, np.asarray(find_transform(dataset.transform).forward(of_row)))


def _cut(dataset: DataSet, data: Labelled, split: str) -> tuple[Labelled, Mask]:
    """Which rows are candidates; with a cut by value also those of their formulas are left out."""
    n, random = len(data.y), np.random.default_rng(0)
    if split == "value":
        held = Design(dataset.goal, SHARE, 0.2).holdout(data.y, data.features.formula, 0)
        kept = np.sort(np.concatenate([held.train, held.pool]))
        return Labelled(data.features[kept], data.y[kept]), np.isin(kept, held.pool)
    candidate = np.zeros(n, dtype=bool)
    if split == "element":
        held_in = [{element.symbol for element in Composition(str(formula))} for formula in data.features.formula]
        for symbol in random.permutation(sorted(set().union(*held_in))):
            holds = np.array([symbol in elements for elements in held_in])
            if holds.mean() < 0.12 and candidate.mean() < 0.25:
                candidate |= holds
        return data, candidate
    pooled = pooled_features(parse_features(SPEC), data.features).astype(np.float64)
    scale = pooled.std(axis=0)
    standard = (pooled - pooled.mean(axis=0)) / np.where(scale > 1e-6, scale, 1.0)
    left, singular, _ = np.linalg.svd(standard, full_matrices=False)
    cluster = KMeans(12, n_init=3, random_state=0).fit_predict(left[:, :10] * singular[:10])
    for k in random.permutation(12):
        if (cluster == k).mean() < 0.2 and candidate.mean() < 0.25:
            candidate |= cluster == k
    return data, candidate


def later(data: Path) -> tuple[Labelled, Mask]:
    """The embedded campaign: its training data, and those of its candidates whose K was computed later.

    Values are those of matbench's log_kvrh, whose structures are found in the Materials Project by cell and sites.
    """
    known = pull("embedded:elastic")
    usable, values, _ = labels_of(known, ("K_VRH",), AtomSetsRegressor(transform="log10"))
    offered = pull("embedded:flla")
    stable = pd.to_numeric(offered.columns["e_above_hull"]).to_numpy() <= 0.1
    values_later = _values_by_mp_id(data)
    mine = {str(name) for name in known.structures.material_id}
    names = [str(name) for name in offered.structures.material_id]
    rows = np.array([i for i, name in enumerate(names) if stable[i] and name in values_later and name not in mine])
    seen = set(known.structures.hashes)
    rows = np.array([i for i in rows if offered.structures.hashes[i] not in seen])
    training = known.structures.take(np.flatnonzero(usable))
    both = Structures.concat([training, offered.structures.take(rows)])
    of_candidates = np.array([values_later[names[i]] for i in rows])
    found = _labelled(both, np.concatenate([values.reshape(-1)[usable], of_candidates]), LATER)
    return found, np.isin(found.features.structure_hash, offered.structures.hashes[rows])


def _values_by_mp_id(data: Path) -> dict[str, float]:
    computed = pd.read_parquet(data / "matbench_log_kvrh_gvrh.parquet")
    every = pd.read_parquet(data / "mp_structures_nongnome_all.parquet")

    def key(lattice: Any, numbers: Any) -> tuple[Any, ...]:
        return (*np.round(np.asarray(lattice)[:6], 3), *sorted(map(int, numbers)))

    ids = {key(lattice, z): name for name, lattice, z in zip(every["mp"], every["lattice"], every["Z"], strict=True)}
    pairs = zip(computed["lattice"], computed["Z"], computed["log10_K_VRH"], strict=True)
    return {ids[k]: 10.0**value for lattice, z, value in pairs if (k := key(lattice, z)) in ids}


def measure(dataset: DataSet, split: str, data: Labelled, candidate: Mask, seeds: int) -> dict[str, Any]:
    """One campaign, and what the candidates' values say of it."""
    started = time.perf_counter()
    train, pool = np.flatnonzero(~candidate), np.flatnonzero(candidate)
    features, others, y, truth = data.features[train], data.features[pool], data.y[train], data.y[pool]
    sign = 1.0 if dataset.goal == "maximize" else -1.0
    design, rows = Design(dataset.goal, SHARE, 0.2), Rows(features)
    runs = []
    for seed in range(seeds):
        answers = {name: answer(head, rows, y, design, seed) for name, head in campaign_heads(MODEL).items()}
        runs.append(scored(answers, y, features.formula, design, seed, kappa=0.5))
    choice = choose(runs, list(recipes(MODEL)), coverage=COVERAGE)
    assert choice is not None
    best = float((sign * y).max() * sign)
    wanted = np.zeros(len(truth), dtype=bool)
    # By value: the hidden ones. Else the best tenth of the candidates.
    n_wanted = int((sign * truth > sign * best).sum()) if split == "value" else round(SHARE * len(truth))
    wanted[np.argsort(-sign * truth, kind="stable")[:n_wanted]] = True
    heads, fitted = {}, []
    for name, parameters in recipes(MODEL).items():
        model = regressor_of(parameters)
        more = {"fitted": fitted} if "head" in parameters else {}
        model.fit(features, y, **more)
        fitted.append(model)
        said = model.predict_distribution(others)
        heads[name] = {
            "r_precision": r_precision(wanted, sign * said.mean),
            "mae": float(np.abs(said.mean - truth).mean()),
        }
        if name == choice["head"]:
            chosen, prediction = model, said
    oof = chosen.oof_
    pooled = chosen.pooled(features), chosen.pooled(others)
    half = oof.upper - oof.mean
    trust = trust_candidates(y - oof.mean, oof.std, half, likeness(*pooled), COVERAGE, len(pool))
    reach = choice["beyond"] if choice["beyond"] is not None else float("nan")
    plain = find_transform("none")
    numbers = believed(prediction.columns(), plain, trust, float(y.std()), Beyond(sign, best, reach))
    score = acquisition(
        sign * numbers["mean"], numbers["std_scale"], kind=choice["acquisition"], kappa=0.5, best=sign * best
    )
    inside = prediction.in_domain
    held = (truth >= numbers["lower"]) & (truth <= numbers["upper"])
    as_trained = (truth >= prediction.lower) & (truth <= prediction.upper)
    # Without an interval there is nothing to hold.
    shown = np.full(len(truth), trust.enough)
    beyond = sign * truth > sign * best
    near = numbers["lower"] if sign > 0 else numbers["upper"]
    to_end = (sign * truth >= sign * near) & (sign * truth <= sign * numbers["beyond"])
    widths = numbers["upper"] - numbers["lower"]
    groups = len(np.unique(kept_together(features.formula)))
    top = np.argsort(-score, kind="stable")[: max(1, n_wanted)]
    return {
        "data": dataset.name, "split": split, "unit": find_transform(dataset.transform).of(dataset.unit),
        "n_train": len(train), "formulas": groups, "n_candidates": len(pool), "n_outside": int((~inside).sum()),
        "n_beyond": int(beyond.sum()), "deviation": float(y.std()),
        "chosen": choice["head"], "acquisition": choice["acquisition"],
        "coverage": {
            "as_trained": share(as_trained), "all": share(held[shown]), "inside": share(held[shown & inside]),
            "outside": share(held[shown & ~inside]), "beyond_interval": share(held[shown & beyond]),
            "beyond": share(to_end[shown & beyond]), "expected_as_trained": trust.expected,
        },
        "effective_rows": trust.effective_rows, "factor": trust.factor if trust.enough else None,
        "width": {
            "as_trained": float(np.median(prediction.upper - prediction.lower)),
            "all": float(np.median(widths)) if trust.enough else None,
            "beyond": float(2 * reach),
        },
        "bias": float((numbers["mean"] - truth).mean()),
        "mae": {"inside": mean(np.abs(numbers["mean"] - truth)[inside]),
                "outside": mean(np.abs(numbers["mean"] - truth)[~inside])},
        "wanted_among_first": {"inside": [int(wanted[top][inside[top]].sum()), int(inside[top].sum())],
                               "outside": [int(wanted[top][~inside[top]].sum()), int((~inside[top]).sum())]},
        "r_precision": {"chosen": r_precision(wanted, score), "prevalence": float(wanted.mean()),
                        "best": max(h["r_precision"] for h in heads.values())},
        "heads": heads, "compared": choice["compared"], "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def share(mask: Mask) -> float | None:
    """Of the rows for which it is true; None without rows."""
    return float(mask.mean()) if len(mask) else None


def mean(values: npt.NDArray[np.float64]) -> float | None:
    """Of the values; None without any."""
    return float(values.mean()) if len(values) else None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return "-" if value is None else f"{value:.0%}"


def held_by(row: dict[str, Any]) -> str:
    """Coverage of all candidates, or why there is no interval."""
    few = f"none: worth {row['effective_rows']:.0f} rows"
    return few if row["factor"] is None else percent(row["coverage"]["all"])


def width(value: float | None) -> str:
    """Two digits, or a dash."""
    return "-" if value is None else f"{value:.2g}"


def table(result: dict[str, Any]) -> str:
    """The tables of docs/trust.md."""
    lines = [
        "| property | candidates by | n, of them unlike | beyond the range | intervals as trained: expected, held | of "
        "candidates: held | inside, outside | beyond: interval, reach | width as trained, of candidates, beyond |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        c, w = row["coverage"], row["width"]
        lines.append(
            f"| {row['data']} | {row['split']} | {row['n_candidates']:,}, {row['n_outside']:,} | {row['n_beyond']:,} | "
            f"{percent(c['expected_as_trained'])}, {percent(c['as_trained'])} | {held_by(row)} | "
            f"{percent(c['inside'])}, {percent(c['outside'])} | {percent(c['beyond_interval'])}, "
            f"{percent(c['beyond'])} | {w['as_trained']:.2g}, {width(w['all'])}, {w['beyond']:.2g} {row['unit']} |"
        )
    lines += [
        "",
        "| property | candidates by | chosen | R-precision of the choice | best head in hindsight | ridge, "
        "composition | AtomSets | blind | wanted among the first: inside, outside |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        r, heads, w = row["r_precision"], row["heads"], row["wanted_among_first"]
        best = max(heads, key=lambda name: heads[name]["r_precision"])
        lines.append(
            f"| {row['data']} | {row['split']} | {row['chosen']}, {row['acquisition']} | {r['chosen']:.2f} | "
            f"{r['best']:.2f} ({best}) | {heads['ridge, composition']['r_precision']:.2f} | "
            f"{heads['AtomSets']['r_precision']:.2f} | {r['prevalence']:.2f} | {w['inside'][0]} of {w['inside'][1]}, "
            f"{w['outside'][0]} of {w['outside'][1]} |"
        )
    return "\n".join(lines)


def write_docs(result: dict[str, Any]) -> None:
    """Put both tables into docs/trust.md between the marks."""
    page = DOCS / "trust.md"
    text = page.read_text()
    start, rest = text.split("<!-- tables -->", 1)
    _, end = rest.split("<!-- end of tables -->", 1)
    told = f"`{result['command']}`, {result['machine']}, one thread, " + ", ".join(
        f"{name} {number}" for name, number in result["versions"].items()
    )
    page.write_text(f"{start}<!-- tables -->\n\n{table(result)}\n\n{told}\n\n<!-- end of tables -->{end}")


if __name__ == "__main__":
    main()
