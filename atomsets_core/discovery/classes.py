"""Simulated discovery of a class: hide it where chemistry is of one kind, and see which model finds it there.

A class has no best values that could be hidden. What a search for it meets is chemistry that nobody looked at: so the
members of the class nearest to one place of composition space are hidden, and everything around it, of the class or
not, is left out of the training. To leave the others in would teach that what lies there is not wanted. Only formulas
are looked at, so that rows without structures are asked in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from atomsets_core.discovery.acquisition import acquisition
from atomsets_core.discovery.choice import CLASS_KINDS
from atomsets_core.discovery.groups import clusters
from atomsets_core.discovery.heads import Estimate
from atomsets_core.discovery.holdouts import FEWEST, Holdout
from atomsets_core.discovery.simulate import Design, ranking_scores, read_estimate, scored
from atomsets_core.models import calibration_error, composition_statistics, formula_groups

FloatArray = npt.NDArray[np.float64]

FEWEST_HIDDEN = 5
"""Rows of the class that are hidden at least: of fewer a share says nothing."""

EDGE = 1e-7
"""Probabilities in a log loss stay so far from 0 and 1."""


@dataclass(frozen=True)
class ClassDesign(Design):
    """How a simulated discovery hides a class.

    Attributes:
        goal: "class".
        quantile: share of the class that is hidden.
        pool_share: share of all other rows among which the hidden are to be found; those of the same chemistry first.
        strict: plays no part: a formula is always on one side.
    """

    goal: str = "class"

    @property
    def sign(self) -> float:
        """+1: high probabilities are wanted."""
        return 1.0

    def holdout(self, y: FloatArray, formula: npt.NDArray[np.object_], seed: int) -> Holdout:
        """The holdout of a seed; every seed hides another chemistry, as many rows in a pool of the same size.

        Args:
            y: (n,) 1 for rows of the class, 0 for the others.
            formula: (n,) reduced formulas.
            seed: of the place in composition space, and of the rows from elsewhere.

        Raises:
            ValueError: too few rows, of the class or of others, to hide some and learn from the rest.
        """
        wanted, others = np.flatnonzero(y == 1.0), np.flatnonzero(y != 1.0)
        k, m = max(round(self.quantile * len(wanted)), FEWEST_HIDDEN), int(self.pool_share * len(others))
        if len(wanted) < k + FEWEST or len(others) < m + FEWEST or m < 1:
            raise ValueError(
                f"{len(wanted)} rows of the class and {len(others)} others are too few to hide {k} of the class among "
                f"{m} others and to learn from the rest"
            )
        distance, centre = self._distances(wanted, formula, seed)
        order = wanted[np.argsort(distance[wanted], kind="stable")]
        around = distance <= distance[order[k - 1]]
        random = np.random.default_rng(seed)
        near = random.permutation(others[around[others]])[:m]
        far = random.permutation(others[~around[others]])[: m - len(near)]
        hidden, pool = order[:k], random.permutation(np.concatenate([order[:k], near, far]))
        group = formula_groups(formula)
        train = np.flatnonzero(~around & ~np.isin(group, group[pool]))
        for kind, what in ((1.0, "of the class"), (0.0, "that are not of it")):
            rows = train[y[train] == kind]
            if len(rows) < FEWEST or len(np.unique(group[rows])) < 2:
                raise ValueError(
                    f"{len(rows)} rows {what} are left to learn from when those around {centre} are hidden"
                )
        dropped = np.setdiff1d(np.arange(len(y)), np.concatenate([train, pool]))
        what = f"the {k} members of the class nearest to {centre} in composition"
        return Holdout(train, pool, np.isin(pool, hidden), dropped, what)

    def _distances(
        self, wanted: npt.NDArray[np.int64], formula: npt.NDArray[np.object_], seed: int
    ) -> tuple[FloatArray, str]:
        """(n,) distances of all rows to a place where members of the class are, and the formula nearest to it."""
        unique, row = np.unique(formula.astype(str), return_inverse=True)
        vectors = composition_statistics(unique.tolist())[row.reshape(-1)]
        scale = vectors.std(axis=0)
        vectors = (vectors - vectors.mean(axis=0)) / np.where(scale > 1e-6, scale, 1.0)
        places = min(round(1 / self.quantile), len(np.unique(row[wanted])))
        # The places are the clusters of the class, the largest first; more seeds than these cut it anew.
        label = clusters(vectors[wanted], places, seed // places) if places > 1 else np.zeros(len(wanted), np.int64)
        centre = vectors[wanted[label == seed % places]].mean(axis=0)
        distance = np.linalg.norm(vectors - centre, axis=1)
        return distance, str(formula[wanted[np.argmin(distance[wanted])]])


def learnable(y: FloatArray, formula: npt.NDArray[np.object_]) -> bool:
    """Whether (n,) rows of a class, 1, and others, 0, of (n,) formulas are enough for folds that hold both."""
    return all(len(set(formula[y == kind].astype(str))) > 1 for kind in (0.0, 1.0))


def design_of(options: Mapping[str, Any]) -> Design:
    """The design of a campaign's simulated discovery, from its goal, quantile and pool_share."""
    if options["goal"] == "class":
        return ClassDesign(quantile=options["quantile"], pool_share=options["pool_share"])
    return Design(options["goal"], options["quantile"], options["pool_share"])


def scored_by(
    design: Design,
    answers: Mapping[str, Mapping[str, Any]],
    y: FloatArray,
    formula: npt.NDArray[np.object_],
    seed: int,
    kappa: float,
) -> dict[str, Any]:
    """Scores of every head on one holdout and of the references, of numbers or of a class; see `simulate.scored`.

    Args:
        design: of the holdout.
        answers: head -> its `answer` for this seed.
        y: (n,) all labels; of a class 1 for its rows and 0 for the others.
        formula: (n,) all reduced formulas.
        seed: of the holdout.
        kappa: of the acquisition ucb.

    Returns:
        JSON; of a class sizes, "what" was hidden, and for each head its scores: "r_precision", "enrichment", "area",
        "hits", "acquisition", and of the probabilities of the pool "roc_auc", "brier", "log_loss",
        "calibration_error", "probability_hidden" and "probability_others" (their means).
    """
    if not isinstance(design, ClassDesign):
        return scored(answers, y, formula, design, seed, kappa=kappa)
    split = design.holdout(y, formula, seed)
    heads = {name: _scores(split.hidden, read_estimate(found), kappa) for name, found in answers.items()}
    heads["random"] = ranking_scores(split.hidden, np.random.default_rng(seed).random(len(split.pool)))
    heads["oracle"] = ranking_scores(split.hidden, split.hidden.astype(np.float64))
    return {
        "seed": seed,
        "what": split.what,
        **split.sizes,
        "prevalence": float(split.hidden.mean()),
        "heads": heads,
    }


def _scores(hidden: npt.NDArray[np.bool_], found: Estimate, kappa: float) -> dict[str, Any]:
    p = np.clip(found.mean, 0.0, 1.0)
    label = hidden.astype(np.int64)
    inside = np.clip(p, EDGE, 1.0 - EDGE)
    by_kind = {
        kind: ranking_scores(hidden, acquisition(p, found.std, kind=kind, kappa=kappa))["r_precision"]
        for kind in CLASS_KINDS
    }
    return {
        **ranking_scores(hidden, p),
        "roc_auc": float(roc_auc_score(label, p)),
        "brier": float(np.mean((p - label) ** 2)),
        "log_loss": float(-np.mean(np.log(np.where(hidden, inside, 1.0 - inside)))),
        "calibration_error": calibration_error(np.stack([1.0 - p, p], axis=1), label),
        "probability_hidden": float(p[hidden].mean()),
        "probability_others": float(p[~hidden].mean()),
        "acquisition": by_kind,
    }
