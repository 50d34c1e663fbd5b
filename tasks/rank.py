"""Join the predictions of all shards, score, rank and pick the shortlist."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core.estimators import transform_target
from atomsets_core.ranking import acquisition, diverse_shortlist
from atomsets_core.stages import gather_features
from atomsets_core.storage import Store
from atomsets_core.structures import Structures

OFFERED = 20
"""Candidates looked at for each place on the shortlist."""

COLUMNS = (
    "rank",
    "material_id",
    "formula",
    "predicted",
    "std",
    "lower",
    "upper",
    "e_above_hull",
    "in_domain",
    "score",
    "shortlist",
    "distance",
    "n_atoms",
    "remark",
    "structure_hash",
)


@task(task_run_name="rank", cache_policy=NO_CACHE)
def rank(
    store: Store,
    predictions: Sequence[str],
    candidates: Structures,
    columns: pd.DataFrame,
    *,
    goal: str,
    value: float | None,
    window: tuple[float, float] | None,
    kind: str,
    kappa: float,
    best: float,
    transform: str,
    size: int,
    diversity: float,
    unit: str,
    features: tuple[Store, str, str, Sequence[str]],
) -> pd.DataFrame:
    """Rank every candidate; write ranking.parquet and ranking.csv.

    Args:
        store: of the campaign.
        predictions: names of the prediction files.
        candidates: the structures to rank; one without a prediction is left out.
        columns: their other columns; e_above_hull is kept where there is one.
        goal: see `acquisition`, as the following five.
        value: in the unit of the target, for the goals "target" and "exceed".
        window: both ends in the unit of the target, for the goal "window".
        kind: acquisition.
        kappa: weight of the uncertainty.
        best: best training value in the unit of the target.
        transform: of the target.
        size: of the shortlist.
        diversity: see `diverse_shortlist`.
        unit: of the target.
        features: feature store, parent, its digest and levels, for the likeness of candidates.

    Returns:
        The ranking, best first. `std` is on the model's scale (decades where the transform is log10), like `score`.
    """
    frame = pd.DataFrame(
        {
            "material_id": candidates.material_id,
            "formula": candidates.formulas,
            "n_atoms": candidates.n_atoms,
            "structure_hash": candidates.hashes,
            "e_above_hull": pd.to_numeric(columns["e_above_hull"]) if "e_above_hull" in columns else np.nan,
        }
    )
    predicted = pd.concat([store.read_table(name).to_pandas() for name in predictions])
    predicted = predicted.drop_duplicates("structure_hash")
    frame = frame.merge(predicted, on="structure_hash", how="inner", validate="many_to_one")
    frame["score"] = acquisition(
        frame["mean"].to_numpy(),
        frame["std"].to_numpy(),
        goal=goal,
        kind=kind,
        kappa=kappa,
        best=float(transform_target([best], transform)[0]),
        target=None if value is None else float(transform_target([value], transform)[0]),
        window=None if window is None else _ends(window, transform),
    )
    frame = frame.sort_values(["score", "material_id"], ascending=[False, True], ignore_index=True)
    frame["rank"] = np.arange(1, len(frame) + 1)
    offered = frame.iloc[: OFFERED * size]
    feature_store, parent, digest, levels = features
    pooled = gather_features(feature_store, parent, digest, levels, list(offered["structure_hash"])).pooled(levels)
    scale = pooled.std(axis=0)
    chosen = diverse_shortlist(
        offered["score"].to_numpy(),
        pooled / np.where(scale > 1e-6, scale, 1.0),
        offered["formula"].to_numpy(dtype=object),
        size,
        diversity,
    )
    frame["shortlist"] = False
    frame.loc[chosen, "shortlist"] = True
    frame = frame[list(COLUMNS)]
    write_ranking(store, frame, unit, transform)
    get_run_logger().info(
        "ranked %d candidates, first is %s", len(frame), " ".join(frame.iloc[0][["material_id", "formula"]])
    )
    return frame


def _ends(window: tuple[float, float], transform: str) -> tuple[float, float]:
    low, high = transform_target(window, transform)
    return float(low), float(high)


def write_ranking(store: Store, frame: pd.DataFrame, unit: str, transform: str) -> None:
    """Write ranking.parquet, its units in the schema metadata, and ranking.csv."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    scale = f"log10({unit})" if transform == "log10" else unit
    metadata = {
        "predicted": unit,
        "lower": unit,
        "upper": unit,
        "std": scale,
        "score": scale,
        "e_above_hull": "eV/atom",
    }
    store.write_table("ranking.parquet", table.replace_schema_metadata({f"unit:{k}": v for k, v in metadata.items()}))
    text = io.StringIO()
    frame.to_csv(text, index=False, float_format="%.6g")
    store.write("ranking.csv", text.getvalue().encode())
