"""A campaign of a few seconds, and what must be true of its folder whatever happened to it on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.campaigns.verification import verify
from atomsets_core.features.shards import folder
from atomsets_core.features.stored import FeatureStore
from atomsets_core.sources.embedded import load_elastic
from atomsets_core.storage.store import Store

N_TRAIN, N_CANDIDATES, SHARD = 40, 50, 10


def write_inputs(place: Path, skip: int = 0) -> None:
    """Labelled structures and candidates of few atoms, two of which can't be used; others with another `skip`."""
    elastic = load_elastic()
    by_size = np.argsort(elastic.structures.n_atoms, kind="stable")
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"]).take(pa.array(by_size))
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.take(pa.array(6 * np.arange(N_TRAIN) + skip)), place / "training.parquet")
    usable = table.take(pa.array(6 * np.arange(N_CANDIDATES) + 3 + skip)).drop_columns(["K_VRH"]).to_pylist()
    lattice = [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0]
    bad = [
        {"material_id": f"heavy-{skip}", "lattice": lattice, "Z": [95, 17], "frac": [0, 0, 0, 0.5, 0.5, 0.5]},
        {"material_id": "nowhere", "lattice": lattice, "Z": [11, 17], "frac": [0, 0, float("nan"), 0.5, 0.5, 0.5]},
    ]
    pq.write_table(pa.Table.from_pylist([*usable, *bad], table.schema.remove(4)), place / "candidates.parquet")


def campaign(inputs: Path, **sections: Any) -> dict[str, Any]:
    """The campaign as in its file."""
    raw: dict[str, Any] = {
        "name": "mini",
        "training": {
            "source": str(inputs / "training.parquet"),
            "target": "K_VRH",
            "unit": "GPa",
            "transform": "log10",
        },
        "candidates": {"source": str(inputs / "candidates.parquet")},
        "objective": {"shortlist": 5, "acquisition": "mean"},
        "features": {"shard_size": SHARD},
        "model": {"members": 2, "folds": 2, "epochs": 20, "phi": [8], "rho": [8]},
        "discovery": {"seeds": 1, "choose": False},
        "cluster": {"workers": 1},
    }
    for name, changes in sections.items():
        raw[name] = {**raw[name], **changes}
    return raw


def differences(out: Path, undisturbed: Path) -> list[str]:
    """What is wrong with a finished campaign; nothing where it is what the undisturbed one is."""
    found = []
    for name in ("ranking.parquet", "failures.parquet", "structures/labelled.parquet"):
        ours, theirs = pd.read_parquet(out / name), pd.read_parquet(undisturbed / name)
        if not ours.equals(theirs):
            found.append(f"{name} is another: {len(ours)} rows, {len(theirs)} undisturbed")
    if (out / "ranking.csv").read_bytes() != (undisturbed / "ranking.csv").read_bytes():
        found.append("ranking.csv is another")
    ours, theirs = (json.loads((place / "summary.json").read_text()) for place in (out, undisturbed))
    for name in ("counts", "model", "discovery", "choice"):
        if ours[name] != theirs[name]:
            found.append(f"{name} in summary.json is another")
    found += _shards_differ(out, undisturbed)
    found += [f"{finding.file}: {finding.fault}" for finding in verify(Store(out)).findings]
    return found


def _shards_differ(out: Path, undisturbed: Path) -> list[str]:
    found = []
    digest = json.loads((undisturbed / "summary.json").read_text())["model"]["parent_digest"]
    ours, theirs = (
        list(FeatureStore(Store(place / "features"), "megnet", digest, ()).entries()) for place in (out, undisturbed)
    )
    hashes = [h for entry in ours for h in (*entry.hashes, *entry.refused)]
    if len(hashes) != len(set(hashes)):
        found.append(f"{len(hashes) - len(set(hashes))} structures lie in two shards")
    if {h for entry in theirs for h in (*entry.hashes, *entry.refused)} != set(hashes):
        found.append("the shards hold other structures")
    files = {path.stem for path in (out / "features" / folder("megnet", digest)).glob("*.parquet")}
    if lost := files ^ {entry.key for entry in ours}:
        found.append(f"{len(lost)} shards are not in the manifest, or listed and not there")
    return found
