"""A card for each of the first candidates: its structure, its prediction, and why it is where it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup
from pymatgen.core import Element

from atomsets_core.report.candidates import drawing
from atomsets_core.report.candidates.crystals import facts
from atomsets_core.report.markup import script_json
from atomsets_core.report.results import Results
from atomsets_core.report.words import number, with_unit

MOST_CARDS = 30
"""A picture and its atoms take some ten kilobytes each."""

SEARCHES = (
    ("Materials Project", "https://next-gen.materialsproject.org/materials?formula={}"),
    ("literature", "https://scholar.google.com/scholar?q=%22{}%22"),
)


@dataclass(frozen=True)
class Share:
    """What the sites of one element add to a prediction.

    Attributes:
        symbol: of the element.
        n_sites: sites it has in the cell.
        text: the share in words: a factor on a logarithmic scale and of the odds of a class, else a difference on the
            model's scale.
        width: of its bar, percent of the largest on the card.
        raises: whether it raises the prediction.
    """

    symbol: str
    n_sites: int
    text: str
    width: float
    raises: bool


@dataclass(frozen=True)
class Card:
    """One candidate.

    Attributes:
        number: on the page, from 1.
        row: of the shortlist.
        picture: still picture of the structure; None of a formula.
        atoms: of the rotatable one, JSON safe inside a script element; None of a formula.
        legend: elements with their colours; none of a formula.
        cell: of a formula how much it holds of each element; of a crystal the cell as it was ranked.
        about: name and words of what is said of its crystal; none of a formula.
        neighbours: nearest training materials, nearest first, with value and distance.
        base: the prediction for a structure of average sites, or a formula of average elements, in words.
        shares: of each element, the largest first; none where the model has no sites.
        remoteness: distance to the training structures as percent of where the domain ends, at most 200.
        links: name and address of searches.
    """

    number: int
    row: dict[str, Any]
    picture: Markup | None
    atoms: Markup | None
    legend: list[dict[str, Any]]
    cell: str
    about: list[tuple[str, str]]
    neighbours: list[dict[str, Any]]
    base: str
    shares: list[Share]
    remoteness: float
    links: list[tuple[str, str]]


def cards(results: Results) -> list[Card]:
    """One for each of the first candidates that there is evidence for; none in older campaigns."""
    first = results.shortlist.iloc[:MOST_CARDS]
    found = [(row, results.evidence.get(row["material_id"])) for row in first.to_dict("records")]
    return [card(results, k, row, about) for k, (row, about) in enumerate(found, start=1) if about is not None]


def card(results: Results, number_: int, row: dict[str, Any], about: Mapping[str, Any]) -> Card:
    """The card of one candidate, from its row of the shortlist and its evidence."""
    drawn = None
    if "lattice" in about:
        drawn = drawing.draw(np.array(about["lattice"]), about["numbers"], np.array(about["frac"]))
    threshold = float(results.summary["model"]["domain_threshold"])
    formula = quote(str(row["formula"]), safe="")
    symbols = [] if drawn is None else drawn.symbol
    colors = {symbol: drawing.color(symbol) for symbol in dict.fromkeys(symbols)}
    shares_of_sites = list(about["sites"] or [])
    return Card(
        number=number_,
        row=row,
        picture=None if drawn is None else drawing.picture(drawn),
        atoms=None
        if drawn is None
        else script_json(json.dumps({**drawn.as_json(), "colors": colors, "shares": shares_of_sites})),
        legend=[] if drawn is None else drawing.legend(drawn),
        cell=_amounts(about) if drawn is None else _cell(np.array(about["lattice"]), len(about["numbers"])),
        about=facts(results.crystals.get(str(row["material_id"])), row.get("matter")),
        neighbours=list(about["neighbours"]),
        base="" if about["base"] is None else _base(results, float(about["base"])),
        shares=[] if about["sites"] is None else shares(results, about),
        remoteness=min(200.0, 100 * float(row["distance"]) / threshold) if pd.notna(row["distance"]) else 0.0,
        links=[(name, address.format(formula)) for name, address in SEARCHES],
    )


def shares(results: Results, about: Mapping[str, Any]) -> list[Share]:
    """What each element adds to the prediction, the largest first; on a logarithmic scale as factors that multiply."""
    sums: dict[str, list[float]] = {}
    for z, share in zip(about["numbers"], about["sites"], strict=True):
        sums.setdefault(Element.from_Z(int(z)).symbol, []).append(float(share))
    total = {symbol: (len(values), sum(values)) for symbol, values in sums.items()}
    most = max((abs(value) for _, value in total.values()), default=0.0) or 1.0
    return [
        Share(symbol, n, _amount(results, value), round(100 * abs(value) / most, 1), value >= 0)
        for symbol, (n, value) in sorted(total.items(), key=lambda item: -abs(item[1][1]))
    ]


def _base(results: Results, value: float) -> str:
    """What the shares are counted from, such that with them it comes to the prediction."""
    scale = results.transform
    if "class" in results.summary:
        return f"probability {number(1.0 / (1.0 + math.exp(-value)), 2)}"
    if scale.logarithmic:
        return with_unit(number(scale.inverse(value)), results.unit)
    return with_unit(number(value), scale.of(results.unit))


def _amount(results: Results, value: float) -> str:
    scale = results.transform
    if "class" in results.summary:
        return f"odds \N{MULTIPLICATION SIGN} {number(math.exp(value))}"
    if scale.logarithmic:
        return f"\N{MULTIPLICATION SIGN} {number(scale.inverse(value) / scale.inverse(0.0))}"
    return with_unit(f"{'+' if value >= 0 else ''}{number(value)}", scale.of(results.unit))


def _amounts(about: Mapping[str, Any]) -> str:
    """Atomic percent of each element, most of it first."""
    parts = sorted(zip(about["fractions"], about["numbers"], strict=True), reverse=True)
    return ", ".join(f"{100 * x:.4g}\N{NO-BREAK SPACE}at.% {Element.from_Z(int(z)).symbol}" for x, z in parts)


def _cell(lattice: np.ndarray, n_atoms: int) -> str:
    volume = abs(float(np.linalg.det(lattice))) / n_atoms
    lengths = ", ".join(f"{length:.2f}" for length in np.linalg.norm(lattice, axis=1))
    return (
        f"{n_atoms} {'atom' if n_atoms == 1 else 'atoms'} in a cell of {lengths}\N{NO-BREAK SPACE}Å, "
        f"{volume:.1f}\N{NO-BREAK SPACE}Å³ an atom"
    )
