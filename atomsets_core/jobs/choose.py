"""Which features a campaign uses, where it leaves that open: what each choice costs, and which predicts best."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atomsets_core.features import AnyStore, parse_features, read_queued, size_of
from atomsets_core.jobs.train import read_labelled
from atomsets_core.models import choose as choose_recipe
from atomsets_core.parents import load_parent, resolve_device
from atomsets_core.storage import Store, seal
from atomsets_core.structures import Compositions, Structures
from atomsets_core.transforms import transform_target


@dataclass(frozen=True)
class Choosing:
    """What is chosen from.

    Attributes:
        features: every level that one of the specifications needs.
        specs: the specifications, the richest first.
        left_open: parameters of the model that the choice may set, see `models.choose`.
    """

    features: AnyStore
    specs: tuple[str, ...]
    left_open: tuple[str, ...]


@dataclass(frozen=True)
class Price:
    """What features of one parent cost, measured.

    Attributes:
        parent: its name.
        levels: that are made.
        seconds: of processor time for a structure.
        size: bytes of shards for a structure.
    """

    parent: str
    levels: tuple[str, ...]
    seconds: float
    size: float


def price_features(store: Store, queue: str, specs: Sequence[str]) -> dict[str, dict[str, float]]:
    """What a structure costs by each specification, measured on those of the queue.

    Args:
        store: of the queue.
        queue: name of the file, see `write_queue`; its first row group counts.
        specs: e.g. "megnet:V0+V1,chgnet:site".

    Returns:
        Specification -> "seconds" of processor time and "bytes" of its shards, for a structure; one that can't be made
        here is left out.
    """
    return {
        text: {"seconds": sum(part.seconds for part in parts), "bytes": sum(part.size for part in parts)}
        for text, parts in prices(read_queued(store, queue, 0), specs).items()
    }


def prices(materials: Structures | Compositions, specs: Sequence[str]) -> dict[str, list[Price]]:
    """Specification -> what each of its parents takes, measured on these materials; one that can't be made is left out.

    What several specifications need alike is measured once.
    """
    known: dict[tuple[str, tuple[str, ...]], Price] = {}
    found: dict[str, list[Price]] = {}
    for text in specs:
        try:
            spec = parse_features(text)
            parts = [(name, spec.needed(name)) for name in spec.parents]
            for part in parts:
                if part not in known:
                    known[part] = _price(materials, *part)
        except (ValueError, KeyError, FileNotFoundError):
            continue
        found[text] = [known[part] for part in parts]
    return found


def _price(materials: Structures | Compositions, parent: str, levels: tuple[str, ...]) -> Price:
    network = load_parent(parent, str(resolve_device("auto")))
    network.featurize(materials.take(np.arange(min(2, len(materials)))), levels)  # compiles, loads
    started = time.process_time()
    features = network.featurize(materials, levels)
    seconds = time.process_time() - started
    return Price(parent, levels, seconds / len(materials), size_of(features, parent) / max(1, len(features)))


def choose_features(
    store: Store, choosing: Choosing, parameters: Mapping[str, Any], priced: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Choose on all labelled structures; the choice is written as JSON.

    Args:
        store: of the campaign.
        choosing: what is chosen from.
        parameters: of the campaign's model.
        priced: what each choice costs, kept beside the choice.
        name: of the file.

    Returns:
        "features" (the specification), "parameters" (that were left open), "report" (a row for each specification and
        scale that was tried), "priced", "seconds".
    """
    started = time.perf_counter()
    table, values = read_labelled(store)
    hashes = table["structure_hash"].to_pylist()
    kept = choosing.features.locate(hashes).found
    features = choosing.features.find([h for h, there in zip(hashes, kept, strict=True) if there])
    told = chosen(features, values[kept], choosing, parameters)
    found = {**told, "priced": dict(priced), "seconds": round(time.perf_counter() - started, 3)}
    store.write_json(name, found)
    seal(store, name)
    return found


def chosen(features: Any, values: Any, choosing: Choosing, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The choice on these rows alone.

    Args:
        features: of n structures, at every level that may be chosen.
        values: (n,) their labels, in the unit of the target.
        choosing: what is chosen from.
        parameters: of the campaign's model.

    Returns:
        "features", "parameters", "report", see `choose_features`.
    """
    of_class = parameters.get("task") == "class"
    found = choose_recipe(
        features,
        values if of_class else transform_target(values, parameters["transform"]),
        "classification" if of_class else "regression",
        int(parameters.get("seed", 0)),
        candidates=choosing.specs,
    )
    taken = {key: value for key, value in found.parameters.items() if key in choosing.left_open}
    return {"features": found.features, "parameters": taken, "report": found.report}
