"""Pareto fronts, the volume they dominate, and by how much a candidate may be expected to add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

Gain = Callable[[FloatArray], FloatArray]
"""Gives, for (k,) values of one axis, (n, k) what n candidates are expected to lie above each."""


def non_dominated(points: FloatArray) -> npt.NDArray[np.bool_]:
    """(n,) bool, which points are on the Pareto front: no other is as good on every axis and better on one.

    Equal points don't dominate each other.

    Args:
        points: (n, axes), higher is better.
    """
    points = np.asarray(points, dtype=np.float64)
    front = np.zeros(len(points), dtype=bool)
    if points.shape[1] == 0:
        return ~front
    # Ranks instead of values: an axis with large numbers would round the others away in a sum.
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in points.T], axis=1)
    rows = np.argsort(-ranks.sum(axis=1), kind="stable")
    rest = ranks[rows]
    while len(rows):
        # Of those that are left none has a larger sum, so none dominates the first.
        front[rows[0]] = True
        first, rows, rest = rest[0], rows[1:], rest[1:]
        kept = np.any(rest > first, axis=1) | np.all(rest == first, axis=1)
        rows, rest = rows[kept], rest[kept]
    return front


def hypervolume(points: FloatArray, reference: FloatArray) -> float:
    """The volume that points dominate above a reference point (Zitzler and Thiele, IEEE Trans. Evol. Comput. 3, 1999).

    Args:
        points: (n, axes), higher is better.
        reference: (axes,); what doesn't lie above it on every axis adds nothing.

    Returns:
        In the product of the axes' units; 0 without points.
    """
    points, reference = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    points = points[np.all(points > reference, axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points[:, 0].max() - reference[0])
    points = points[non_dominated(points)]
    levels = np.unique(points[:, -1])
    below = np.concatenate([reference[-1:], levels[:-1]])
    return float(
        sum(
            (high - low) * hypervolume(points[points[:, -1] >= high][:, :-1], reference[:-1])
            for low, high in zip(below, levels, strict=True)
        )
    )


def boxes(front: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The region above a reference point that a front doesn't dominate, cut into boxes.

    Slabs between the front's values on the last axis, each cut along the axes before it (the idea of Lacour, Klamroth
    and Fonseca, Comput. Oper. Res. 79, 2017, without their savings).

    Args:
        front: (n, axes), higher is better.
        reference: (axes,).

    Returns:
        (boxes, axes) lower and (boxes, axes) upper corners; an end that is open is infinite.
    """
    front, reference = np.asarray(front, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    axes = len(reference)
    front = front[np.all(front > reference, axis=1)]
    if axes == 1:
        best = max(reference[0], front.max(initial=-np.inf))
        return np.array([[best]]), np.array([[np.inf]])
    levels = np.unique(front[:, -1])
    lower, upper = [], []
    for low, high in zip([reference[-1], *levels], [*levels, np.inf], strict=True):
        # What reaches to the top of a slab dominates in all of it.
        part = front[front[:, -1] >= high][:, :-1]
        if len(part):
            part = part[non_dominated(part)]
        inner_low, inner_high = boxes(part, reference[:-1])
        lower.append(np.column_stack([inner_low, np.full(len(inner_low), low)]))
        upper.append(np.column_stack([inner_high, np.full(len(inner_high), high)]))
    return np.concatenate(lower), np.concatenate(upper)


def expected_improvement(gains: Sequence[Gain], n: int, front: FloatArray, reference: FloatArray) -> FloatArray:
    """(n,) by how much each candidate is expected to enlarge the volume that a front dominates.

    The axes of a candidate are taken for independent, so that the integral over each box is a product (Yang, Emmerich,
    Deutz and Bäck, J. Glob. Optim. 75, 2019). With one axis it is the expected improvement over the best.

    Args:
        gains: of each axis, for all n candidates.
        n: candidates.
        front: (k, axes) known points, higher is better.
        reference: (axes,) the point above which volume counts.
    """
    lower, upper = boxes(front, reference)
    parts = []
    for axis, gain in enumerate(gains):
        ends, at = np.unique(np.concatenate([lower[:, axis], upper[:, axis]]), return_inverse=True)
        open_end = ~np.isfinite(ends)
        above = np.zeros((n, len(ends)))
        above[:, ~open_end] = gain(ends[~open_end])
        parts.append((above, at[: len(lower)], at[len(lower) :]))
    product = np.ones((n, len(lower)))
    for above, low, high in parts:
        product *= above[:, low] - above[:, high]
    return np.maximum(product.sum(axis=1), 0.0)
