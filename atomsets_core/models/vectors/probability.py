"""The probability of a class as a number: any head of `odds.CLASS_HEADS` with the face of AtomSets.

A campaign ranks by it as by any other number, so all between 0 and 1 means the same everywhere: the prediction is the
probability, its deviation and interval say how far another training set might have moved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import beta

from atomsets_core.features import AnyFeatures
from atomsets_core.models.classifier import class_scores
from atomsets_core.models.folds import stratified_folds
from atomsets_core.models.probabilities import ProbabilityCalibrator, fit_probabilities
from atomsets_core.models.regressor import AtomSetsRegressor, Prediction, given_folds, means_of_others
from atomsets_core.models.trust import faded, kept
from atomsets_core.models.vectors.inputs import Vectors
from atomsets_core.models.vectors.learners import NETWORKS, Learner
from atomsets_core.models.vectors.odds import CLASS_HEADS, ODDS
from atomsets_core.models.vectors.regressor import HeadRegressor

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

EDGE = 1e-12
"""Probabilities nearer to 0 or 1 have the log odds of this one."""

LEAST = 1e-6
"""Variances of probabilities stay this share below p (1 - p), where only 0 and 1 are left."""

PRIOR = 4.0
"""Degrees of freedom that the median variance of all rows counts for, beside the g - 1 of a row's own."""


class ClassProbability(HeadRegressor):
    """How probable it is that a structure belongs to a class, by one head of several, calibrated and with intervals.

    Labels are 1 for rows of the class and 0 for all others. Each fold, stratified by class, has networks or a learner
    of its own that leave it out and say log odds; those of rows that were left out calibrate the probabilities
    ("temperature" in `probabilities`). The probability of another structure is that of the mean log odds. Far from the
    training data it goes to the share of the class among them, as predictions of numbers go to their mean.

    One label tells nothing of how sure a probability is, so deviations are not calibrated: they are those of the
    delete-a-group jackknife (Kott, J. Off. Stat. 17, 521 (2001)) over the folds, v = (g - 1)/g sum_k (z_k - mean z)^2
    with the calibrated log odds z_k of what left fold k out, in learning and calibration. Of so few folds a variance is
    small by accident here and there, so it is moderated by its median over the training rows (Smyth, Stat. Appl. Genet.
    Mol. Biol. 3, 3 (2004)). The deviation of the probability is half of what lies between z - sqrt(v) and z + sqrt(v);
    far from the training data it goes to that of a label, the root of p (1 - p). Intervals are those of the beta
    distribution of this mean and deviation.

    Args:
        features: as of `AtomSetsRegressor`.
        head: one of `odds.CLASS_HEADS`.
        options: of `AtomSetsRegressor`; `loss` and `transform` play no part, `coverage` is that of the intervals.

    Attributes:
        oof_: out-of-fold `Prediction` of the training rows, each fold calibrated on the others; value is (n,).
        scores_: of these, see `classifier.class_scores`, and "brier", the mean squared error of the probabilities.
        share_: of the class among the training rows.
        noise_: median jackknife variance of the log odds of the training rows.
        calibrator_: of the probabilities.
        calibrators_left_out_: the same from the rows outside each fold, which calibrate `oof_` and tell the deviation.
    """

    task = "classification"
    learners: ClassVar[Mapping[str, Learner]] = ODDS
    every_head: ClassVar[Mapping[str, tuple[str, ...]]] = CLASS_HEADS

    def __init__(self, features: str | None = None, *, head: str = NETWORKS, **options: Any) -> None:
        super().__init__(features, head=head, **options)

    def predict_distribution(self, X: Any) -> Prediction:
        """Probabilities with intervals and domain flags; arrays as of `Prediction`, each (n,).

        Raises:
            NotFittedError: before `fit`.
            ValueError: features of another parent than the model was trained on.
        """
        members, distance = self._apply(X)
        odds = self._by_fold(members)
        return self._told(odds.mean(axis=0), odds, distance)

    def predict_left_out(self, X: Any, fold: npt.ArrayLike) -> Prediction:
        """Probabilities for rows in given folds, each by what left its fold out; see `AtomSetsRegressor`.

        Args:
            X: n structures, or their features.
            fold: (n,) from 0; one that was never left out is predicted by all.

        Raises:
            NotFittedError: before `fit`.
            ValueError: lengths that differ, or folds that are no numbers from 0.
        """
        members, distance = self._apply(X)
        folds, odds = given_folds(fold, len(distance)), self._by_fold(members)
        own = odds.mean(axis=0)
        for k in range(self.groups_):
            own[folds == k] = odds[k, folds == k]
        return self._told(own, odds, distance)

    def _prepare(self, X: Any, y: npt.NDArray[Any], n: int) -> AnyFeatures:
        label = np.asarray(y, dtype=np.float64)
        if label.ndim != 1 or not np.isin(label, (0.0, 1.0)).all() or len(np.unique(label)) < 2:
            raise ValueError(
                "labels must be (n,), 1 for rows of the class and 0 for the others, and there must be both"
            )
        features = super()._prepare(X, y, n)
        self.options_.loss = "logistic"
        return features

    def _cut(self, formulas: npt.NDArray[np.object_], target: FloatArray) -> IntArray:
        """(n,) fold of each row, the class shared evenly."""
        if self.options_.folds < 2:
            raise ValueError("folds must be 2 at least: a probability is calibrated on rows that were left out")
        return stratified_folds(target[:, 0].astype(np.int64), formulas, self.options_.folds, self.options_.seed)

    def _warn_of_few(self, target: FloatArray) -> None:
        """Intervals of probabilities need no number of rows."""

    def _holds_networks(self, model: AtomSetsRegressor) -> bool:
        """Whether another model is the ensemble that this head holds."""
        if not isinstance(model, ClassProbability) or model.head != NETWORKS or not self._alike(model):
            return False
        own = self.get_params(deep=False)
        return all(own[name] == value for name, value in model.get_params(deep=False).items() if name != "head")

    @property
    def _folds(self) -> int:
        return max(1, int(self.fold_.max()) + 1) if len(self.fold_) else self.groups_

    def _by_fold(self, members: FloatArray) -> FloatArray:
        """(folds, n) log odds of (members, n, 1) outputs: member k leaves out fold k modulo the folds."""
        g = self.groups_
        return np.stack([members[k::g, :, 0].mean(axis=0) for k in range(g)])

    def _unseen(self, data: Vectors, seen: npt.NDArray[np.bool_]) -> FloatArray:  # type: ignore[override]
        """(members, n, 1) log odds of all rows, NaN for those that a member has seen."""
        everything = np.stack([part[:, 0] for part in self._outputs(data)])
        # What each fold says of every row, seen or not, tells by how much they differ.
        self._training_odds = np.stack([everything[k :: self._folds].mean(axis=0) for k in range(self._folds)])
        return np.where(seen, np.nan, everything)[:, :, None]

    def _calibrate(self, unseen: FloatArray, target: FloatArray, distance: FloatArray) -> None:
        """Calibrate on (members, n, 1) log odds of rows that were left out, NaN elsewhere, and score them crosswise."""
        label, own = target[:, 0].astype(np.int64), np.nanmean(unseen[:, :, 0], axis=0)
        logits, odds = _of_two(own), self.__dict__.pop("_training_odds")
        self.share_, self.calibrators_ = float(target.mean()), []
        self.calibrator_ = fit_probabilities(logits, label, "temperature")
        self.calibrators_left_out_ = [
            fit_probabilities(logits[self.fold_ != k], label[self.fold_ != k], "temperature") for k in range(len(odds))
        ]
        self.noise_ = float(np.median(_jackknife(self._odds_left_out(odds))))
        said = np.empty(len(own))
        for k, calibrator in enumerate(self.calibrators_left_out_):
            said[self.fold_ == k] = calibrator.probability(logits[self.fold_ == k])[:, 1]
        # A row that is far fades to what its judges knew of the class: its share in the other folds.
        centre = means_of_others(target[:, 0], self.fold_)
        self.oof_ = self._prediction_of(said, _variance(_log_odds(said), np.sqrt(self.noise_)), centre, distance)
        found = self.oof_.value
        scores = class_scores(np.stack([1.0 - found, found], axis=1), label)
        self.scores_ = {**scores, "brier": float(np.mean((found - label) ** 2))}

    def _told(self, own: FloatArray, odds: FloatArray, distance: FloatArray) -> Prediction:
        """From (n,) log odds that are believed and (folds, n) those of each fold."""
        free, said = len(odds) - 1, self.calibrator_.probability(_of_two(own))[:, 1]
        spread = _jackknife(self._odds_left_out(odds))
        apart = np.sqrt((free * spread + PRIOR * self.noise_) / (free + PRIOR))
        return self._prediction_of(said, _variance(_log_odds(said), apart), self.share_, distance)

    def _odds_left_out(self, odds: FloatArray) -> FloatArray:
        """(folds, n) calibrated log odds of (folds, n) log odds, each without its fold also in the calibration."""
        found = zip(self.calibrators_left_out_, odds, strict=True)
        return np.stack([_log_odds(calibrator.probability(_of_two(each))[:, 1]) for calibrator, each in found])

    def _prediction_of(
        self, said: FloatArray, variance: FloatArray, centre: FloatArray | float, distance: FloatArray
    ) -> Prediction:
        """From (n,) probabilities and variances near the training data, and what they go to far from them."""
        remoteness = self.domain_.remoteness(distance)
        p = np.clip(faded(said, remoteness, centre), 0.0, 1.0)
        # Of a label nothing is known far away: p (1 - p) is its variance, and the most that a probability's can be.
        most, known = p * (1.0 - p), kept(np.minimum(remoteness, 1e3)) ** 2
        variance = known * np.minimum(variance, most) + (1.0 - known) * most
        lower, upper = beta_interval(p, variance, self.options_.coverage)
        std = np.sqrt(variance)
        return Prediction(p, lower, upper, p, std, std, distance, remoteness <= 1.0)

    def _state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        state, arrays = super()._state()
        state["class"] = {
            "share": self.share_,
            "noise": self.noise_,
            "scores": self.scores_,
            "calibrators": [
                {"temperature": each.temperature, "bias": list(each.bias)}
                for each in (self.calibrator_, *self.calibrators_left_out_)
            ],
        }
        return state, arrays

    def _restore(self, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(state, arrays)
        found = state["class"]
        self.share_, self.noise_, self.scores_ = float(found["share"]), float(found["noise"]), dict(found["scores"])
        self.calibrator_, *self.calibrators_left_out_ = (
            ProbabilityCalibrator("temperature", each["temperature"], tuple(each["bias"]))
            for each in found["calibrators"]
        )


def _log_odds(probability: FloatArray) -> FloatArray:
    """(n,) log odds of (n,) probabilities, finite also where these are rounded to 0 or 1."""
    found: FloatArray = logit(np.clip(probability, EDGE, 1.0 - EDGE))
    return found


def _variance(odds: FloatArray, apart: FloatArray) -> FloatArray:
    """(n,) variances of probabilities, from (n,) log odds and how far they may be off."""
    return (0.5 * (expit(odds + apart) - expit(odds - apart))) ** 2


def _jackknife(odds: FloatArray) -> FloatArray:
    """(n,) variances of the mean of (g, n) log odds, each of a model that lacks one of g groups of rows."""
    return (len(odds) - 1) * odds.var(axis=0)


def _of_two(odds: FloatArray) -> FloatArray:
    """(n, 2) logits of the others and the class, from (n,) log odds."""
    return np.stack([np.zeros_like(odds), odds], axis=1)


def beta_interval(p: FloatArray, variance: FloatArray, coverage: float) -> tuple[FloatArray, FloatArray]:
    """(n,) lower and (n,) upper ends of the central interval of beta distributions, which hold their means.

    Args:
        p: (n,) means.
        variance: (n,) variances, at most p (1 - p).
        coverage: probability inside.
    """
    lower, upper = p.copy(), p.copy()
    most = p * (1.0 - p)
    # A mean p and variance v make a + b = p (1 - p) / v - 1.
    rows = np.flatnonzero((variance > 1e-12) & (most > 0))
    size = most[rows] / np.minimum(variance[rows], (1.0 - LEAST) * most[rows]) - 1.0
    a, b = p[rows] * size, (1.0 - p[rows]) * size
    tail = 0.5 * (1.0 - coverage)
    ends = beta.ppf(tail, a, b), beta.ppf(1.0 - tail, a, b)
    # Of a beta with almost all weight on one end the mean lies outside of the middle: the interval reaches to it.
    lower[rows] = np.minimum(np.clip(np.nan_to_num(ends[0]), 0.0, 1.0), p[rows])
    upper[rows] = np.maximum(np.clip(np.nan_to_num(ends[1], nan=1.0), 0.0, 1.0), p[rows])
    return lower, upper
