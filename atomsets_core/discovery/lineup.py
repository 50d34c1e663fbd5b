"""The heads that `atomsets discover` compares, by what features there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atomsets_core.discovery.heads import (
    AtomSetsHead,
    CompositionForestHead,
    CompositionRidgeHead,
    GaussianProcessHead,
    Head,
    MEGNetHead,
    NeighboursHead,
    RidgeHead,
    ScratchHead,
    TransductionHead,
)

MEGNET = "megnet:V0+V1+V2+V3"
CHGNET = "chgnet:a1+a2+site"
SMALL: dict[str, Any] = {"members": 5, "folds": 5}
"""Networks of each ensemble: enough for a comparison, half of what a campaign trains."""


@dataclass(frozen=True)
class Entry:
    """A head in the comparison.

    Attributes:
        head: unfitted.
        eligible: whether it takes part in the choice inside the training part, which trains it twice.
        most_seeds: repeats it gets at most, where it is slow; None for all.
    """

    head: Head
    eligible: bool = False
    most_seeds: int | None = None


def specifications(parents: Sequence[str]) -> dict[str, str]:
    """The features of each parent that is there, MEGNet first: parent -> specification."""
    return {name: spec for name, spec in (("megnet", MEGNET), ("chgnet", CHGNET)) if name in parents}


def lineup(parents: Sequence[str], parameters: Mapping[str, Any] | None = None) -> dict[str, Entry]:
    """Name -> head, for the parents there are.

    Args:
        parents: whose features are there; "megnet" always, "chgnet" where it is installed.
        parameters: of `AtomSetsRegressor`, instead of the defaults.
    """
    options = {**SMALL, **(parameters or {})}
    specs = specifications(parents)
    every = ",".join(specs.values())
    richest = list(specs.values())[-1]
    found: dict[str, Entry] = {}
    for name, spec in specs.items():
        # Two trainings each: of several parents only the richest takes part in the choice.
        last = spec == richest
        own = {**options, "features": spec}
        found[f"AtomSets, {name}"] = Entry(AtomSetsHead(own), eligible=last)
        found[f"AtomSets, linear readout, {name}"] = Entry(AtomSetsHead({**own, "rho": ()}), eligible=last)
        found[f"Gaussian process, {name}"] = Entry(GaussianProcessHead(spec), eligible=last)
    if len(specs) > 1:
        found["AtomSets, both"] = Entry(AtomSetsHead({**options, "features": every}))
    return {
        **found,
        "ridge, all features": Entry(RidgeHead(f"{every},composition"), eligible=True),
        "bilinear transduction": Entry(TransductionHead(richest)),
        "nearest neighbours": Entry(NeighboursHead(richest)),
        "AtomSets from scratch": Entry(ScratchHead(options)),
        "MEGNet from scratch": Entry(MEGNetHead(), most_seeds=2),
        "ridge, composition": Entry(CompositionRidgeHead()),
        "random forest, composition": Entry(CompositionForestHead()),
    }


def choices(entries: Mapping[str, Entry]) -> dict[str, list[str]]:
    """What the training part chooses between: every eligible head, and means of AtomSets with a Gaussian process."""
    single = {name: [name] for name, entry in entries.items() if entry.eligible}
    pairs = {
        f"{name} + Gaussian process": [name, other]
        for name in single
        for other in single
        if name.startswith("AtomSets")
        and other.startswith("Gaussian")
        and name.split(", ")[-1] == other.split(", ")[-1]
    }
    return {**single, **pairs}
