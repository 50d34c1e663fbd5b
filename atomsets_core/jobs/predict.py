"""Predictions of a saved model for everything a source or a feature store holds, block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.features import (
    SHARD_SIZE,
    AnyFeatures,
    FeatureStore,
    featurize,
    join_stored,
)
from atomsets_core.models import AtomSetsClassifier, ClassPrediction, Model, Prediction
from atomsets_core.sources import Catalogue, Pulled, SourceError
from atomsets_core.storage import Store, csv_text
from atomsets_core.structures import MATTER_KINDS, NO_BULK, Refusal, Structures, matter_kinds

Block = tuple[pd.DataFrame, list[Refusal]]
"""Predictions of some structures, and the entries among them without one."""


def predictions(
    pulled: Pulled, model: Model, store: Store | None = None, targets: tuple[str, ...] = ()
) -> Iterator[Block]:
    """Predictions for every structure of a source that the parent can take, block by block, in the order of the source.

    Args:
        pulled: structures or compositions.
        model: fitted.
        store: feature store; features it lacks are made and stay there.
        targets: names of the targets of a model with several.

    Yields:
        A table, and every entry without a prediction. The table has material_id, formula; for regression predicted,
        lower, upper, std (unit of the target) and std_scale (on the model's scale), of each target where there are
        several (predicted_K, ...); for classification predicted and the probability of each class (p_metal, ...);
        in_domain, distance, matter (of structures, a word of `MATTER_KINDS`), remark.
    """
    spec = str(model.spec_)
    nothing, _ = _table(model, featurize(pulled.structures.take([]), spec), targets)
    yield _with_matter(nothing, pulled.structures.take([])), list(pulled.refused)
    for start in range(0, len(pulled.structures), SHARD_SIZE):
        part = pulled.structures.take(np.arange(start, min(start + SHARD_SIZE, len(pulled.structures))))
        frame, refused = _table(model, featurize(part, spec, store), targets)
        yield _with_matter(frame, part), refused


def _with_matter(frame: pd.DataFrame, offered: Any) -> pd.DataFrame:
    """The table with what kind of matter each structure is, and a remark for what is no bulk crystal."""
    structures = offered.structures() if isinstance(offered, Catalogue) else offered
    if not isinstance(structures, Structures):
        return frame
    row = {name: i for i, name in enumerate(structures.material_id)}
    words = matter_kinds(structures.take([row[name] for name in frame["material_id"]]))
    said = [f"{word}: {MATTER_KINDS[word]}" if word in NO_BULK else "" for word in words]
    remarks = ["; ".join(filter(None, both)) for both in zip(frame["remark"], said, strict=True)]
    frame = frame.assign(remark=remarks)
    frame.insert(frame.columns.get_loc("remark"), "matter", words)
    return frame


def stored_predictions(store: Store, model: Model, targets: tuple[str, ...] = ()) -> Iterator[Block]:
    """Predictions for every structure of a feature store, shard by shard; identifiers are structure hashes.

    Raises:
        SourceError: the store has no features of the model's levels.
    """
    spec = model.spec_
    stores = {name: FeatureStore(store, name, model.parents_[name], spec.needed(name)) for name in spec.parents}
    everything = [where.whole().structure_hash for where in stores.values()]
    common = set.intersection(*map(set, everything))
    hashes = [h for h in everything[0] if h in common]
    if not hashes:
        raise SourceError(f"{store.root}: no shard has the features {spec}")
    parts = {name: where.find(hashes) for name, where in stores.items()}
    stored = next(iter(parts.values())) if len(parts) == 1 else join_stored(parts)
    for _, block in stored.blocks():
        yield _table(model, block, targets)


def _table(model: Model, features: AnyFeatures, targets: tuple[str, ...]) -> Block:
    columns: dict[str, Any] = {"material_id": features.material_id, "formula": features.formula}
    result: Prediction | ClassPrediction
    if isinstance(model, AtomSetsClassifier):
        result = classes = model.predict_distribution(features)
        columns["predicted"] = classes.label
        for name, probability in zip(model.classes_.tolist(), classes.probability.T, strict=True):
            columns[f"p_{name}"] = probability
    else:
        result = model.predict_distribution(features)
        several = model.n_targets_ is not None
        names = [f"_{name}" for name in targets or map(str, range(model.n_targets_ or 0))] if several else [""]
        for what in ("predicted", "lower", "upper", "std", "std_scale"):
            for name, values in zip(names, np.atleast_2d(result.columns()[what].T), strict=True):
                columns[f"{what}{name}"] = values
    columns["in_domain"], columns["distance"] = result.in_domain, result.distance
    flagged = features.flagged
    columns["remark"] = [flagged.get(h, "") for h in features.structure_hash]
    return pd.DataFrame(columns), list(features.refused)


@dataclass
class Written:
    """What a file of predictions holds.

    Attributes:
        predicted: rows.
        inside: those of them inside the domain.
        no_bulk: those of structures that are no bulk crystals: molecules, slabs and wires.
        refused: entries without a prediction.
    """

    predicted: int = 0
    inside: int = 0
    no_bulk: int = 0
    refused: list[Refusal] = field(default_factory=list)


def write_predictions(blocks: Iterable[Block], store: Store, name: str) -> Written:
    """Write predictions as they come, as CSV or Parquet by the name's ending; the file appears when all are there."""
    found = Written()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(store.replacing(name))
        parquet: pq.ParquetWriter | None = None
        for number, (frame, refused) in enumerate(blocks):
            if name.endswith(".csv"):
                file.write(csv_text(frame, header=number == 0).encode())
            else:
                schema = _schema(frame)
                if parquet is None:
                    parquet = stack.enter_context(pq.ParquetWriter(file, schema, compression="zstd"))
                parquet.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
            found.predicted += len(frame)
            found.inside += int(frame["in_domain"].sum())
            found.no_bulk += int(frame["matter"].isin(NO_BULK).sum()) if "matter" in frame else 0
            found.refused.extend(refused)
    return found


def _schema(frame: pd.DataFrame) -> pa.Schema:
    """The same for every block, also for one without rows."""

    def kind(name: str) -> pa.DataType:
        if name in ("material_id", "formula", "matter", "remark"):
            return pa.string()
        values = frame[name]
        if pd.api.types.is_bool_dtype(values):
            return pa.bool_()
        if pd.api.types.is_integer_dtype(values):
            return pa.int64()
        return pa.float64() if pd.api.types.is_numeric_dtype(values) else pa.string()

    return pa.schema([(name, kind(name)) for name in frame.columns])
