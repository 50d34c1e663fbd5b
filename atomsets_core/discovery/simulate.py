"""Simulated discovery: hide what is wanted, train on what remains, and see which model finds it.

The question a screening campaign asks is about materials better than any it was trained on. The check asks the same
question where the answer is known, and nothing of the hidden part touches the training: no scaler, no fold, no choice.

One head on one holdout gives an `answer`, plain JSON: what it predicted for the pool, and, for the choice between
heads, what it predicted in an inner holdout made of the training part alone. Scores, averages of heads and the choice
are made from answers, without training anything again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.discovery.acquisition import KINDS, MEAN, acquisition
from atomsets_core.discovery.heads import Estimate, Head, Rows, average
from atomsets_core.discovery.holdouts import Holdout, value_holdout
from atomsets_core.models import (
    acceleration,
    area_under_hits,
    bias,
    bootstrap_interval,
    enrichment,
    gaussian_coverage,
    gaussian_width,
    hits,
    kept_together,
    mean_absolute_error,
    r_precision,
    scatter_ratio,
    spearman,
)

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CHOSEN = "chosen inside"
REFERENCES = ("random", "oracle")

COVERAGE = 0.9
"""Nominal coverage of the intervals whose coverage is reported."""

SCORES = (
    "r_precision",
    "enrichment",
    "acceleration",
    "area",
    "mae_outside",
    "mae_inside",
    "bias_outside",
    "spearman_outside",
    "coverage_outside",
    "coverage_inside",
    "scatter_outside",
    "width_outside",
    "width_inside",
    "unlike",
    "coverage_unlike",
    "bias_unlike",
    "width_unlike",
)

CLASS_SCORES = (
    "r_precision",
    "enrichment",
    "area",
    "roc_auc",
    "brier",
    "log_loss",
    "calibration_error",
    "probability_hidden",
    "probability_others",
)
"""Those of a class, see `classes.scored_by`."""


@dataclass(frozen=True)
class Design:
    """How a simulated discovery hides values.

    Attributes:
        goal: "maximize" hides the highest, "minimize" the lowest.
        quantile: share that is hidden.
        pool_share: share of the other rows among which the hidden are to be found.
        strict: leave every row out of the training part whose formula is in the pool.
    """

    goal: str = "maximize"
    quantile: float = 0.1
    pool_share: float = 0.2
    strict: bool = True

    @property
    def sign(self) -> float:
        """+1 where high values are wanted, -1 where low ones are."""
        return 1.0 if self.goal == "maximize" else -1.0

    def holdout(self, y: FloatArray, formula: npt.NDArray[np.object_], seed: int) -> Holdout:
        """The holdout of a seed."""
        # Of one formula alone there is nothing to keep apart but the rows.
        groups = kept_together(formula) if self.strict else None
        return value_holdout(
            y, goal=self.goal, quantile=self.quantile, pool_share=self.pool_share, seed=seed, groups=groups
        )

    def inner(self, y: FloatArray, formula: npt.NDArray[np.object_], outer: Holdout, seed: int) -> Holdout:
        """The same question within the training part of a holdout; its row numbers are those of all rows."""
        found = self.holdout(y[outer.train], formula[outer.train], seed)
        train, pool, dropped = (outer.train[rows] for rows in (found.train, found.pool, found.dropped))
        return Holdout(train, pool, found.hidden, dropped, found.what)


def answer(
    head: Head, rows: Rows, y: FloatArray, design: Design, seed: int, *, with_inner: bool = False
) -> dict[str, Any]:
    """What a head says of the pool of one holdout.

    Args:
        head: unfitted.
        rows: n structures.
        y: (n,) on the scale the model works on (see `transforms`).
        design: of the holdout.
        seed: of the holdout and of the head.
        with_inner: also what it says in the inner holdout, for the choice between heads; that trains it once more.

    Returns:
        JSON: mean and std of the pool in its order, "inner" likewise or None, seconds.
    """
    started = time.perf_counter()
    outer = design.holdout(y, rows.formula, seed)
    found = ask(head, rows, y, outer, seed)
    inner = None
    if with_inner:
        inner = _json(ask(head, rows, y, design.inner(y, rows.formula, outer, seed), seed))
    return {**_json(found), "inner": inner, "seconds": time.perf_counter() - started}


def ask(head: Head, rows: Rows, y: FloatArray, split: Holdout, seed: int) -> Estimate:
    """Train a head on the training part of a holdout, and on nothing else; ask it about the pool."""
    return head.fit(rows[split.train], y[split.train], seed)(rows[split.pool])


def _json(estimate: Estimate) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": [float(x) for x in estimate.mean], "std": [float(x) for x in estimate.std]}
    if estimate.in_domain is not None:
        found["in_domain"] = [bool(x) for x in estimate.in_domain]
    return found


def read_estimate(part: Mapping[str, Any]) -> Estimate:
    """The estimate in an answer, or in its inner part."""
    inside = np.array(part["in_domain"], dtype=bool) if "in_domain" in part else None
    return Estimate(np.array(part["mean"], dtype=np.float64), np.array(part["std"], dtype=np.float64), inside)


def scored(
    answers: Mapping[str, Mapping[str, Any]],
    y: FloatArray,
    formula: npt.NDArray[np.object_],
    design: Design,
    seed: int,
    choices: Mapping[str, Sequence[str]] | None = None,
    kappa: float = 1.0,
) -> dict[str, Any]:
    """Scores of every head on one holdout, of the references, and of the head chosen inside the training part.

    Args:
        answers: head -> its `answer` for this seed.
        y: (n,) all values.
        formula: (n,) all reduced formulas.
        design: of the holdout.
        seed: of the holdout.
        choices: name -> heads whose average it is (of one head: itself), between which the training part chooses by
            its inner holdout; those of more than one head get a row of their own. None: no choice.
        kappa: of the acquisition ucb.

    Returns:
        JSON: sizes, boundary, the hidden values and what each head said of them (times -1 where low values are wanted),
        for each head its scores and hits, and which was chosen.
    """
    split = design.holdout(y, formula, seed)
    estimates = {name: read_estimate(found) for name, found in answers.items()}
    for name, parts in (choices or {}).items():
        if name not in estimates:
            estimates[name] = average([estimates[part] for part in parts])
    asked = Asked(y[split.pool], split.hidden, design.sign, _boundary(y, split, design), kappa)
    heads: dict[str, dict[str, Any]] = {name: score(asked, found) for name, found in estimates.items()}
    for name, found in estimates.items():
        heads[name]["hidden_predicted"] = (design.sign * found.mean[split.hidden]).tolist()
    chosen, inside = None, {}
    if choices:
        inner = design.inner(y, formula, split, seed)
        question = Asked(y[inner.pool], inner.hidden, design.sign, _boundary(y, inner, design), kappa)
        for name, parts in choices.items():
            inside[name] = score(question, average([read_estimate(answers[part]["inner"]) for part in parts]))
        head, kind = best_choice(inside)
        chosen = {"head": head, "acquisition": kind}
        heads = {CHOSEN: score(asked, estimates[head], kind), **heads}
    heads["random"] = ranking_scores(split.hidden, np.random.default_rng(seed).random(len(split.pool)))
    heads["oracle"] = ranking_scores(split.hidden, design.sign * y[split.pool])
    return {
        "seed": seed,
        **split.sizes,
        "prevalence": float(split.hidden.mean()),
        "boundary": asked.boundary,
        "hidden_values": (design.sign * y[split.pool][split.hidden]).tolist(),
        "chosen": chosen,
        "inner": {name: {k: v for k, v in found.items() if k != "hits"} for name, found in inside.items()},
        "heads": heads,
    }


def _boundary(y: FloatArray, split: Holdout, design: Design) -> float:
    known = y[split.train]
    return float(known.max() if design.goal == "maximize" else known.min())


@dataclass(frozen=True)
class Asked:
    """A pool with its answer, to score heads by.

    Attributes:
        y: (n,) true values.
        hidden: (n,) bool, the values outside the training range.
        sign: +1 where high values are wanted, -1 where low ones are.
        boundary: the best value that was trained on.
        kappa: of the acquisition ucb.
    """

    y: FloatArray
    hidden: Mask
    sign: float = 1.0
    boundary: float = float("nan")
    kappa: float = 1.0

    def utility(self, found: Estimate, kind: str) -> FloatArray:
        """(n,) what the pool is ranked by."""
        return acquisition(
            self.sign * found.mean, found.std, kind=kind, kappa=self.kappa, best=self.sign * self.boundary
        )


def best_choice(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """The head and acquisition to use, from the scores of one holdout; see `preferred`."""
    table = {name: found["acquisition"] for name, found in scores.items()}
    return preferred(table, max(found["n_hidden"] for found in scores.values()))


def preferred(table: Mapping[str, Mapping[str, float]], n_hidden: int) -> tuple[str, str]:
    """The first head, with its first acquisition, of those that find as many of the hidden as the best, noise aside.

    Noise is one standard error of the best R-precision as a share of n_hidden rows (the one-standard-error rule of
    Breiman et al. 1984): what leads by less was lucky with a few rows. An acquisition has to lead the prediction by
    two: what it makes of deviations holds least for candidates unlike the training data. In the questions of
    benchmarks/trust.py, of which docs/trust.md has the figures, three of three that led by one found no more there, one
    of them half.

    Args:
        table: head -> acquisition -> R-precision, in the order of preference.
        n_hidden: rows that were hidden.

    Returns:
        Head and acquisition.
    """

    def near(shares: Mapping[str, float], errors: float) -> list[str]:
        best = max(shares.values())
        noise = errors * float(np.sqrt(best * (1.0 - best) / max(n_hidden, 1)))
        return [name for name, found in shares.items() if found >= best - noise - 1e-9]

    kinds = {name: near(found, 2.0)[0] for name, found in table.items()}
    head = near({name: table[name][kind] for name, kind in kinds.items()}, 1.0)[0]
    return head, kinds[head]


def pick(table: Mapping[str, Mapping[str, float]], errors: Mapping[str, float], n_hidden: int) -> tuple[str, str]:
    """The head with the smallest error outside of those that find as many of the hidden as the best, noise aside.

    Noise is one standard error of the best R-precision as a share of n_hidden rows (the one-standard-error rule of
    Breiman et al. 1984): a head that errs less is worth more than one that was lucky with a few rows. It is ranked by
    the acquisition that finds most; of equals by the first of `KINDS`.

    Args:
        table: head -> acquisition -> R-precision; the order settles ties.
        errors: head -> mean absolute error outside.
        n_hidden: rows that were hidden.

    Returns:
        Head and acquisition.
    """
    most = {name: max(found.values()) for name, found in table.items()}
    best = max(most.values())
    noise = float(np.sqrt(best * (1.0 - best) / max(n_hidden, 1)))
    near = [name for name in table if most[name] >= best - noise - 1e-9]
    head = min(near, key=lambda name: errors[name])
    return head, max(table[head], key=lambda kind: table[head][kind])


def score(asked: Asked, found: Estimate, kind: str = MEAN.name) -> dict[str, Any]:
    """Scores of one head on one pool; None where one is not defined, such as the correlation of one value.

    "outside" and "inside" are the hidden values, beyond the training range, and the others; "unlike" the rows of either
    that lie outside the domain of the head, how many and what its intervals are worth there.

    Args:
        asked: the pool.
        found: predictions for it.
        kind: acquisition by which the pool is ranked.
    """
    y, hidden, sign, mean, std = asked.y, asked.hidden, asked.sign, found.mean, found.std
    scores = {
        "acceleration": acceleration(sign * y, sign * mean, sign * asked.boundary),
        "mae_outside": mean_absolute_error(y[hidden], mean[hidden]),
        "mae_inside": mean_absolute_error(y[~hidden], mean[~hidden]),
        "bias_outside": bias(y[hidden], mean[hidden]),
        "spearman_outside": spearman(y[hidden], mean[hidden]),
        "coverage_outside": gaussian_coverage(y[hidden], mean[hidden], std[hidden], COVERAGE),
        "coverage_inside": gaussian_coverage(y[~hidden], mean[~hidden], std[~hidden], COVERAGE),
        "scatter_outside": scatter_ratio(y[hidden], mean[hidden], std[hidden]),
        "width_outside": gaussian_width(std[hidden], COVERAGE),
        "width_inside": gaussian_width(std[~hidden], COVERAGE),
    }
    if found.in_domain is not None:
        unlike = ~found.in_domain
        scores |= {
            "unlike": float(unlike.sum()),
            "coverage_unlike": gaussian_coverage(y[unlike], mean[unlike], std[unlike], COVERAGE),
            "bias_unlike": bias(y[unlike], mean[unlike]),
            "width_unlike": gaussian_width(std[unlike], COVERAGE),
        }
    by_kind = {k: r_precision(hidden, asked.utility(found, k)) for k in KINDS}
    defined = {name: value if np.isfinite(value) else None for name, value in scores.items()}
    return {**ranking_scores(hidden, asked.utility(found, kind)), **defined, "acquisition": by_kind}


def ranking_scores(hidden: Mask, utility: FloatArray) -> dict[str, Any]:
    """How well a pool is ranked: "n_hidden", "r_precision", "enrichment", "area" and "hits".

    Args:
        hidden: (n,) bool.
        utility: (n,) that it is ranked by, higher is better.
    """
    k = int(hidden.sum())
    area = area_under_hits(hidden, utility)
    return {
        "n_hidden": k,
        "r_precision": r_precision(hidden, utility),
        "enrichment": enrichment(hidden, utility, k),
        "area": area if np.isfinite(area) else None,
        "hits": hits(hidden, utility).tolist(),
    }


def summarize(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each head: the mean of every score over the seeds that define it, with its bootstrap interval.

    A score that no seed defines is None, so is the interval of fewer than two values. Heads may be missing from some
    seeds; "seeds" says how many a row has. What blind picking finds is known without drawing, so the row "random" has
    its expectation: of H hidden among N the first n picks hold n H / N.
    """
    names = list(dict.fromkeys(name for run in runs for name in run["heads"]))
    rows = []
    for head in names:
        scores = [run["heads"][head] for run in runs if head in run["heads"]]
        row: dict[str, Any] = {"head": head, "seeds": len(scores), "intervals": {}}
        for name in CLASS_SCORES if "what" in runs[0] else SCORES:
            values = [s[name] for s in scores if s.get(name) is not None]
            row[name] = float(np.mean(values)) if values else None
            low, high = bootstrap_interval(values)
            row["intervals"][name] = [low, high] if np.isfinite(low) else None
        spread = [s["r_precision"] for s in scores]
        row["r_precision_se"] = float(np.std(spread, ddof=1) / np.sqrt(len(spread))) if len(spread) > 1 else None
        row["hits"] = np.mean([s["hits"] for s in scores], axis=0).tolist()
        kinds = scores[0].get("acquisition") or {}
        row["acquisition"] = {kind: float(np.mean([s["acquisition"][kind] for s in scores])) for kind in kinds}
        if head == "random":
            row |= _blind([run for run in runs if head in run["heads"]], list(row["intervals"]))
        rows.append(row)
    return rows


def _blind(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Scores and hits that blind picking comes to on average; none where runs don't say how many they hid.

    Args:
        runs: that have the row.
        names: of scores; what is known exactly has no interval.
    """
    if not all(run.get("n_pool") and "n_hidden" in run for run in runs):
        return {}
    share = float(np.mean([run["n_hidden"] / run["n_pool"] for run in runs]))
    picks = min(len(run["heads"]["random"]["hits"]) for run in runs)
    exact = {"r_precision": share, "enrichment": 1.0, "area": 0.0, "r_precision_se": None}
    return {**exact, "intervals": dict.fromkeys(names), "hits": (share * np.arange(1, picks + 1)).tolist()}


def lead(runs: Sequence[Mapping[str, Any]], head: str, rival: str, name: str = "r_precision") -> dict[str, Any] | None:
    """How far a head leads a rival in a score, seed by seed, with its bootstrap interval; None without common seeds."""
    pairs = [(run["heads"][head][name], run["heads"][rival].get(name)) for run in runs if rival in run["heads"]]
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    if not gaps:
        return None
    low, high = bootstrap_interval(gaps)
    return {"mean": float(np.mean(gaps)), "interval": [low, high] if np.isfinite(low) else None, "seeds": len(gaps)}
