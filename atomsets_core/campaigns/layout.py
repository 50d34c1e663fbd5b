"""The layout of a campaign's folder: every file it holds, by name, and nowhere else is one spelled.

Names are relative to the folder or URL of the campaign. A name with a key in it is a function of that key.
"""

from __future__ import annotations

import re

from atomsets_core.models import ARRAYS, CONFIG
from atomsets_core.storage import FOLDER

# The campaign and its outcome.

ASKED = "campaign.json"
"""The campaign as it was asked for."""

PROGRESS = "progress.json"
"""How far the run is, or how it ended."""

RANKING = "ranking.parquet"
"""Every ranked candidate, best first."""

RANKING_CSV = "ranking.csv"
"""The same for people and spreadsheets."""

FAILURES = "failures.parquet"
"""The ledger of what could not be used; of a model, a parent and a feature store too."""

SUMMARY = "summary.json"
"""What was asked, done and found, in numbers; of a feature store too."""

EVIDENCE = "evidence.json"
"""What stands behind the shortlist."""

MAP = "map.parquet"
"""Points of the map of feature space."""

FUNNEL = "funnel.parquet"
"""Every candidate in the order of the cheap ranking, and which of them were looked at closely."""

REPORT = "report.html"
"""What people read; of a discovery too."""

OUTCOME = (RANKING, RANKING_CSV, FAILURES, SUMMARY, EVIDENCE, MAP, REPORT)
"""What the end of a run writes and seals, the summary being what the others are checked against."""

JOINT_OUTCOME = (RANKING, RANKING_CSV, FAILURES, SUMMARY, EVIDENCE, REPORT)
"""The same of a campaign of several properties."""

# What one run leaves for the next.

STANDING = "standing.json"
"""What the last finished run depended on and wrote."""

CHANGES = "changes.json"
"""What the last run changed, and a line for each run before."""

OUTPUTS = (*OUTCOME, CHANGES)
"""What every finished run leaves, beside its model."""

HISTORY = "history"
"""Folder of what was before."""

CONFRONTED = f"{HISTORY}/confronted.parquet"
"""Predictions that met a value."""

RANKED_BEFORE = f"{HISTORY}/ranking-"
"""How the names begin of what single runs ranked."""


def ranking_name(run: int) -> str:
    """What a run ranked, as far as the next one needs it."""
    return f"{RANKED_BEFORE}{run:05d}.parquet"


def record_name(run: int) -> str:
    """What a run changed."""
    return f"{HISTORY}/run-{run:05d}.json"


# Structures.

LABELLED = "structures/labelled.parquet"
"""material_id, structure_hash, formula and value of every training row, in training order."""

KNOWN = "structures/known.parquet"
"""Candidates of one property of several whose value is known: material_id, structure_hash, value, reason."""

PAGES = "structures/pages"
"""Folder of what came of the Materials Project, until the next pull."""


def structures_name(dataset: str) -> str:
    """What the source of a data set gave: "training" or "candidates"."""
    return f"structures/{dataset}.parquet"


def provenance_name(dataset: str) -> str:
    """Where that is from."""
    return f"structures/{dataset}.json"


def ahead_name(dataset: str) -> str:
    """What is pulled before the screening asks for it; gone when the pull ends, which leaves its pages."""
    return f"structures/ahead-{dataset}.parquet"


def queue_name(dataset: str) -> str:
    """Structures that wait for features; gone when they have them."""
    return f"structures/queue-{dataset}.parquet"


STRUCTURES = (
    *(name(dataset) for dataset in ("training", "candidates") for name in (structures_name, provenance_name)),
    LABELLED,
)
"""What a run writes on its way."""

FEATURES = "features"
"""Folder of the feature store, unless the campaign names another."""

PROPERTIES = "properties"
"""Folder of the properties' own campaigns, where there are several."""


def property_folder(name: str) -> str:
    """Folder of the campaign of one property of several."""
    return f"{PROPERTIES}/{name}"


# Models, and what is made with them.

MODELS = "models"
"""Folder of the models' folders."""

REGISTRY = f"{MODELS}/registry.json"
"""Which model answers, and what was decided when."""

OUT_OF_FOLD = "out_of_fold.parquet"
"""Training rows of a model, with the fold of each and its prediction by the members that did not see it."""

CARD = "MODEL.md"
"""What people should know of a model."""

CHECKPOINT = "checkpoint.safetensors"
"""A training that isn't finished; gone when it is."""

MODEL_FILES = (CONFIG, ARRAYS, OUT_OF_FOLD)
"""Files of a trained model that must be there and sound."""


def model_folder(key: str) -> str:
    """Folder of a model, by 16 hex digits from everything it depends on."""
    return f"{MODELS}/{key}"


def model_files(folder: str) -> list[str]:
    """The files of a campaign's model that must be there and sound."""
    return [f"{folder}/{name}" for name in MODEL_FILES]


def discovery_name(key: str, seed: int) -> str:
    """Scores of one simulated discovery."""
    return f"discovery/{key}-seed-{seed}.json"


def choice_name(definition: str) -> str:
    """Which features were chosen for a campaign, by the digest of all that it is defined by."""
    return f"choices/{definition[:16]}.json"


def predictions_folder(model: str) -> str:
    """Folder of the predictions that a model made; `model` is its folder."""
    return f"predictions/{model.partition('/')[2]}"


def predictions_name(model: str, shard: str) -> str:
    """Predictions for the structures of one feature shard, by its key."""
    return f"{predictions_folder(model)}/{shard}.parquet"


def duel_name(challenger: str, champion: str, part: str = "") -> str:
    """A challenger, by the last part of its folder, against the champion: the verdict, or "folds", "seed-0" of it."""
    return f"duels/{challenger}-against-{champion}{part and f'-{part}'}.json"


_KEY, _RUN = r"[0-9a-f]{16}", r"\d{5,}"

_RESULT = re.compile(
    rf"{MODELS}/{_KEY}/({'|'.join(map(re.escape, MODEL_FILES))})|discovery/{_KEY}-seed-\d+\.json|predictions/.+|"
    rf"choices/{_KEY}\.json"
)

_PASSING = re.compile(r"(.*/)?\.[^/]+\.[0-9a-f]{8}\.tmp|structures/queue-[a-z]+\.parquet")

_OF_PROPERTY = re.compile(rf"{PROPERTIES}/[A-Za-z][A-Za-z0-9_]*/(.+)")

_OTHER = re.compile(
    rf"{PAGES}/.+|structures/ahead-[a-z]+\.(parquet|json)|{FEATURES}/.+|{MODELS}/{_KEY}/({CARD}|{CHECKPOINT})|"
    rf"duels/{_KEY}-against-{_KEY}(-folds|-seed-\d+)?\.json|{RANKED_BEFORE}{_RUN}\.parquet|{HISTORY}/run-{_RUN}\.json"
)


def is_result(name: str) -> bool:
    """Whether it is a sealed result under a key: of a model, a simulated discovery, predictions or a choice."""
    return _RESULT.fullmatch(name) is not None


def is_passing(name: str) -> bool:
    """Whether it is there only while a run is at work: what a stopped run leaves of these, nobody reads."""
    return _PASSING.fullmatch(name) is not None


def is_known(name: str) -> bool:
    """Whether it is a file of a campaign's folder at all; of the checksums, those of files that are."""
    if name.startswith(f"{FOLDER}/"):
        return is_known(name.removeprefix(f"{FOLDER}/").removesuffix(".sha256"))
    if inner := _OF_PROPERTY.fullmatch(name):
        return is_known(inner[1])
    named = {ASKED, PROGRESS, STANDING, FUNNEL, *OUTPUTS, CONFRONTED, *STRUCTURES, KNOWN, REGISTRY}
    return name in named or is_result(name) or is_passing(name) or _OTHER.fullmatch(name) is not None
