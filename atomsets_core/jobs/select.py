"""Decide what is learned from and what is ranked, with a reason for everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources import (
    OWN,
    RULES,
    Catalogue,
    PulledFile,
    SourceError,
    already_seen_lines,
    crystal_keys,
    filter_reasons,
    label_values,
    settle,
    sizes_differ,
    unit_of,
    unread_filters,
    usable_labels,
)
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal

FAILED = "\0failed"
"""Stands for candidates that failed where others were filtered."""


@dataclass(frozen=True)
class Selection:
    """What a campaign works on.

    Attributes:
        training: structures with a usable label.
        values: (len(training),) their labels.
        candidates: structures that passed every filter.
        filtered: reason -> number of candidates it left out.
        refused: ("training" or "candidates", refusal) so far.
        notes: what the user should know of the labels, in sentences.
    """

    training: Catalogue
    values: npt.NDArray[np.float64]
    candidates: Catalogue
    filtered: dict[str, int]
    refused: list[tuple[str, Refusal]]
    notes: list[str] = field(default_factory=list)


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
    repeats: str = RULES[0],
    unit: str = "",
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
        repeats: what becomes of labels of one content that differ, see `settle`.
        unit: of the target, as the campaign has it.

    Raises:
        SourceError: no label or no candidate is left, and the message counts the reasons; or a unit that the source of
            the labels contradicts.
    """
    units = agreed_units(training.provenance, candidates.provenance, target, unit)
    labelled, values, unlabelled, notes = with_labels(store, training, target, transform, repeats)
    offered = Catalogue.open(store, candidates.name)
    columns = [name for name in bounds if name not in ("n_atoms", "n_elements")]
    beside = offered.pulled(columns, _name(candidates))
    unread = unread_filters(beside, columns)
    reasons = filter_reasons(beside, bounds, exclude_elements, only_elements)
    reasons[list(unread)] = FAILED
    if exclude_seen:
        passing = np.flatnonzero(reasons == "")
        reasons[passing] = already_seen_lines(offered.take(passing), labelled)
    kept = np.flatnonzero(reasons == "")
    filtered = Counter(str(reason) for reason in reasons if reason not in ("", FAILED))
    if not len(kept):
        raise none_left(candidates.n_seen, filtered, list(unread.values()))
    return Selection(
        training=labelled,
        values=values,
        candidates=offered.take(kept),
        filtered=dict(filtered.most_common()),
        notes=[*units, *notes],
        refused=[
            *(("training", refusal) for refusal in [*training.refused, *unlabelled]),
            *(("candidates", refusal) for refusal in [*candidates.refused, *unread.values()]),
        ],
    )


def none_left(n: int, reasons: Mapping[str, int], unread: Sequence[Refusal]) -> SourceError:
    """What is said where no candidate passes.

    Args:
        n: candidates there were.
        reasons: why they don't -> how many.
        unread: those of which it isn't known.
    """
    filtered = {reason: count for reason, count in reasons.items() if reason not in ("", FAILED)}
    why = filtered or (unread[0].reason if unread else "none could be used")
    return SourceError(f"no candidate is left of {n}: {why}")


def agreed_units(training: Mapping[str, Any], candidates: Mapping[str, Any], target: str, unit: str) -> list[str]:
    """A sentence where candidates hold the target in another unit than it is learned in.

    Args:
        training: provenance of the labels.
        candidates: provenance of the candidates.
        target: column of the labels.
        unit: as the campaign has it.

    Raises:
        SourceError: the source of the labels says another unit than the campaign.
    """
    try:
        learned = unit_of(training, [target], unit)
    except ValueError as error:
        raise SourceError(str(error)) from None
    try:
        unit_of(candidates, [target], learned)
    except ValueError:
        offered = unit_of(candidates, [target], "")
        return [f"candidates hold {target} in {offered}, and it is learned in {learned}: predictions are in {learned}"]
    return []


def with_labels(
    store: Store, training: PulledFile, target: str, transform: str, repeats: str = RULES[0]
) -> tuple[Catalogue, npt.NDArray[np.float64], list[Refusal], list[str]]:
    """Structures with a usable label, their (n,) labels, a refusal for each other one, and notes.

    Args:
        store: of the campaign.
        training: what the source of the labels gave.
        target: column of the labels.
        transform: which labels are usable depends on it.
        repeats: what becomes of labels of one content that differ, see `settle`.

    Raises:
        SourceError: no label is left.
    """
    known = Catalogue.open(store, training.name)
    named = known.pulled([target], _name(training))
    usable, unlabelled = usable_labels(named, target, transform)
    values = label_values(named, target)
    beside = named.columns
    keys = crystal_keys(known, usable, values)
    if pd.Series(keys).duplicated().any():  # what tells them apart may stand in any column
        beside = known.columns([name for name in known.schema.names if name not in OWN])
    settled = settle(known.material_id, known.hashes, usable, values, beside, target, repeats, keys)
    notes = [*sizes_differ(training.provenance, [target], known.lines.n_atoms), *settled.notes]
    return known.take(settled.usable), settled.values[settled.usable], [*unlabelled, *settled.refused], notes


def _name(file: PulledFile) -> str:
    return str(file.provenance.get("name", "the source"))
