"""Bilinear transduction: predict a value from a known row and the difference to it.

Segal, Netanyahu, Greenman, Agrawal, Gomez-Bombarelli, "Known Unknowns", arXiv:2502.05970, after Netanyahu et al.,
arXiv:2304.14329. The prediction for x from the anchor a is f(a) . g(x - a) with two networks f and g, trained on pairs
of known rows. Far from everything known, anchors are taken whose difference to x is like differences seen in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from atomsets_core.models import MemberLinear, Scaler

FloatArray = npt.NDArray[np.float64]

COMPONENTS = 40
"""Principal components of the features that rows and differences are given in."""


@dataclass(frozen=True)
class TransductionOptions:
    """Sizes of a bilinear transduction.

    Attributes:
        members: networks, each with a start of its own.
        hidden: units of the hidden layer of both networks.
        width: of the vectors whose product is the prediction.
        steps: of AdamW.
        batch_size: pairs a step.
        learning_rate: at the start; it falls to zero along a cosine.
        anchors: averaged a prediction.
        offered: known rows an anchor is chosen from, at most.
        differences: known differences that an anchor's is compared with, at most.
    """

    members: int = 3
    hidden: int = 128
    width: int = 32
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 3e-3
    anchors: int = 10
    offered: int = 100
    differences: int = 1000


class BilinearNetwork(nn.Module):
    """f(anchor) . g(difference) for several members at once."""

    def __init__(self, inputs: int, options: TransductionOptions) -> None:
        super().__init__()
        sizes = (options.members, inputs, options.hidden), (options.members, options.hidden, options.width)
        self.anchor = nn.ModuleList(MemberLinear(*size) for size in sizes)
        self.difference = nn.ModuleList(MemberLinear(*size) for size in sizes)

    def forward(self, anchor: Tensor, difference: Tensor) -> Tensor:
        """(members, n) float32 predictions, standardised, from (n, inputs) anchors and differences."""
        known = self.anchor[1](torch.relu(self.anchor[0](anchor)))
        change = self.difference[1](torch.relu(self.difference[0](difference)))
        product: Tensor = (known * change).sum(dim=2)
        return product


@dataclass(frozen=True)
class Transduction:
    """A fitted bilinear transduction; `predict` gives means and deviations.

    Attributes:
        scaler: of the columns.
        pca: of the scaled columns, its components divided by one number so that columns have variance 1 on average.
        network: the trained members.
        known: (n_train, components) float32, the rows it was trained on, from which anchors are taken.
        differences: (differences, components) float32, of random pairs of these.
        centre: mean of the values.
        unit: standard deviation of the values; the network predicts in it.
        noise: root mean square of the residuals on pairs of training rows, in the unit of the values.
        options: sizes.
        seed: of the choice of anchors.
    """

    scaler: Scaler
    pca: PCA
    network: BilinearNetwork
    known: npt.NDArray[np.float32]
    differences: npt.NDArray[np.float32]
    centre: float
    unit: float
    noise: float
    options: TransductionOptions
    seed: int

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) means over members and anchors, and (n,) standard deviations, for (n, width) rows."""
        rows = self.pca.transform(self.scaler(x)).astype(np.float32)
        members = np.concatenate([self._members(rows[i : i + 64]) for i in range(0, len(rows), 64)], axis=1)
        mean = self.centre + self.unit * members.mean(axis=0)
        return mean, np.sqrt((self.unit * members.std(axis=0)) ** 2 + self.noise**2)

    def _members(self, rows: npt.NDArray[np.float32]) -> FloatArray:
        """(members x anchors, n) predictions, standardised."""
        random = np.random.default_rng(self.seed)
        offered = random.permutation(len(self.known))[: self.options.offered]
        # f . g is only to be trusted where both have been seen: the anchor is a training row, so the anchors are those
        # whose difference to x lies nearest to a difference of two training rows.
        change = rows[:, None] - self.known[offered][None]
        strangeness = _nearest(change.reshape(-1, rows.shape[1]), self.differences).reshape(len(rows), -1)
        chosen = np.argsort(strangeness, axis=1, kind="stable")[:, : self.options.anchors]
        anchors = self.known[offered[chosen]]
        change = np.take_along_axis(change, chosen[:, :, None], axis=1)
        with torch.inference_mode():
            flat = (part.reshape(-1, rows.shape[1]) for part in (anchors, change))
            found = self.network(*(torch.from_numpy(np.ascontiguousarray(part)) for part in flat)).double().numpy()
        by_anchor = found.reshape(self.options.members, len(rows), -1)
        return by_anchor.transpose(0, 2, 1).reshape(-1, len(rows))


def _nearest(points: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n,) squared distance of each point to the nearest of the others."""
    squares = (others**2).sum(axis=1)
    parts = [(squares[None] - 2.0 * points[i : i + 4096] @ others.T).min(axis=1) for i in range(0, len(points), 4096)]
    nearest: npt.NDArray[np.float32] = np.concatenate(parts) + (points**2).sum(axis=1)
    return nearest


def fit_transduction(
    x: FloatArray, y: FloatArray, *, seed: int, options: TransductionOptions | None = None
) -> Transduction:
    """Train on random pairs of rows, with the absolute error.

    Args:
        x: (n, width) rows.
        y: (n,) values.
        seed: of weights, pairs and anchors.
        options: sizes.
    """
    chosen = options or TransductionOptions()
    scaler, centre, unit = Scaler.of(x), float(y.mean()), float(y.std()) or 1.0
    # Without whitening: the last components are noise, and would be as large as the first in a difference.
    pca = PCA(n_components=min(COMPONENTS, *x.shape), svd_solver="full", whiten=False).fit(scaler(x))
    rows = pca.transform(scaler(x))
    # Components keep their relative sizes; together they have variance 1 a component.
    stretch = float(np.sqrt(rows.var(axis=0).mean())) or 1.0
    pca.components_ = pca.components_ / stretch
    known = (rows / stretch).astype(np.float32)
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = BilinearNetwork(known.shape[1], chosen)
    optimizer = torch.optim.AdamW(network.parameters(), lr=chosen.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.steps)
    tensor, target = torch.from_numpy(known), torch.from_numpy(((y - centre) / unit).astype(np.float32))
    for _ in range(chosen.steps):
        # Ordered pairs, a row with itself among them: f(a) . g(0) has to be the value of a.
        first, second = torch.from_numpy(random.integers(0, len(y), (2, chosen.batch_size)))
        optimizer.zero_grad(set_to_none=True)
        predicted = network(tensor[first], tensor[second] - tensor[first])
        # Sum over members: each is trained as if it were alone.
        loss = torch.abs(predicted - target[second]).mean(dim=1).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    pairs = random.integers(0, len(y), (2, chosen.differences))
    with torch.inference_mode():
        first, second = torch.from_numpy(pairs)
        residual = (network(tensor[first], tensor[second] - tensor[first]) - target[second]).mean(dim=0).numpy()
    # Of pairs that were trained on, so the least that a prediction is off.
    noise = unit * float(np.sqrt(np.mean(residual**2)))
    return Transduction(
        scaler, pca, network.eval(), known, known[pairs[1]] - known[pairs[0]], centre, unit, noise, chosen, seed
    )
