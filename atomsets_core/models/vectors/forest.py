"""A random forest as plain arrays: grown by scikit-learn, kept, checked and applied without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.models.baselines import random_forest

FloatArray = npt.NDArray[np.float64]

LEAF = -1
"""Stands where a node has no child."""

DIGITS = 9
"""Decimals of the standardised values that trees are grown on: the same values in another unit grow the same trees."""

MOST_COLUMNS = 40
"""Columns tried at each split at most: a third of hundreds would take most of the time of a simulated discovery."""

CELLS = 1 << 20
"""Rows times trees that go down together."""


@dataclass(frozen=True)
class Forest:
    """Regression trees side by side, each node a row of the arrays.

    Attributes:
        roots: (trees,) int64, first node of each tree; its nodes follow, up to the next root.
        children: (nodes, 2) int32, where a row goes whose column is at most the threshold, and where else; `LEAF` for
            none. A child stands after its parent, in the same tree.
        column: (nodes,) int32, that is looked at; 0 in a leaf.
        threshold: (nodes,) float64; 0 in a leaf.
        value: (nodes,) float64, mean of the training values in the node.
    """

    roots: npt.NDArray[np.int64]
    children: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    threshold: FloatArray
    value: FloatArray

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) means over the trees and (n,) standard deviations between them, for (n, width) rows."""
        step = max(1, CELLS // len(self.roots))
        said = [self._trees(x[start : start + step]) for start in range(0, len(x), step)]
        trees = np.concatenate(said) if said else np.empty((0, len(self.roots)))
        return trees.mean(axis=1), trees.std(axis=1)

    def _trees(self, x: FloatArray) -> FloatArray:
        """(n, trees) what each tree says."""
        # scikit-learn compares float32 columns with float64 thresholds.
        seen = x.astype(np.float32)
        node = np.tile(self.roots, len(x))
        row, inner = np.repeat(np.arange(len(x)), len(self.roots)), np.arange(len(node))
        while len(inner):
            inner = inner[self.children[node[inner], 0] != LEAF]
            at = node[inner]
            right = seen[row[inner], self.column[at]] > self.threshold[at]
            node[inner] = self.children[at, right.astype(np.int64)]
        return self.value[node].reshape(len(x), -1)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `read_forest` takes: name -> (n,) or (n_trees + 1,) array of the attribute of that name."""
        return {
            "roots": self.roots,
            "children": self.children,
            "column": self.column,
            "threshold": self.threshold,
            "value": self.value,
        }


def grow_forest(x: FloatArray, y: FloatArray, *, trees: int, seed: int) -> Forest:
    """Grow a forest of `baselines.random_forest`.

    Args:
        x: (n, width) rows.
        y: (n,) values.
        trees: how many.
        seed: of the rows and columns that each tree sees.
    """
    centre, unit = float(y.mean()), float(y.std()) or 1.0
    # scikit-learn takes a node whose variance is below 2e-16 for a leaf, whatever the unit.
    tried = min(1 / 3, MOST_COLUMNS / x.shape[1])
    forest = random_forest(seed).set_params(n_estimators=trees, max_features=tried)
    grown = forest.fit(x, np.round((y - centre) / unit, DIGITS))
    parts = [tree.tree_ for tree in grown.estimators_]
    sizes = np.array([tree.node_count for tree in parts])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    own = [np.stack([tree.children_left, tree.children_right], axis=1) for tree in parts]
    moved = [np.where(children == LEAF, LEAF, children + root) for children, root in zip(own, roots, strict=True)]
    children = np.concatenate(moved)
    leaf = children[:, 0] == LEAF
    return Forest(
        roots=roots,
        children=children.astype(np.int32),
        column=np.where(leaf, 0, np.concatenate([tree.feature for tree in parts])).astype(np.int32),
        threshold=np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in parts])),
        value=centre + unit * np.concatenate([tree.value[:, 0, 0] for tree in parts]),
    )


def read_forest(arrays: Mapping[str, npt.NDArray[Any]], width: int) -> Forest:
    """The forest of `Forest.arrays`, once it is certain that every row ends in a leaf of the tree it started in.

    Args:
        arrays: by name.
        width: columns of the rows it will see.

    Raises:
        KeyError: an array is missing.
        ValueError: they are not those of a forest.
    """
    roots, children = arrays["roots"], arrays["children"]
    column, threshold, value = arrays["column"], arrays["threshold"], arrays["value"]
    nodes = len(value)
    kinds = {"roots": np.int64, "children": np.int32, "column": np.int32, "threshold": np.float64, "value": np.float64}
    if any(arrays[name].dtype != kind for name, kind in kinds.items()):
        raise ValueError("the arrays of a forest are of other kinds of numbers")
    if children.shape != (nodes, 2) or any(array.shape != (nodes,) for array in (column, threshold, value)):
        raise ValueError("the arrays of a forest are of different lengths")
    if roots.ndim != 1 or not len(roots) or roots[0] != 0 or (np.diff(roots) < 1).any() or roots[-1] >= nodes:
        raise ValueError("the trees of a forest don't follow each other")
    leaf = children == LEAF
    if (leaf[:, 0] != leaf[:, 1]).any():
        raise ValueError("a node of a forest has one child")
    # A child stands after its parent and before the next tree: no row can go in a circle or leave its tree.
    end = np.repeat(np.append(roots[1:], nodes), np.diff(np.append(roots, nodes)))
    sound = (children > np.arange(nodes)[:, None]) & (children < end[:, None])
    if not (sound | leaf).all():
        raise ValueError("a node of a forest has a child that can't be its own")
    if (column < 0).any() or (column >= width).any():
        raise ValueError("a forest looks at a column that isn't there")
    if not np.isfinite(threshold).all() or not np.isfinite(value).all():
        raise ValueError("a forest holds something that is not a number")
    return Forest(roots, children, column, threshold, value)
