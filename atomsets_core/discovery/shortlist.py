"""A shortlist that is not the same material over and over: batches by score and unlikeness."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atomsets_core.discovery.acquisition import FloatArray

DIVERSITIES = ("none", "k-centre", "determinantal")


def diverse_shortlist(
    score: FloatArray, features: npt.NDArray[np.floating], groups: npt.NDArray[np.object_], size: int, spread: float
) -> npt.NDArray[np.int64]:
    """Row numbers of a shortlist: best score first, then the best trade of score against likeness to what is chosen.

    Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): the next row has the highest
    (1 - spread) x score + spread x distance to the nearest chosen one, both scaled to 0..1 over the rows offered. Of
    one group only the best-scored row is taken.

    Args:
        score: (n,) higher is better.
        features: (n, width) vectors in which likeness is measured.
        groups: (n,) labels such as reduced formulas.
        size: rows wanted; fewer come back when there are fewer groups.
        spread: 0 takes the best scores, 1 looks at likeness alone.
    """
    n = len(score)
    if not n or size < 1:
        return np.empty(0, dtype=np.int64)
    relevance = (score - score.min()) / (np.ptp(score) or 1.0)
    open_ = np.zeros(n, dtype=bool)
    seen: set[str] = set()
    for row in np.argsort(-score, kind="stable"):
        if str(groups[row]) not in seen:
            seen.add(str(groups[row]))
            open_[row] = True
    chosen = [int(np.argmax(np.where(open_, relevance, -np.inf)))]
    nearest = np.linalg.norm(features - features[chosen[0]], axis=1)
    scale = float(nearest.max()) or 1.0
    while len(chosen) < size:
        open_[chosen[-1]] = False
        if not open_.any():
            break
        # Distances over the largest to the best row, so that `spread` weighs two numbers between 0 and 1.
        value = (1.0 - spread) * relevance + spread * np.minimum(nearest / scale, 1.0)
        chosen.append(int(np.argmax(np.where(open_, value, -np.inf))))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.int64)


def choose_batch(
    score: FloatArray, vectors: npt.NDArray[np.floating], size: int, diversity: str = "none", offered: int = 4
) -> npt.NDArray[np.int64]:
    """Row numbers of a batch to try next, the best score first.

    Args:
        score: (n,) higher is better.
        vectors: (n, width) in which rows are alike or not.
        size: rows wanted; all of them where there are no more.
        diversity: "none": the best scores. "k-centre": of the best `offered` x size rows, the one farthest from those
            chosen, again and again (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)). "determinantal": of the same rows,
            greedily the largest determinant of likeness times quality (Chen et al., NeurIPS 2018).
        offered: how many rows are looked at for each place.

    Raises:
        ValueError: an unknown diversity.
    """
    if diversity not in DIVERSITIES:
        raise ValueError(f"no diversity {diversity!r}; there are {', '.join(DIVERSITIES)}")
    order = np.argsort(-score, kind="stable")
    if diversity == "none" or size >= len(order) or size < 2:
        return order[: max(size, 0)].astype(np.int64)
    shortlist = order[: offered * size]
    points = np.asarray(vectors, dtype=np.float64)[shortlist]
    pick = _k_centre(points, size) if diversity == "k-centre" else _determinantal(score[shortlist], points, size)
    return shortlist[pick].astype(np.int64)


def _k_centre(points: FloatArray, size: int) -> list[int]:
    chosen = [0]
    nearest = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(size, len(points)):
        # Below every distance, also of twins of a chosen row, which are 0 apart from it.
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _determinantal(score: FloatArray, points: FloatArray, size: int) -> list[int]:
    """Greedy maximum of log det of quality x likeness x quality, row after row by its Cholesky factor."""
    # L_ij = q_i S_ij q_j (Kulesza & Taskar, Found. Trends Mach. Learn. 5, 123 (2012)): log det of a batch is 2 sum log
    # q, the quality, plus log det S, the unlikeness. 1.5 sets one against the other: a deviation of the score is worth
    # a factor e^3 of the determinant.
    quality = np.exp(1.5 * (score - score.mean()) / (score.std() or 1.0))
    gaps = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    # The median gap as the length of the kernel, so that likenesses are spread between 0 and 1 whatever the unit.
    likeness = np.exp(-gaps / (np.median(gaps[gaps > 0]) if (gaps > 0).any() else 1.0))
    kernel = quality[:, None] * likeness * quality[None]
    left = np.diag(kernel).copy()
    factors = np.zeros((0, len(points)))
    chosen: list[int] = []
    while len(chosen) < min(size, len(points)):
        open_ = left.copy()
        open_[chosen] = -np.inf
        row = int(np.argmax(open_))
        if open_[row] <= 1e-10:
            # What is left adds nothing: twins of rows already chosen. The best scores fill the batch.
            chosen += [int(i) for i in np.argsort(-score, kind="stable") if i not in chosen][: size - len(chosen)]
            break
        # Next row of the Cholesky factor: c = (L_row - C' c_row) / d_row. What is left of a diagonal, d_i^2, is the
        # factor by which taking i multiplies the determinant (Chen et al. 2018), so the largest is taken.
        update = (kernel[row] - factors.T @ factors[:, row]) / np.sqrt(left[row])
        factors = np.vstack([factors, update])
        left = left - update**2
        chosen.append(row)
    return chosen
