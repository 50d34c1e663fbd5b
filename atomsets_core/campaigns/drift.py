"""Whether candidates that came in resemble those that were there.

Newcomers are compared with the others in the same run, so that the same model looked at both and a change of the model
is never taken for one of the candidates. Compared are the predictions, the distance to the training structures in the
space of pooled features, the number of atoms, and the elements.

The population stability index is the symmetrised relative entropy of two histograms. Under no shift, n and m draws in B
bins give on average (B - 1)(1/n + 1/m), distributed like chi-square (Yurdakul and Naranjo, J. Risk Model Validation 14,
2020): below that no index means anything, however large.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import chi2, ks_2samp

FEW = 20
"""Newcomers of whom a distribution says something."""
BINS = 10
NOTABLE = 0.1
"""Index below which a shift is small, by convention; above 0.25 it is large."""
LEVEL = 0.01
"""Chance of a shift being reported where there is none."""

FloatArray = npt.NDArray[np.float64]
ELEMENT = re.compile(r"[A-Z][a-z]?")


def candidate_drift(ranking: pa.Table, new: npt.NDArray[np.bool_], on_scale: Any = np.asarray) -> dict[str, Any]:
    """How newcomers differ from the other candidates.

    Args:
        ranking: columns predicted, distance, n_atoms (not of formulas), in_domain and formula of all candidates.
        new: (n,) which are newcomers.
        on_scale: from the unit of the target to the scale of the model.

    Returns:
        JSON: n_new, n_others, outside_domain (shares of all, new, others; None of none), "quantities" (name -> psi,
        chance, ks, p, shifted) and "elements" (likewise, and those that gained most and that were never there); both
        None with fewer than `FEW` newcomers or others.
    """
    new = np.asarray(new, dtype=bool)
    outside = ~ranking["in_domain"].to_numpy().astype(bool)
    shares = {"all": outside, "new": outside[new], "others": outside[~new]}
    found: dict[str, Any] = {
        "n_new": int(new.sum()),
        "n_others": int((~new).sum()),
        "outside_domain": {name: float(part.mean()) if len(part) else None for name, part in shares.items()},
        "quantities": None,
        "elements": None,
    }
    if min(found["n_new"], found["n_others"]) < FEW:
        return found
    columns = {
        "prediction": on_scale(ranking["predicted"].to_numpy()),
        "distance to the training data": ranking["distance"].to_numpy(),
    }
    if "n_atoms" in ranking.column_names:
        columns["atoms in the cell"] = ranking["n_atoms"].to_numpy().astype(np.float64)
    found["quantities"] = {name: shift(values[~new], values[new]) for name, values in columns.items()}
    names = ranking["formula"]
    found["elements"] = element_shift(names.filter(pa.array(~new)), names.filter(pa.array(new)))
    return found


def shift(before: FloatArray, now: FloatArray) -> dict[str, Any]:
    """Stability index in deciles of `before`, what chance gives, and the test of Kolmogorov and Smirnov.

    Returns:
        JSON: psi, chance (what it stays below 99 times in 100 where nothing shifted), ks, p, and shifted: the index is
        notable and beyond chance.
    """
    edges = np.unique(np.quantile(before, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, part, side="right"), minlength=len(edges) + 1) for part in (before, now)
    ]
    test = ks_2samp(before, now, method="asymp")
    return {**_stability(*counts), "ks": float(test.statistic), "p": float(test.pvalue)}


def stability_index(before: npt.NDArray[np.integer[Any]], now: npt.NDArray[np.integer[Any]]) -> float:
    """Sum over bins of (q - p) ln(q / p), p and q the shares of two histograms; half a count is added to each bin."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (before, now))
    return float(np.sum((q - p) * np.log(q / p)))


def _stability(before: npt.NDArray[np.integer[Any]], now: npt.NDArray[np.integer[Any]]) -> dict[str, Any]:
    index = stability_index(before, now)
    chance = (
        float(chi2.ppf(1 - LEVEL, len(before) - 1) * (1 / before.sum() + 1 / now.sum())) if len(before) > 1 else 0.0
    )
    return {"psi": index, "chance": chance, "shifted": bool(index > max(NOTABLE, chance))}


def element_shift(before: pa.ChunkedArray, now: pa.ChunkedArray, most: int = 5) -> dict[str, Any]:
    """How the elements of formulas shifted.

    An element counts once a formula. The index counts each as a bin; elements come together, so what chance gives is a
    guide and no test.

    Args:
        before: formulas.
        now: formulas.
        most: elements that are named.

    Returns:
        JSON: psi, chance, shifted; "gained" (element, share of the formulas before, now) and "never_before".
    """
    old, new = elements(before), elements(now)
    names = sorted(old | new)
    counts = [np.array([of[name] for name in names], dtype=np.int64) for of in (old, new)]
    shares = {name: (old[name] / len(before), new[name] / len(now)) for name in names}
    gained = sorted((n for n in names if shares[n][1] > shares[n][0]), key=lambda n: shares[n][0] - shares[n][1])
    return {
        **_stability(*counts),
        "gained": [[name, *shares[name]] for name in gained[:most]],
        "never_before": [name for name in names if not old[name]],
    }


def elements(formulas: pa.ChunkedArray) -> Counter[str]:
    """Element -> formulas that hold it; each different formula is read once."""
    found: Counter[str] = Counter()
    for pair in formulas.value_counts():
        n = pair["counts"].as_py()
        for symbol in set(ELEMENT.findall(pair["values"].as_py())):
            found[symbol] += n
    return found
