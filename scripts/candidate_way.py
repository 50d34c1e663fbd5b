"""A candidate's way from its CIF to its row in ranking.csv: which files of the house it goes through.

    python scripts/candidate_way.py            the files, in the order they are entered, and how many
    python scripts/candidate_way.py --pairs    also every hand-off: a file whose code calls that of another

A folder of CIFs is screened by the same tasks as in a campaign, with a model of 60 labels that was trained before; work
for Dask is done in this process. What is counted is every file of the house in which a function runs between the CIF
and the row; training, report and what only watches a run are not on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core import jobs
from atomsets_core.campaigns import LABELLED
from atomsets_core.features import FeatureStore, Piece, write_queue
from atomsets_core.jobs import Wish
from atomsets_core.parents import load_parent
from atomsets_core.sources import Catalogue, load_elastic, load_flla
from atomsets_core.storage import Store
from atomsets_tasks import ShardJob, featurize_shard, predict_shard, pull_source, rank, select

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("atomsets_core", "tasks", "flows")

FLOW = "flows/runs/screen.py"
"""Hands the candidate from task to task; a server would have to run for it to be followed."""


class Way:
    """Files and hand-offs, as they are met."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {FLOW: None}
        self.pairs: dict[tuple[str, str], None] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Follow what runs inside, in every thread."""
        threading.setprofile(self._met)
        sys.setprofile(self._met)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _met(self, frame: FrameType, event: str, _: Any) -> None:
        own = _file(frame.f_code.co_filename)
        if event != "call" or own is None or frame.f_code.co_name == "<module>":
            return
        self.files.setdefault(own)
        caller = frame.f_back
        while caller is not None and _file(caller.f_code.co_filename) is None:
            caller = caller.f_back
        other = FLOW if caller is None else _file(caller.f_code.co_filename)
        if other and other != own and (caller is None or caller.f_code.co_name != "<module>"):
            self.pairs.setdefault((other, own))


@cache
def _file(name: str) -> str | None:
    path = Path(name).resolve()
    if not path.is_relative_to(ROOT):
        return None
    inside = path.relative_to(ROOT)
    return str(inside) if inside.parts[0] in FOLDERS else None


def follow(folder: Path) -> Way:
    """Screen 40 CIFs in `folder` and note the way."""
    way, store = Way(), Store(folder)
    digest, levels = load_parent("megnet").digest, ("V0", "V1", "V2", "V3")
    features = FeatureStore(Store(folder / "features"), "megnet", digest, levels)
    known = load_elastic().to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"]).slice(0, 60)
    pq.write_table(known, folder / "known.parquet")
    (folder / "cifs").mkdir()
    offered = load_flla().structures.take(np.arange(40))
    for name, structure in zip(offered.material_id, offered.to_pymatgen(), strict=True):
        structure.to(filename=str(folder / "cifs" / f"{name}.cif"))
    labelled = pull_source.fn("training", str(folder / "known.parquet"), None, "material_id", store)
    with way.watched():
        candidates = pull_source.fn("candidates", str(folder / "cifs"), None, "material_id", store)
    chosen = select.fn(store, labelled, candidates, "K_VRH", "log10", {}, [], [], True)
    model = trained(store, features, chosen.training, chosen.values)
    with way.watched():
        select.fn(store, labelled, candidates, "K_VRH", "log10", {}, [], [], True)
        made(store, features, chosen.candidates)
        predictions = []
        for entry in features.locate(chosen.candidates.digests()).entries:
            predictions.append(f"predictions/{entry.key}.parquet")
            predict_shard.fn(1, 1, store, features, Piece(entry), model, predictions[-1])
        wish = Wish(goal="maximize", acquisition="ucb", best=float(chosen.values.max()), shortlist=8, diversity=0.2)
        rank.fn(store, predictions, chosen.candidates, wish, "log10", "GPa", features, model)
    if len((folder / "ranking.csv").read_text().splitlines()) < 30:
        raise RuntimeError("the candidates did not arrive")
    return way


def trained(store: Store, features: FeatureStore, known: Catalogue, values: np.ndarray) -> str:
    """A small model of the known structures; its folder."""
    made(store, features, known)
    lines = known.lines
    columns = {"material_id": lines.material_id, "structure_hash": lines.hashes, "formula": lines.formulas}
    table = pa.table({**{name: pa.array(column) for name, column in columns.items()}, "value": values})
    store.write_table(LABELLED, table)
    spec = f"{features.parent}:{'+'.join(features.levels)}"
    parameters = {"features": spec, "transform": "log10", "members": 2, "folds": 2, "epochs": 3}
    about = {"target": "K_VRH", "unit": "GPa", "training_source": "embedded:elastic", "training_data_sha256": ""}
    jobs.train_model(store, features, parameters, "models/way", {"campaign": "way", **about})
    return "models/way"


def made(store: Store, features: FeatureStore, structures: Catalogue) -> None:
    """Make the shards of some structures, as a campaign does."""
    groups = write_queue(store, "structures/queue.parquet", structures.groups(64))
    for number, hashes in enumerate(groups):
        job = ShardJob(store, "structures/queue.parquet", number, features, features.shard_key(hashes))
        featurize_shard.fn(number + 1, len(groups), job)


def main() -> None:
    """Print the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", action="store_true", help="also every hand-off")
    options = parser.parse_args()
    logger = logging.getLogger("way")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        # Outside a flow there is no logger of a run, and no cluster: work is done here.
        for name, module in sorted(sys.modules.items()):
            if name.startswith("atomsets_tasks.") and hasattr(module, "get_run_logger"):
                stack.enter_context(mock.patch.object(module, "get_run_logger", return_value=logger))
        stack.enter_context(mock.patch("atomsets_tasks.client.run", side_effect=lambda work, *args, **_: work(*args)))
        way = follow(Path(folder))
    for file in way.files:
        print(file)
    if options.pairs:
        for caller, called in way.pairs:
            print(f"{caller} -> {called}")
    print(f"{len(way.files)} files, {len(way.pairs)} hand-offs")


if __name__ == "__main__":
    main()
