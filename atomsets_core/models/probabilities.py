"""From the logits of an ensemble to probabilities that hold, and how well they do.

Two calibrations, both fitted to out-of-fold logits. "temperature" is softmax((z + b) / T) with one bias a class (after
Guo et al. 2017; for two classes that of Platt, 1999). "isotonic" (Zadrozny and Elkan 2002) is a monotone curve for each
class, normalised, for some hundred rows a class or more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

FloatArray = npt.NDArray[np.float64]
METHODS = ("temperature", "isotonic", "none")


@dataclass(frozen=True)
class ProbabilityCalibrator:
    """Calibrated probabilities of (n, classes) logits.

    Attributes:
        method: one of `METHODS`.
        temperature: by which logits are divided.
        bias: of each class, added before that; empty for none.
        curves: for isotonic, of each class the (k,) ascending scores and (k,) probabilities between which is drawn.
    """

    method: str
    temperature: float = 1.0
    bias: tuple[float, ...] = ()
    curves: tuple[tuple[FloatArray, FloatArray], ...] = field(default=())

    def probability(self, logits: FloatArray) -> FloatArray:
        """(n, classes), rows add up to 1."""
        bias = np.array(self.bias) if self.bias else 0.0
        plain: FloatArray = softmax((logits + bias) / self.temperature, axis=1)
        if self.method != "isotonic":
            return plain
        drawn = np.stack([np.interp(p, x, y) for p, (x, y) in zip(plain.T, self.curves, strict=True)], axis=1)
        # A class that a curve calls impossible keeps a trace, so that no row is all zero.
        drawn = np.maximum(drawn, 1e-6)
        return drawn / drawn.sum(axis=1, keepdims=True)


def fit_probabilities(logits: FloatArray, label: npt.NDArray[np.int64], method: str) -> ProbabilityCalibrator:
    """Fit a calibration to logits of rows that the members never saw.

    Args:
        logits: (n, classes).
        label: (n,) number of the true class.
        method: one of `METHODS`.

    Raises:
        ValueError: an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"no calibration {method!r}; there are {', '.join(METHODS)}")
    if method == "none":
        return ProbabilityCalibrator("none")
    n, classes = logits.shape
    rows = np.arange(n)

    def cost(parameters: FloatArray) -> float:
        # (z + b) / T with T = e^p0, which can't become negative; the mean negative log likelihood of the true class.
        scaled = (logits + parameters[1:]) * np.exp(-parameters[0])
        # The prior holds the biases where a class has no rows to fit one to.
        return float(-log_softmax(scaled, axis=1)[rows, label].mean() + 1e-3 * np.sum(parameters[1:] ** 2) / n)

    best = minimize(cost, np.zeros(classes + 1), method="L-BFGS-B", bounds=[(-4, 4), *[(-20, 20)] * classes]).x
    fitted = ProbabilityCalibrator("temperature", float(np.exp(best[0])), tuple(float(b) for b in best[1:]))
    if method == "temperature":
        return fitted
    # A monotone curve keeps the order within a class, and with few rows is a few steps: temperature comes first, so
    # that between the steps something smooth is left.
    plain = fitted.probability(logits)
    curves = []
    for k in range(classes):
        curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(plain[:, k], label == k)
        curves.append((np.asarray(curve.X_thresholds_, float), np.asarray(curve.y_thresholds_, float)))
    return ProbabilityCalibrator("isotonic", fitted.temperature, fitted.bias, tuple(curves))


def crossed_probabilities(
    logits: FloatArray, label: npt.NDArray[np.int64], fold: npt.NDArray[np.int64], method: str
) -> FloatArray:
    """(n, classes): probabilities of each fold with the calibration of the other folds."""
    out = np.empty_like(logits)
    for k in np.unique(fold):
        test = fold == k
        out[test] = fit_probabilities(logits[~test], label[~test], method).probability(logits[test])
    return out


def calibration_error(probability: FloatArray, label: npt.NDArray[np.int64], bins: int = 10) -> float:
    """Expected calibration error of the predicted class: mean |accuracy - confidence| over bins of equal counts.

    Args:
        probability: (n, classes).
        label: (n,) number of the true class.
        bins: of the confidence; fewer where there are few rows.

    Returns:
        0 for probabilities that hold; noise alone gives about sqrt(bins / n) x 0.4.
    """
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    # Where probabilities hold, accuracy of n / bins rows strays by 0.8 x 0.5 / sqrt(n / bins) on average at a
    # confidence of a half: this is what noise alone gives.
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(len(p) * abs(right[p].mean() - confidence[p].mean()) for p in parts) / len(order))


def probability_scores(label: FloatArray, probability: FloatArray) -> dict[str, Any]:
    """How good probabilities of one class are.

    Args:
        label: (n,) 1 for rows of the class, 0 for the others.
        probability: (n,) of the class.

    Returns:
        JSON: "share" (of the class), "roc_auc" (None where all labels are alike), "accuracy" and "balanced_accuracy" at
        0.5, "brier" (mean squared error), "log_loss", "calibration_error" (see `calibration_error`), and "confusion" at
        0.5: counts of "true_positive", "false_positive", "true_negative" and "false_negative".
    """
    truth, n = label > 0.5, len(label)
    said, p = probability >= 0.5, np.clip(probability, 1e-7, 1.0 - 1e-7)
    members = int(truth.sum())
    others = n - members
    found = {
        "true_positive": int((said & truth).sum()),
        "false_positive": int((said & ~truth).sum()),
        "true_negative": int((~said & ~truth).sum()),
        "false_negative": int((~said & truth).sum()),
    }
    area = None
    if members and others:
        # Mann and Whitney: the share of pairs in which the member has the higher probability.
        area = (rankdata(probability)[truth].sum() - members * (members + 1) / 2) / (members * others)
    rates = [found[name] / total for name, total in (("true_positive", members), ("true_negative", others)) if total]
    return {
        "share": members / n,
        "roc_auc": None if area is None else float(area),
        "accuracy": (found["true_positive"] + found["true_negative"]) / n,
        "balanced_accuracy": float(np.mean(rates)),
        "brier": float(np.mean((probability - label) ** 2)),
        "log_loss": float(-np.mean(np.log(np.where(truth, p, 1.0 - p)))),
        "calibration_error": calibration_error(np.stack([1.0 - probability, probability], axis=1), truth.astype(int)),
        "confusion": found,
    }


def reliability(label: FloatArray, probability: FloatArray, bins: int = 10) -> dict[str, list[float]]:
    """Rows of the class among those of each range of probabilities, of as many rows each.

    Args:
        label: (n,) 1 for rows of the class, 0 for the others.
        probability: (n,) of the class.
        bins: at most; fewer where they would hold less than ten rows.

    Returns:
        (bins,) each: "said" (mean probability), "found" (share of the class), "rows", and "low" and "high", between
        which the share lies with 95 % (Wilson, J. Am. Stat. Assoc. 22, 209 (1927)).
    """
    order = np.argsort(probability, kind="stable")
    out: dict[str, list[float]] = {name: [] for name in ("said", "found", "rows", "low", "high")}
    for part in np.array_split(order, max(1, min(bins, len(order) // 10))):
        n, share, z = len(part), float(label[part].mean()), 1.96
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        ends = min(share, middle - half), max(share, middle + half)
        for name, value in zip(out, (float(probability[part].mean()), share, float(n), *ends), strict=True):
            out[name].append(float(value))
    return out
