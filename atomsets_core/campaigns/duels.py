"""Champion against challenger: on folds that neither saw, and on a search for values beyond what either knew.

The champion keeps its place unless the challenger is better in both. On the frozen folds every labelled row of today is
predicted by the members of each model that left its fold out; better means a smaller mean error (of the probability of
a class: a smaller log loss), beyond what drawing the formulas again gives by chance. In the simulated discovery both
are asked the same question on today's labels, the champion's recipe trained on those rows of the training part that the
champion knew, with the values it knew; better means what it means wherever models are chosen here (`simulate.pick`): as
many found, noise aside, with a smaller error beyond the training range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.discovery import pick
from atomsets_core.models import formula_groups

CHAMPION, CHALLENGER = "champion", "challenger"
CONFIDENCE = 0.9
"""Share of the resamples in which the challenger must have the smaller error."""
RESAMPLES = 2000

EDGE = 1e-7
"""Probabilities in a log loss stay so far from 0 and 1."""

FloatArray = npt.NDArray[np.float64]


def _log_loss(truth: FloatArray, probability: FloatArray) -> FloatArray:
    """(n,) minus the logarithm of the probability of what was true."""
    p = np.clip(probability, EDGE, 1.0 - EDGE)
    return -np.log(np.where(truth > 0.5, p, 1.0 - p))


LOSSES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "mae": lambda truth, said: np.abs(said - truth),
    "log_loss": _log_loss,
}
"""Name -> loss of each row, from its value and its prediction."""


def on_folds(
    truth: FloatArray,
    champion: FloatArray,
    challenger: FloatArray,
    groups: Sequence[str],
    seed: int = 0,
    loss: str = "mae",
) -> dict[str, Any]:
    """Who errs less on held-out rows, on the scale of the model.

    Args:
        truth: (n,) values.
        champion: (n,) its predictions.
        challenger: (n,) its predictions.
        groups: (n,) reduced formulas; the rows of one are drawn together.
        seed: of the draws.
        loss: "mae", or "log_loss" of predictions that are probabilities of values that are 1 or 0.

    Returns:
        JSON: n, mae_champion and mae_challenger (or log_loss_champion and log_loss_challenger), share (of the
        resamples in which the challenger errs less), better.
    """
    losses = {CHAMPION: LOSSES[loss](truth, champion), CHALLENGER: LOSSES[loss](truth, challenger)}
    gain = losses[CHAMPION] - losses[CHALLENGER]
    share = _share_above_zero(gain, groups, seed)
    return {
        "n": len(truth),
        **{f"{loss}_{who}": float(np.mean(found)) for who, found in losses.items()},
        "share": share,
        "better": bool(gain.mean() > 0 and share >= CONFIDENCE),
    }


def _share_above_zero(gain: FloatArray, groups: Sequence[str], seed: int) -> float:
    """Share of bootstrap resamples of groups whose total gain is above 0."""
    total = np.bincount(formula_groups(groups), weights=gain)
    random, above = np.random.default_rng(seed), 0
    for _ in range(RESAMPLES):
        above += int(total[random.integers(0, len(total), len(total))].sum() > 0)
    return above / RESAMPLES


def on_discovery(
    champion: Sequence[Mapping[str, Any]],
    challenger: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, str],
    n_hidden: int,
) -> dict[str, Any]:
    """Who finds more of what is beyond the training range.

    Args:
        champion: its scores, one for each repeat (`simulate.score`).
        challenger: its scores, of the same repeats.
        kinds: CHAMPION and CHALLENGER -> the acquisition each ranks by.
        n_hidden: values that were hidden.

    Returns:
        JSON: repeats, r_precision and mae_outside (of a class brier) of both, better.
    """
    runs = {CHAMPION: champion, CHALLENGER: challenger}
    table = {who: {kinds[who]: _mean(found, kinds[who])} for who, found in runs.items()}
    error = "brier" if "brier" in challenger[0] else "mae_outside"
    errors = {who: float(np.mean([run[error] for run in found])) for who, found in runs.items()}
    winner, _ = pick(table, errors, n_hidden)
    return {
        "repeats": len(champion),
        "n_hidden": n_hidden,
        **{f"r_precision_{who}": table[who][kinds[who]] for who in runs},
        **{f"{error}_{who}": errors[who] for who in runs},
        "better": winner == CHALLENGER,
    }


def _mean(runs: Sequence[Mapping[str, Any]], kind: str) -> float:
    return float(np.mean([run["acquisition"][kind] for run in runs]))


NO_DISCOVERY = "the campaign has no simulated discovery to compare"
KNEW_TOO_LITTLE = "the champion knew too few of today's values to be asked in a simulated discovery"


def verdict(
    folds: Mapping[str, Any], discovery: Mapping[str, Any] | None, without: str = NO_DISCOVERY
) -> dict[str, Any]:
    """Whether the challenger replaces the champion, and why, in a sentence.

    Args:
        folds: of `on_folds`.
        discovery: of `on_discovery`; None where there is none: then the folds decide.
        without: why there is none.
    """
    of_class = "log_loss_champion" in folds
    loss, outside = ("log_loss", "brier") if of_class else ("mae", "mae_outside")
    verb, where, hidden = (
        ("has a log loss of", "a Brier score", "class") if of_class else ("errs by", "an error outside", "best")
    )
    said = [
        f"on the frozen folds ({folds['n']:,} rows) it {verb} {folds[f'{loss}_challenger']:.4g}, the champion "
        f"{'' if of_class else 'by '}{folds[f'{loss}_champion']:.4g}, and errs less in {folds['share']:.0%} of the "
        "resamples"
    ]
    if discovery is None:
        said.append(without)
    else:
        said.append(
            f"in the simulated discovery it finds {discovery['r_precision_challenger']:.3f} of the hidden {hidden}, "
            f"the champion {discovery['r_precision_champion']:.3f}, with {where} of "
            f"{discovery[f'{outside}_challenger']:.4g} against {discovery[f'{outside}_champion']:.4g}"
        )
    lost = [name for name, part in (("folds", folds), ("discovery", discovery)) if part and not part["better"]]
    names = {"folds": "the frozen folds", "discovery": "the simulated discovery"}
    outcome = "better in both" if discovery is not None else "better"
    if lost:
        outcome = f"not better on {' and '.join(names[name] for name in lost)}"
    return {"promote": not lost, "why": f"{outcome}: {'; '.join(said)}"}
