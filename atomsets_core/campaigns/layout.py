"""The layout of a campaign's folder: every file it holds, by name."""

from __future__ import annotations

EVIDENCE, MAP = "evidence.json", "map.parquet"

MODEL_FILES = ("model.json", "model.safetensors", "out_of_fold.parquet")
"""Files of a trained model in a campaign."""

LABELLED = "structures/labelled.parquet"
"""material_id, structure_hash, formula and value of every training row, in training order."""

ASKED = "campaign.json"
"""The campaign as it was asked for."""

OUTCOME = (
    "ranking.parquet",
    "ranking.csv",
    "failures.parquet",
    "summary.json",
    "evidence.json",
    "map.parquet",
    "report.html",
)
"""What the end of a run writes, the summary being what the others are checked against."""

STRUCTURES = (
    "structures/training.parquet",
    "structures/training.json",
    "structures/candidates.parquet",
    "structures/candidates.json",
    LABELLED,
)
"""What a run writes on its way."""
