"""Chemical formulas as text, fast for many structures and for fractional amounts too."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

from pymatgen.core import Composition, Element

LARGEST_ATOMIC_NUMBER = 118
LARGEST_MULTIPLE = 24
"""Fractional amounts that become whole when multiplied by a number up to this are written as whole numbers."""


def formula_of(elements: Sequence[int], amounts: Sequence[float]) -> str:
    """Reduced formula of any amounts, e.g. "FeCo" of 0.5 and 0.5, "Fe0.9901C0.0099" where no whole numbers fit.

    Args:
        elements: atomic numbers, each once.
        amounts: positive, on any scale.
    """
    total = sum(amounts)
    for multiple in range(1, LARGEST_MULTIPLE + 1):
        counts = [amount * multiple for amount in amounts]
        if all(abs(count - round(count)) < 1e-6 * multiple and round(count) for count in counts):
            whole = [round(count) for count in counts]
            divisor = math.gcd(*whole)
            return reduced_formula(tuple(elements), tuple(count // divisor for count in whole))
    known = _electronegativity()
    # Noble gases have no electronegativity; they go last.
    order = sorted(
        zip(elements, amounts, strict=True), key=lambda item: (known[item[0]][0] != known[item[0]][0], known[item[0]])
    )
    return "".join(f"{known[z][1]}{amount / total:.6g}" for z, amount in order)


@lru_cache(maxsize=4096)
def reduced_formula(elements: tuple[int, ...], counts: tuple[int, ...]) -> str:
    """Pymatgen's reduced formula, in a twentieth of its time for the usual case."""
    if any(not 1 <= z <= LARGEST_ATOMIC_NUMBER for z in elements):
        return "?"
    known = _electronegativity()
    order = sorted(zip(elements, counts, strict=True), key=lambda item: known[item[0]])
    if any(known[z][0] != known[z][0] for z in elements) or (len(elements) < 3 and max(counts) == 1):
        # Noble gases have no electronegativity to sort by; O2, Na2O2 and their like are exceptions.
        return _composition(elements, counts).reduced_formula
    anion = ""
    if len(order) > 2 and known[order[-1][0]][0] - known[order[-2][0]][0] < 1.65:
        groups = math.gcd(order[-1][1], order[-2][1])
        if groups > 1:
            anion = f"({_written([(z, count // groups) for z, count in order[-2:]])}){groups}"
            order = order[:-2]
    return _written(order) + anion


def _composition(elements: Sequence[int], counts: Sequence[int]) -> Composition:
    return Composition({Element.from_Z(z): count for z, count in zip(elements, counts, strict=True)})


def _written(order: Sequence[tuple[int, int]]) -> str:
    known = _electronegativity()
    return "".join(f"{known[z][1]}{count if count > 1 else ''}" for z, count in order)


@lru_cache(maxsize=1)
def _electronegativity() -> list[tuple[float, str]]:
    """Pauling's value (NaN where there is none) and symbol of each element, by atomic number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        elements = [Element.from_Z(z) for z in range(1, LARGEST_ATOMIC_NUMBER + 1)]
        return [(0.0, "?"), *((float(element.X), element.symbol) for element in elements)]
