"""Parts of the data that are hidden so that a model can be asked about what it has never seen.

Every function gives a `Holdout`: rows to learn from, and a pool of the hidden rows and a random share of the others, to
be ranked. What is hidden differs: the best values, or a cluster, an element, a chemical system, a space group, a
prototype, or what was found later. With `groups` the rows of one group (polymorphs of a formula, copies of a crystal)
stay on one side: those of the training part whose group is also in the pool are left out altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomsets_core.discovery.groups import chemical_systems, clusters, holds_element, id_numbers, prototypes
from atomsets_core.discovery.groups import space_groups as find_space_groups
from atomsets_core.structures import Structures

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.object_] | IntArray

FEWEST = 5
"""Rows a model can learn from."""


@dataclass(frozen=True)
class Holdout:
    """One question to a model.

    Attributes:
        train: (n_train,) row numbers to learn from, ascending.
        pool: (n_pool,) row numbers to rank, in random order: a head that gives equal predictions must not gain from
            the order.
        hidden: (n_pool,) bool, the rows of the pool that lie outside what the training part covers.
        dropped: (n_dropped,) row numbers in neither, because their group is on the other side.
        what: what is hidden, in words.
    """

    train: IntArray
    pool: IntArray
    hidden: Mask
    dropped: IntArray
    what: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """Rows in each part; n_train + n_pool + n_dropped are all rows there were."""
        return {
            "n_train": len(self.train),
            "n_pool": len(self.pool),
            "n_hidden": int(self.hidden.sum()),
            "n_dropped": len(self.dropped),
        }


def value_holdout(
    y: FloatArray,
    *,
    goal: str = "maximize",
    quantile: float = 0.1,
    pool_share: float = 0.2,
    seed: int = 0,
    groups: Labels | None = None,
) -> Holdout:
    """Hide the best share of the values; pool them with a random share of the rest.

    Args:
        y: (n,) values.
        goal: "maximize" hides the highest, "minimize" the lowest.
        quantile: share that is hidden.
        pool_share: share of the other rows that go into the pool, as what should not be picked.
        seed: of that choice.
        groups: (n,) labels such as reduced formulas; rows of the training part whose group is also in the pool are
            dropped from training, so that no polymorph gives the answer away.

    Returns:
        Disjoint training rows and pool; every training value is worse than every hidden one or equal to the boundary.

    Raises:
        ValueError: an unknown goal, or a share that leaves a part empty, also by the groups it shares with the pool.
    """
    order = _best_first(y, goal)
    k = round(quantile * len(y))
    rest = len(order) - k
    if k < 1 or int(pool_share * rest) < 1 or rest - int(pool_share * rest) < FEWEST:
        raise ValueError(f"{len(y)} values are too few to hide {quantile:.0%} and pool {pool_share:.0%} of the rest")
    end = "highest" if goal == "maximize" else "lowest"
    return _split(order[:k], order[k:], pool_share, seed, groups, f"the {end} {quantile:.0%} of the values")


def threshold_holdout(
    y: FloatArray,
    threshold: float,
    *,
    goal: str = "maximize",
    pool_share: float = 0.2,
    seed: int = 0,
    groups: Labels | None = None,
) -> Holdout:
    """Hide every value beyond a threshold; the other arguments are those of `value_holdout`.

    Raises:
        ValueError: no value lies beyond it, or too few are left on this side.
    """
    order = _best_first(y, goal)
    beyond = y[order] > threshold if goal == "maximize" else y[order] < threshold
    what = f"values {'above' if goal == 'maximize' else 'below'} {threshold:g}"
    return _split(order[beyond], order[~beyond], pool_share, seed, groups, what)


def group_holdout(
    chosen: Mask, what: str, *, pool_share: float = 0.2, seed: int = 0, groups: Labels | None = None
) -> Holdout:
    """Hide the chosen rows, whatever their values; pool them with a random share of the rest.

    Args:
        chosen: (n,) bool.
        what: they are, in words, for messages and tables.
        pool_share: share of the other rows that go into the pool.
        seed: of that choice.
        groups: (n,) labels; training rows whose group is also in the pool are dropped, see `value_holdout`.

    Raises:
        ValueError: no row is chosen, or too few are left to learn from.
    """
    return _split(np.flatnonzero(chosen), np.flatnonzero(~chosen), pool_share, seed, groups, what)


def cluster_holdout(
    vectors: npt.NDArray[np.floating],
    cluster: int,
    *,
    n_clusters: int = 10,
    pool_share: float = 0.2,
    seed: int = 0,
    groups: Labels | None = None,
) -> Holdout:
    """Leave one cluster of feature space out (k-means on the leading principal components of standardised vectors).

    The clusters are those of all rows, labels play no part in them; the number counts from the largest, 0.
    """
    labels = clusters(vectors, n_clusters)
    what = f"cluster {cluster} of {n_clusters} in feature space"
    return group_holdout(labels == cluster, what, pool_share=pool_share, seed=seed, groups=groups)


def element_holdout(
    formulas: Sequence[str], element: str, *, pool_share: float = 0.2, seed: int = 0, groups: Labels | None = None
) -> Holdout:
    """Leave every compound of an element out.

    Raises:
        ValueError: not an element, or too few rows with or without it.
    """
    chosen = holds_element(formulas, element)
    return group_holdout(chosen, f"compounds of {element}", pool_share=pool_share, seed=seed, groups=groups)


def chemical_system_holdout(
    formulas: Sequence[str], system: str, *, pool_share: float = 0.2, seed: int = 0, groups: Labels | None = None
) -> Holdout:
    """Leave a chemical system out, e.g. "Fe-O": compounds of exactly these elements."""
    wanted = "-".join(sorted(part.strip() for part in system.split("-")))
    chosen = chemical_systems(formulas) == wanted
    return group_holdout(chosen, f"the system {wanted}", pool_share=pool_share, seed=seed, groups=groups)


def space_group_holdout(
    structures: Structures,
    number: int,
    *,
    pool_share: float = 0.2,
    seed: int = 0,
    groups: Labels | None = None,
) -> Holdout:
    """Leave the crystals of a space group (1 to 230) out."""
    chosen = find_space_groups(structures) == number
    return group_holdout(chosen, f"space group {number}", pool_share=pool_share, seed=seed, groups=groups)


def prototype_holdout(
    structures: Structures, prototype: str, *, pool_share: float = 0.2, seed: int = 0, groups: Labels | None = None
) -> Holdout:
    """Leave the crystals of a prototype out; see `groups.prototypes` for its name."""
    chosen = prototypes(structures) == prototype
    return group_holdout(chosen, f"prototype {prototype}", pool_share=pool_share, seed=seed, groups=groups)


def time_holdout(
    material_ids: Sequence[str],
    *,
    share: float = 0.2,
    pool_share: float = 0.2,
    seed: int = 0,
    groups: Labels | None = None,
) -> Holdout:
    """Hide what came last: the rows with the highest numbers in their identifiers, such as mp-149.

    Numbers of the Materials Project grow with the time of entry, with exceptions; it is a likeness of time, no more.

    Args:
        material_ids: (n,) with a number in each.
        share: of the rows that is hidden.
        pool_share: share of the other rows that go into the pool.
        seed: of that choice.
        groups: (n,) labels; training rows whose group is also in the pool are dropped, see `value_holdout`.

    Raises:
        ValueError: an identifier without a number, or a part that is empty.
    """
    numbers = id_numbers(material_ids)
    # Largest numbers first, i.e. the latest.
    order = np.argsort(-numbers, kind="stable")
    chosen = np.zeros(len(numbers), dtype=bool)
    chosen[order[: round(share * len(numbers))]] = True
    return group_holdout(chosen, f"the latest {share:.0%}", pool_share=pool_share, seed=seed, groups=groups)


def _best_first(y: FloatArray, goal: str) -> IntArray:
    if goal not in ("maximize", "minimize"):
        raise ValueError(f"a value holdout needs the goal maximize or minimize, not {goal!r}")
    return np.argsort(-y if goal == "maximize" else y, kind="stable")


def _split(
    hidden: IntArray, others: IntArray, pool_share: float, seed: int, groups: Labels | None, what: str
) -> Holdout:
    random = np.random.default_rng(seed)
    rest = random.permutation(others)
    n_seen = int(pool_share * len(rest))
    if not len(hidden):
        raise ValueError(f"nothing to hide: there are no {what.removeprefix('the ')} among {len(others)} rows")
    if len(rest) - n_seen < FEWEST:
        raise ValueError(f"{len(rest) - n_seen} rows are left to learn from when {what} are hidden")
    pool = random.permutation(np.concatenate([hidden, rest[:n_seen]]))
    train = np.sort(rest[n_seen:])
    dropped = np.empty(0, dtype=np.int64)
    if groups is not None:
        # Left out of the training part, not of the pool: what is asked stays the same with and without groups.
        straddling = np.isin(groups[train].astype(str), groups[pool].astype(str))
        train, dropped = train[~straddling], train[straddling]
        if len(train) < FEWEST:
            raise ValueError(f"{len(train)} rows are left to learn from when those of a group in the pool are dropped")
    return Holdout(train, pool, np.isin(pool, hidden), dropped, what)
