"""Decide what is learned from and what is ranked, with a reason for everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from atomsets_core.labels import filter_reasons, usable_labels
from atomsets_core.matching import already_seen
from atomsets_core.sources import Pulled, SourceError
from atomsets_core.structures import Refusal, Structures


@dataclass(frozen=True)
class Selection:
    """What a campaign works on.

    Attributes:
        training: structures with a usable label.
        values: (len(training),) their labels.
        candidates: structures that passed every filter.
        columns: their other columns.
        filtered: reason -> number of candidates it left out.
        refused: ("training" or "candidates", refusal) so far.
    """

    training: Structures
    values: npt.NDArray[np.float64]
    candidates: Structures
    columns: pd.DataFrame
    filtered: dict[str, int]
    refused: list[tuple[str, Refusal]]


@task(task_run_name="select", cache_policy=NO_CACHE)
def select(
    training: Pulled,
    candidates: Pulled,
    target: str,
    transform: str,
    bounds: Mapping[str, tuple[float | None, float | None]],
    exclude_elements: Sequence[str],
    only_elements: Sequence[str],
    exclude_seen: bool,
) -> Selection:
    """Usable labels of the training data; candidates that pass the filters and are not in the training data."""
    usable, unlabelled = usable_labels(training, target, transform)
    labelled = training.structures.take(np.flatnonzero(usable))
    values = pd.to_numeric(training.columns[target], errors="coerce").to_numpy(dtype=np.float64)[usable]
    reasons = filter_reasons(candidates, bounds, exclude_elements, only_elements)
    if exclude_seen:
        passing = np.flatnonzero(reasons == "")
        reasons[passing] = already_seen(candidates.structures.take(passing), labelled)
    kept = np.flatnonzero(reasons == "")
    filtered = Counter(str(reason) for reason in reasons if reason)
    if not len(kept):
        raise SourceError(f"no candidate is left of {candidates.n_seen}: {dict(filtered) or 'none could be used'}")
    get_run_logger().info(
        "%d labels to learn from, %d candidates to rank, %d filtered out",
        len(labelled),
        len(kept),
        sum(filtered.values()),
    )
    return Selection(
        training=labelled,
        values=values,
        candidates=candidates.structures.take(kept),
        columns=candidates.columns.iloc[kept].reset_index(drop=True),
        filtered=dict(filtered.most_common()),
        refused=[
            *(("training", refusal) for refusal in [*training.refused, *unlabelled]),
            *(("candidates", refusal) for refusal in candidates.refused),
        ],
    )
