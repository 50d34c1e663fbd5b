"""Candidates that are formulas alone: charge-balanced compositions of named elements, and solid solutions on a grid.

Which compositions are charge-balanced, with anions the more electronegative, says smact (Davies et al., J. Open Source
Softw. 4, 1361 (2019), and Davies et al., Chem 1, 617 (2016)); nothing says that they form. Solid solutions need nothing
but arithmetic.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Composition, Element

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.structures import Compositions, amounts_of, as_compositions, formula_of

MOST = 500_000
"""Compositions that are made at once at most: a line of each is held in memory."""


@dataclass(frozen=True)
class Generation:
    """Which compositions are made.

    Attributes:
        elements: symbols of those that are combined; none for solid solutions alone.
        least: elements that a composition holds at least.
        most: elements that it holds at most.
        largest: largest integer in a formula.
        end_members: formulas of each solid solution, two or more.
        steps: parts of the way from one end member to another, so that shares are multiples of one over it.
        count: compositions that may be made; more are refused, since which to leave out nobody said.
    """

    elements: Sequence[str] = ()
    least: int = 2
    most: int = 3
    largest: int = 8
    end_members: Sequence[Sequence[str]] = ()
    steps: int = 10
    count: int = 100_000


def generate(options: Generation) -> Pulled[Compositions]:
    """Compositions, each once, whatever they were made by.

    Returns:
        Compositions named by their formulas, in the order of these names, with the column `made_of`: the oxidation
        states of a charge-balanced composition, or the shares of end members. They depend on the options alone.

    Raises:
        SourceError: nothing is asked for, an element or end member can't be read, smact isn't installed, or there are
            more than `count`.
    """
    found: dict[tuple[tuple[int, int], ...], _Made] = {}
    for made in itertools.chain(_solid_solutions(options), _balanced(options)):
        found.setdefault(made.key, made)
        if len(found) > min(options.count, MOST):
            raise SourceError(
                f"generate: there are more than {min(options.count, MOST):,} compositions: name fewer elements, lower "
                "largest, most or steps, or raise count"
            )
    if not found:
        raise SourceError(
            f"generate: no composition of {', '.join(options.elements)} is charge-balanced with integers up to "
            f"{options.largest}"
            if options.elements
            else "generate: name elements to combine, or end_members of solid solutions"
        )
    ordered = sorted(found.values(), key=lambda made: made.name)
    items = [Composition({Element.from_Z(z): x for z, x in made.amounts.items()}) for made in ordered]
    provenance: dict[str, Any] = {
        "name": "generated compositions",
        "generated": {"candidates": len(ordered)},
        "options": {
            **vars(options),
            "elements": list(options.elements),
            "end_members": [list(members) for members in options.end_members],
        },
    }
    if options.elements:
        provenance |= {
            "citation": "D. W. Davies et al., SMACT: semiconducting materials by analogy and chemical theory, J. Open "
            "Source Softw. 4, 1361 (2019)",
            "doi": "10.21105/joss.01361",
            "bibtex": {
                "entry": "article",
                "key": "davies2019",
                "author": "Davies, Daniel W. and others",
                "title": "SMACT: Semiconducting Materials by Analogy and Chemical Theory",
                "journal": "Journal of Open Source Software",
                "volume": "4",
                "pages": "1361",
                "year": "2019",
            },
        }
    columns = pd.DataFrame({"made_of": [made.how for made in ordered]})
    return Pulled(as_compositions(items, [made.name for made in ordered]), columns, [], provenance)


@dataclass(frozen=True)
class _Made:
    """A composition: its formula, the amount of each element by atomic number, and how it was made."""

    name: str
    amounts: dict[int, float]
    how: str

    @property
    def key(self) -> tuple[tuple[int, int], ...]:
        """The same for whatever has the same atomic fractions, to 1e-9."""
        total = sum(self.amounts.values())
        return tuple((z, round(1e9 * x / total)) for z, x in sorted(self.amounts.items()))


def _balanced(options: Generation) -> Iterator[_Made]:
    """Every charge-balanced composition with its oxidation states; those of fewer elements come first."""
    if not options.elements:
        return
    if wrong := [symbol for symbol in options.elements if not Element.is_valid_symbol(symbol)]:
        raise SourceError(f"generate: {wrong[0]!r} is no element")
    try:
        smact, screening = importlib.import_module("smact"), importlib.import_module("smact.screening")
    except ImportError as error:
        raise SourceError("charges are balanced with smact: pip install 'atomsets-screening[generate]'") from error
    symbols = sorted(set(options.elements), key=lambda symbol: Element(symbol).Z)
    for n in range(options.least, min(options.most, len(symbols)) + 1):
        for chosen in itertools.combinations(symbols, n):
            try:
                balanced = screening.smact_filter([smact.Element(symbol) for symbol in chosen], options.largest)
            except ValueError:  # an element without oxidation states, as a noble gas
                continue
            numbers = [int(Element(symbol).Z) for symbol in chosen]
            for _, states, amounts in balanced:
                said = " ".join(
                    f"{symbol}{abs(state)}{'+' if state > 0 else '-'}"
                    for symbol, state in zip(chosen, states, strict=True)
                )
                of_element = dict(zip(numbers, map(float, amounts), strict=True))
                yield _Made(formula_of(numbers, list(of_element.values())), of_element, said)


def _solid_solutions(options: Generation) -> Iterator[_Made]:
    """What lies on the grid between the end members of each solid solution, the ends included, with their shares."""
    for members in options.end_members:
        if len(set(members)) < 2:
            raise SourceError(f"generate: a solid solution needs two end members at least, not {', '.join(members)}")
        try:
            ends = [amounts_of(member) for member in members]
        except ValueError as error:
            raise SourceError(f"generate: end members {', '.join(members)}: {error}") from error
        for parts in _grid(len(ends), options.steps):
            amounts: dict[int, float] = {}
            for end, part in zip(ends, parts, strict=True):
                for z, amount in end.items() if part else ():
                    amounts[z] = amounts.get(z, 0.0) + amount * part / options.steps
            said = " + ".join(
                f"{part / options.steps:.4g} {end}" for end, part in zip(members, parts, strict=True) if part
            )
            yield _Made(_written(amounts), amounts, said)


def _written(amounts: dict[int, float]) -> str:
    """The formula unit as chemists write it, the more electronegative later; amounts needn't be whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity
        order = sorted(amounts, key=lambda z: (float(np.nan_to_num(Element.from_Z(z).X, nan=9.0)), z))
    texts = {z: "" if abs(amounts[z] - 1) < 1e-9 else f"{amounts[z]:.6g}" for z in order}
    return "".join(f"{Element.from_Z(z).symbol}{texts[z]}" for z in order)


def _grid(n: int, steps: int) -> Iterator[tuple[int, ...]]:
    """Whole numbers, n of them, that add up to `steps`."""
    if n == 1:
        yield (steps,)
        return
    for first in range(steps, -1, -1):
        for rest in _grid(n - 1, steps - first):
            yield (first, *rest)
