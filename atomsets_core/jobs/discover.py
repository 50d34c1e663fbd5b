"""What a worker does for `atomsets discover`: one answer of one head, or one search, from files to a file.

The folder holds plan.json (what is asked), rows.parquet (structures and values of each target) and features/. Arguments
are names and numbers, so that any scheduler can carry them; a file that is there is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.discovery import (
    Design,
    GaussianProcessHead,
    Objective,
    Rows,
    Search,
    answer,
    lineup,
    search,
    specifications,
)
from atomsets_core.features import FeatureStore, featurize_into, parse_features
from atomsets_core.parents import Features
from atomsets_core.storage import Store
from atomsets_core.structures import Structures, from_arrow
from atomsets_core.transforms import transform_target

PLAN, ROWS = "plan.json", "rows.parquet"


def featurize_rows(store_url: str, parent: str) -> dict[str, Any]:
    """Make what is missing of a parent's features of all rows.

    Returns:
        rows, refused and seconds.
    """
    started = time.perf_counter()
    store = Store(store_url)
    structures, _, _ = from_arrow(store.read_table(ROWS))
    stored = _stored(store, parent, structures)
    return {"rows": len(stored), "refused": len(stored.refused), "seconds": time.perf_counter() - started}


def _stored(store: Store, parent: str, structures: Structures):  # type: ignore[no-untyped-def]
    plan = store.read_json(PLAN)
    levels = parse_features(plan["specifications"][parent]).needed(parent)
    shards = Store(plan["features"] or store.url("features"))
    return featurize_into(FeatureStore.of(shards, parent, levels), structures)


@lru_cache(maxsize=2)
def load_rows(store_url: str) -> tuple[Rows, dict[str, npt.NDArray[np.float64]]]:
    """The n rows that every parent can take, and target -> (n,) values on the scale that models work on."""
    store = Store(store_url)
    plan, table = store.read_json(PLAN), store.read_table(ROWS)
    structures, _, _ = from_arrow(table)
    stored = {name: _stored(store, name, structures) for name in specifications(plan["parents"])}
    # What one parent refused is refused: the join leaves it out of the others' too.
    parts: dict[str, Features] = {name: replace(one.load(), refused=one.refused) for name, one in stored.items()}
    joined = Features.join(parts)
    place = {h: row for row, h in reversed(list(enumerate(structures.hashes)))}
    kept = np.array([place[h] for h in joined.structure_hash], dtype=np.int64)
    values = {
        name: transform_target(table[f"value:{name}"].to_numpy()[kept], plan["transform"]) for name in plan["targets"]
    }
    return Rows(joined, structures.take(kept)), values


def design_of(plan: Mapping[str, Any]) -> Design:
    """The design in a plan."""
    return Design(plan["goal"], plan["quantile"], plan["pool_share"], plan["strict"])


def answer_one(store_url: str, target: str, head: str, seed: int, name: str) -> dict[str, Any]:
    """What one head says in one simulated discovery, written as JSON.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    store = Store(store_url)
    plan = store.read_json(PLAN)
    rows, values = load_rows(store_url)
    entry = lineup(plan["parents"])[head]
    found = answer(entry.head, rows, values[target], design_of(plan), seed, with_inner=entry.eligible)
    store.write_json(name, found)
    return {"seconds": time.perf_counter() - started}


def search_rules(plan: Mapping[str, Any], target: str, kind: str, diversity: str) -> Search:
    """The rules of one search of a plan."""
    asked = plan["search"]
    return Search(
        objectives={target: Objective(plan["goal"])},
        share=asked["share"],
        n_start=asked["n_start"],
        batch=asked["batch"],
        rounds=asked["rounds"],
        kind=kind,
        kappa=asked["kappa"],
        diversity=diversity,
    )


def search_one(store_url: str, target: str, kind: str, diversity: str, seed: int, name: str) -> dict[str, Any]:
    """One sequential discovery with the Gaussian process, written as JSON.

    Returns:
        seconds.
    """
    started = time.perf_counter()
    store = Store(store_url)
    plan = store.read_json(PLAN)
    rows, values = load_rows(store_url)
    spec = list(specifications(plan["parents"]).values())[-1]
    head = GaussianProcessHead(spec)
    found = search(head, rows, values, search_rules(plan, target, kind, diversity), seed, vectors=rows.pooled(spec))
    store.write_json(name, {**found, "seconds": time.perf_counter() - started})
    return {"seconds": time.perf_counter() - started}
