"""The periodic table as a heat map: which elements were screened, and which were chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup
from pymatgen.core import Element

from atomsets_core.report.results import elements_in
from atomsets_core.report.words import listed, percent

CELL, STEPS = 40, 5


@dataclass(frozen=True)
class Table:
    """One periodic table.

    Attributes:
        title: what it counts.
        caption: how to read it, with its extremes.
        svg: the table.
    """

    title: str
    caption: str
    svg: Markup


def tables(counts: Mapping[str, tuple[int, int]], n_ranked: int, n_chosen: int) -> list[Table]:
    """A table of the ranked candidates and one of the shortlist.

    Args:
        counts: element -> ranked and shortlisted candidates that hold it.
        n_ranked: candidates ranked.
        n_chosen: candidates on the shortlist.
    """
    made = []
    for title, kind, which, n in (
        ("Elements screened", "screened", 0, n_ranked),
        ("Elements chosen", "chosen", 1, n_chosen),
    ):
        shares = {symbol: pair[which] / n for symbol, pair in counts.items() if n and pair[which]}
        if not shares:
            continue
        first = sorted(shares, key=lambda symbol: (-shares[symbol], symbol))[:3]
        most = listed([f"{symbol} ({percent(shares[symbol])})" for symbol in first])
        caption = (
            f"Share of the {n:,} {'ranked' if which == 0 else 'shortlisted'} candidates that hold the element; "
            f"most often {most}."
        )
        made.append(Table(title, caption, _svg(shares, kind, f"{title}. {caption}")))
    return made


def place(symbol: str) -> tuple[int, int]:
    """Row and column from 1 in the 18-column table; lanthanoids and actinoids in rows 8 and 9."""
    element = Element(symbol)
    if 57 <= element.Z <= 71 or 89 <= element.Z <= 103:
        return (8, element.Z - 57 + 3) if element.Z < 80 else (9, element.Z - 89 + 3)
    return int(element.row), int(element.group)


@dataclass(frozen=True)
class Place:
    """An element in the table by which candidates are filtered: where it stands, and whether any candidate holds it."""

    symbol: str
    name: str
    row: int
    column: int
    there: bool


def places(formulas: Iterable[str]) -> list[Place]:
    """All elements up to lawrencium; `there` are those of the formulas."""
    held = {symbol for text in formulas for symbol in elements_in(text)}
    found = [Element.from_Z(z) for z in range(1, 104)]
    return [Place(one.symbol, one.long_name, *place(one.symbol), one.symbol in held) for one in found]


def _svg(shares: Mapping[str, float], kind: str, label: str) -> Markup:
    top = max(shares.values())
    cells = []
    for element in (Element.from_Z(z) for z in range(1, 104)):
        row, column = place(element.symbol)
        x, y = (column - 1) * CELL, (row - 1) * CELL + (12 if row > 7 else 0)
        share = shares.get(element.symbol, 0.0)
        # The square root spreads the many small shares; a share of all is one even step of it below the top.
        level = 0 if not share else max(1, min(STEPS, round(STEPS * (share / top) ** 0.5)))
        cells.append(
            Markup(
                '<g class="e{}"><title>{}: {}</title><rect x="{}" y="{}" width="{}" height="{}"/>'
                '<text x="{}" y="{}">{}</text></g>'
            ).format(
                level,
                element.long_name,
                percent(share, 1) if share else "none",
                x + 1,
                y + 1,
                CELL - 2,
                CELL - 2,
                x + CELL / 2,
                y + CELL / 2 + 6,
                element.symbol,
            )
        )
    return Markup('<svg class="table {}" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        kind, label, 18 * CELL, 9 * CELL + 12, Markup("").join(cells)
    )
