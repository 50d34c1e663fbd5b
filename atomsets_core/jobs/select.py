"""Decide what is learned from and what is ranked, with a reason for everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources import Catalogue, PulledFile, SourceError, already_seen_lines, filter_reasons, usable_labels
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal


@dataclass(frozen=True)
class Selection:
    """What a campaign works on.

    Attributes:
        training: structures with a usable label.
        values: (len(training),) their labels.
        candidates: structures that passed every filter.
        filtered: reason -> number of candidates it left out.
        refused: ("training" or "candidates", refusal) so far.
    """

    training: Catalogue
    values: npt.NDArray[np.float64]
    candidates: Catalogue
    filtered: dict[str, int]
    refused: list[tuple[str, Refusal]]


def select(
    store: Store,
    training: PulledFile,
    candidates: PulledFile,
    target: str,
    transform: str,
    bounds: Mapping[str, tuple[float | None, float | None]],
    exclude_elements: Sequence[str],
    only_elements: Sequence[str],
    exclude_seen: bool,
) -> Selection:
    """Usable labels of the training data; candidates that pass the filters and are not in the training data.

    Args:
        store: of the campaign.
        training: what the source of the labels gave.
        candidates: what the source of the candidates gave.
        target: column of the labels.
        transform: which labels are usable depends on it.
        bounds: column -> lowest and highest value that pass; also n_atoms and n_elements.
        exclude_elements: that a candidate must not hold.
        only_elements: that a candidate may hold; all where none is named.
        exclude_seen: leave out what is in the training data.

    Raises:
        SourceError: no label or no candidate is left; the message counts the reasons.
    """
    labelled, values, unlabelled = with_labels(store, training, target, transform)
    offered = Catalogue.open(store, candidates.name)
    columns = [name for name in bounds if name not in ("n_atoms", "n_elements")]
    reasons = filter_reasons(offered.pulled(columns, _name(candidates)), bounds, exclude_elements, only_elements)
    if exclude_seen:
        passing = np.flatnonzero(reasons == "")
        reasons[passing] = already_seen_lines(offered.take(passing), labelled)
    kept = np.flatnonzero(reasons == "")
    filtered = Counter(str(reason) for reason in reasons if reason)
    if not len(kept):
        raise SourceError(f"no candidate is left of {candidates.n_seen}: {dict(filtered) or 'none could be used'}")
    return Selection(
        training=labelled,
        values=values,
        candidates=offered.take(kept),
        filtered=dict(filtered.most_common()),
        refused=[
            *(("training", refusal) for refusal in [*training.refused, *unlabelled]),
            *(("candidates", refusal) for refusal in candidates.refused),
        ],
    )


def with_labels(
    store: Store, training: PulledFile, target: str, transform: str
) -> tuple[Catalogue, npt.NDArray[np.float64], list[Refusal]]:
    """Structures with a usable label, their (n,) labels, and a refusal for each other one."""
    known = Catalogue.open(store, training.name)
    named = known.pulled([target], _name(training))
    usable, unlabelled = usable_labels(named, target, transform)
    values = pd.to_numeric(named.columns[target], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return known.take(usable), values[usable], unlabelled


def _name(file: PulledFile) -> str:
    return str(file.provenance.get("name", "the source"))
