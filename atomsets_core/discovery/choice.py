"""Which head and acquisition a campaign uses: those that did best where the answer is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atomsets_core.discovery.acquisition import KINDS, MEAN, UCB
from atomsets_core.discovery.heads import AtomSetsHead, Head
from atomsets_core.discovery.simulate import preferred
from atomsets_core.models import CLASS_HEADS, HEADS, AtomSetsRegressor, reach_beyond

OWN = "AtomSets"
LINEAR = "AtomSets, linear readout"
MIXTURE = "mixture"

BY_COST = (
    "ridge, composition",
    "ridge",
    "Gaussian process",
    "random forest",
    "random forest, composition",
    OWN,
    "AtomSets + Gaussian process",
    MIXTURE,
    LINEAR,
)
"""The heads in the order in which they are tried, the cheapest first; of a mean its parts before."""

PREFERRED = (
    OWN,
    MIXTURE,
    LINEAR,
    "AtomSets + Gaussian process",
    "Gaussian process",
    "ridge",
    "ridge, composition",
    "random forest, composition",
    "random forest",
)
"""All heads, the preferred first: the first is used where nothing is compared. The mixture comes second: where AtomSets
is lost, it loses least; its intervals hold less often than those of AtomSets (docs/trust.md)."""

CLASS_BY_COST = (
    "logistic regression, composition",
    "logistic regression",
    "random forest, composition",
    OWN,
    MIXTURE,
)
"""The heads of classes in the order in which they are tried, as `BY_COST`."""

CLASS_PREFERRED = (
    OWN,
    MIXTURE,
    "logistic regression",
    "logistic regression, composition",
    "random forest, composition",
)
"""All heads of classes, the preferred first, as `PREFERRED`."""

CLASS_KINDS = (MEAN.name, UCB.name)
"""Acquisitions of a probability: the others ask what lies beyond the best known value, and 1 is known."""


def recipes(parameters: Mapping[str, Any], heads: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The models a campaign chooses between, the preferred first: name -> parameters of `models.regressor_of`.

    All see the features that the parameters name. A recipe on those of another parent would be one entry more, whose
    parameters name that one's.

    The linear readout has no hidden layer after pooling: its prediction is a mean of what the sites contribute. Inside
    the training range that is a little worse, beyond it often better.

    Args:
        parameters: of `AtomSetsRegressor`, as the campaign describes it, with task = "class" where labels are classes.
        heads: names of those that take part, the preferred first; all without.

    Raises:
        ValueError: there is no such head.
    """
    usual: tuple[str, ...] = PREFERRED
    if parameters.get("task") == "class":
        usual, every = CLASS_PREFERRED, {name: {**parameters, "head": name} for name in CLASS_HEADS}
    else:
        every = {
            OWN: dict(parameters),
            LINEAR: {**parameters, "rho": []},
            **{name: {**parameters, "head": name} for name in HEADS},
        }
    for name in heads:
        if name not in every:
            raise ValueError(f"no head {name!r}; there are {', '.join(usual)}")
    return {name: every[name] for name in heads or usual}


def campaign_heads(parameters: Mapping[str, Any], heads: Sequence[str] = ()) -> dict[str, Head]:
    """The heads of one simulated discovery of a campaign, the cheapest first; for one holdout only.

    They lend each other what they learned: a mean costs no more than its parts. See `recipes` for the arguments.
    """
    found, lent = recipes(parameters, heads), list[AtomSetsRegressor]()
    order = CLASS_BY_COST if parameters.get("task") == "class" else BY_COST
    return {name: AtomSetsHead(found[name], lent) for name in order if name in found}


def choose(
    runs: Sequence[Mapping[str, Any]],
    heads: Sequence[str],
    kinds: Sequence[str] = KINDS,
    coverage: float = 0.9,
) -> dict[str, Any] | None:
    """The head and acquisition to use, from means over the repeats; see `simulate.preferred`.

    Args:
        runs: of `simulate.scored`.
        heads: that may be chosen, the preferred first; those that some run had no time for are passed over.
        kinds: acquisitions that may be chosen, the preferred first.
        coverage: of the intervals beyond the range of values.

    Returns:
        JSON: "head", "acquisition", "beyond" (see `beyond_range`), "r_precision" (by that acquisition), "prevalence",
        "chance" (what blind picking stays below 39 times in 40), "better_than_random", "compared": head -> acquisition
        -> mean R-precision, and "lost" (see `defeat`). None without runs.
    """
    if not runs:
        return None
    tried = [name for name in heads if all(name in run["heads"] for run in runs)]
    table = _means(runs, tried, kinds)
    head, kind = preferred(table, _asked_for(runs))
    lost = defeat(runs, head, kind, kinds)
    return {
        "head": head,
        "acquisition": kind,
        "beyond": beyond_range(runs, head, coverage),
        "compared": table,
        "lost": lost,
        **verdict(runs, table[head][kind]),
    }


def _asked_for(runs: Sequence[Mapping[str, Any]]) -> int:
    """Hidden rows that all repeats together asked for: the same each time, or others where a class was hidden."""
    n = int(runs[0]["n_hidden"])
    return n * len({run["what"] for run in runs}) if "what" in runs[0] else n


def beyond_range(runs: Sequence[Mapping[str, Any]], head: str, coverage: float) -> float | None:
    """How far above its predictions a value beyond the training range may lie, by what was hidden from a head.

    Args:
        runs: of `simulate.scored`.
        head: that predicted.
        coverage: share of such values meant to stay below.

    Returns:
        On the scale the model works on, see `models.reach_beyond`; None where runs of older campaigns don't tell.
    """
    told = [run for run in runs if "hidden_values" in run and "hidden_predicted" in run["heads"].get(head, {})]
    if not told:
        return None
    # Boundaries are of the values as they are; hidden values and predictions point in the wanted direction.
    values = [np.array(run["hidden_values"]) for run in told]
    predicted = [np.array(run["heads"][head]["hidden_predicted"]) for run in told]
    excess = [value - value.min() for value in values]
    share = told[0]["n_hidden"] / (told[0]["n_train"] + told[0]["n_pool"] + told[0]["n_dropped"])
    together = np.concatenate(predicted)
    found = reach_beyond(np.concatenate(values) - together, np.concatenate(excess), together, share, coverage)
    return found if np.isfinite(found) else None


def _means(
    runs: Sequence[Mapping[str, Any]], heads: Sequence[str], kinds: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Head -> acquisition -> mean R-precision."""
    return {
        name: {kind: float(np.mean([run["heads"][name]["acquisition"][kind] for run in runs])) for kind in kinds}
        for name in heads
    }


def defeat(
    runs: Sequence[Mapping[str, Any]], head: str, kind: str, kinds: Sequence[str] = KINDS
) -> dict[str, Any] | None:
    """To whom AtomSets lost in finding the hidden best, and by how much; None where it didn't, or wasn't tried.

    Where another head is used, that is the winner, if it finds more; else it is whoever finds most.

    Args:
        runs: of `simulate.scored`.
        head: that is used.
        kind: acquisition it is used with.
        kinds: acquisitions that may be used; of every other head the best counts.

    Returns:
        JSON: "to" and "r_precision" of the winner, "own" of AtomSets (with either readout, the better), "by" (the
        difference), "used" (whether the winner is the head that is used).
    """
    every = [
        name for name in dict.fromkeys((*PREFERRED, *CLASS_PREFERRED)) if all(name in run["heads"] for run in runs)
    ]
    table = _means(runs, every, kinds)
    most = {name: max(found.values()) for name, found in table.items()}
    if head in table:
        most[head] = table[head][kind]
    own = [name for name in (OWN, LINEAR) if name in most]
    others = [name for name in most if name not in (OWN, LINEAR)]
    if not own or not others:
        return None
    mine = max(most[name] for name in own)
    winner = head if head in others and most[head] > mine else max(others, key=lambda name: most[name])
    if most[winner] <= mine:
        return None
    return {
        "to": winner,
        "r_precision": most[winner],
        "own": mine,
        "by": most[winner] - mine,
        "used": winner == head,
    }


def verdict(runs: Sequence[Mapping[str, Any]], r_precision: float) -> dict[str, Any]:
    """Whether an R-precision is better than chance.

    Blind picking finds a hypergeometric number of the hidden. Repeats that hide the same rows are counted as one; those
    of a class hide others each time.
    """
    hidden, pool = runs[0]["n_hidden"], runs[0]["n_pool"]
    prevalence = hidden / pool
    deviation = np.sqrt(prevalence * (1 - prevalence) / _asked_for(runs) * (pool - hidden) / max(pool - 1, 1))
    chance = float(min(prevalence + 1.96 * deviation, 1.0))
    return {
        "r_precision": r_precision,
        "prevalence": prevalence,
        "chance": chance,
        "better_than_random": bool(r_precision > chance),
    }
