"""The columns of the shortlist: one entry each for the page, the download and the table on the Prefect server."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from markupsafe import Markup

from atomsets_core.report.candidates.crystals import Crystal, printed, with_crystals
from atomsets_core.report.markup import formula, material
from atomsets_core.report.words import NONE, minus, number, percent, scale_name, symbol_of
from atomsets_core.report.words import material as word
from atomsets_core.storage import prediction_units
from atomsets_core.transforms import find_transform

Row = Mapping[str, Any]
"""One row of the shortlist; on the page with "card", the number of its card, or None."""


@dataclass(frozen=True)
class Column:
    """A column of ranking files, and where and how people see it.

    Attributes:
        name: in ranking files, see `jobs.rank.COLUMNS`; the values of the column sort the page.
        made: by the report, from the structures of the shortlist; not in ranking files.
        heading: on the page and on the server; {coverage} is that of the intervals, {symbol} that of
            the property.
        kind: how it is sorted.
        unit: whether its unit, see `storage.prediction_units`, stands in the heading.
        help: shown over the heading on the page; {scale} is that of the model, {threshold} the end of the domain,
            {materials} what was learned from.
        digits: significant digits of a number on the page.
        decimals: of a number, where these shall be as many in every row.
        cell: row -> what stands in it on the page; by default the number or text.
        plain: row -> what stands in it on the server, where it is neither the number or text nor as on the page.
        css: class of its cells, where it isn't that of a number.
        sorts: whether cells are sorted by the value itself; else by what stands in them.
        optional: left out where no row has a value.
        page: whether the page shows it.
        download: whether the CSV on the page has it.
        artifact: whether the table on the server shows it.
    """

    name: str
    heading: str = ""
    made: bool = False
    kind: Literal["number", "text"] = "number"
    unit: bool = False
    help: str = ""
    digits: int = 3
    decimals: int | None = None
    cell: Callable[[Row], str] | None = None
    plain: Callable[[Row], Any] | None = None
    css: str = ""
    sorts: bool = True
    optional: bool = False
    page: bool = True
    download: bool = True
    artifact: bool = True

    def shown(self, row: Row) -> str:
        """What stands in its cell on the page; text is escaped there."""
        value = row[self.name]
        if self.cell:
            return self.cell(row)
        if self.kind == "text":
            return "" if missing(value) else str(value)
        if missing(value):
            return NONE
        return number(value, self.digits) if self.decimals is None else minus(f"{value:.{self.decimals}f}")

    def told(self, row: Row) -> Any:
        """What stands in its cell on the server: numbers stay numbers, so that they can be sorted."""
        value = row[self.name]
        if self.plain:
            return self.plain(row)
        if self.kind == "text" or isinstance(value, int):
            return value
        return float(f"{value:.4g}") if self.decimals is None else round(float(value), self.decimals)


def missing(value: Any) -> bool:
    """Whether there is no number or text."""
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def interval(row: Row) -> str:
    """Both ends of the interval of a candidate."""
    return f"{number(row['lower'])} to {number(row['upper'])}"


def badge(inside: bool) -> Markup:
    """Whether a candidate is inside the domain, coloured."""
    kind, word = ("in", "inside") if inside else ("out", "outside")
    return Markup('<span class="badge {}">{}</span>').format(kind, word)


def _linked(row: Row) -> Markup:
    """The formula, as a link to the card of the candidate where there is one."""
    text = formula(row["formula"])
    return text if row["card"] is None else Markup('<a href="#card-{}">{}</a>').format(row["card"], text)


COLUMNS = (
    Column("rank", "rank", help="Among all ranked candidates", cell=lambda row: f"{row['rank']:,}"),
    Column(
        "material_id", "material", kind="text", css="id", sorts=False, cell=lambda row: material(row["material_id"])
    ),
    Column("formula", "formula", kind="text", css="formula", cell=_linked),
    Column(
        "space_group_number",
        "space group",
        made=True,
        kind="number",
        help="Sorted by its number",
        cell=lambda row: printed(row["space_group"]) or NONE,
        plain=lambda row: printed(row["space_group"]),
        optional=True,
    ),
    Column("space_group", made=True, kind="text", page=False, artifact=False),
    Column("predicted", "predicted {symbol}", unit=True),
    Column("lower", "interval at {coverage}", help="Sorted by its lower end", cell=interval, plain=interval),
    Column("upper", page=False, artifact=False),
    Column("std", page=False, artifact=False),
    Column("e_above_hull", "above hull", unit=True, decimals=3, optional=True),
    Column(
        "in_domain",
        "domain",
        kind="text",
        help="Whether training {materials} are alike",
        cell=lambda row: badge(row["in_domain"]),
        plain=lambda row: "inside" if row["in_domain"] else "outside",
        sorts=False,
    ),
    Column(
        "distance",
        "distance",
        help="To the nearest training {materials} in feature space; the domain ends at {threshold}",
        artifact=False,
    ),
    Column("score", "score", help="On the model's scale, {scale}", digits=4, artifact=False),
    Column("n_atoms", page=False, artifact=False),
    Column("remark", "remark", kind="text", sorts=False, optional=True),
)
"""In their order everywhere."""


FOUND_BY = ("material_id", "space_group", "crystal_system", "matter", "remark")
"""Columns whose words the page finds candidates by, beside the formula."""


def headings(summary: Mapping[str, Any]) -> dict[str, str]:
    """Column -> its heading, with the unit where it has one."""
    unit, coverage = str(summary["unit"]), percent(summary["model"]["coverage"])
    # The name of a column may be as long as a line, and of a class it is a probability that is predicted.
    symbol = symbol_of(summary) if (summary.get("symbol") or summary.get("title")) and "class" not in summary else ""
    units = prediction_units(unit, scale=find_transform(summary["transform"]).applied_to(unit))
    return {
        column.name: column.heading.format(coverage=coverage, symbol=symbol).strip()
        + (f" ({units[column.name]})" if column.unit and units.get(column.name) else "")
        for column in COLUMNS
    }


@dataclass(frozen=True)
class Heading:
    """What stands over a column of the page: its name in files, words, how it is sorted, what is shown over it."""

    key: str
    name: str
    kind: str
    help: str


@dataclass(frozen=True)
class Cell:
    """One cell of the page.

    Attributes:
        key: name of its column.
        label: heading of its column.
        css: its class.
        value: what it is sorted by; None: what stands in it.
        content: what stands in it.
    """

    key: str
    label: str
    css: str
    value: Any
    content: str


@dataclass(frozen=True)
class Line:
    """One line of the page.

    Attributes:
        card: number of the card of the candidate, if it has one.
        inside: whether it is inside the domain.
        id: its identifier.
        formula: as it can be searched for.
        find: what else can be searched for: identifier, space group, crystal system, remark.
        cells: of the columns.
    """

    card: int | None
    inside: bool
    id: str
    formula: str
    find: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """The shortlist on the page."""

    headings: list[Heading]
    lines: list[Line]


def page_table(
    summary: Mapping[str, Any], shortlist: pd.DataFrame, ranking: pd.DataFrame, cards: Sequence[str] = ()
) -> Table:
    """The shortlist as the page shows it.

    Args:
        summary: content of summary.json.
        shortlist: whole rows; columns that an older campaign lacks are left out.
        ranking: some columns of every candidate: an optional column of them is shown where any candidate has a value.
        cards: identifiers of the candidates that have a card, in their order.
    """
    shown = [
        column
        for column in COLUMNS
        if column.page
        and column.name in shortlist
        and not (column.optional and all(map(missing, (ranking if column.name in ranking else shortlist)[column.name])))
    ]
    model, names = summary["model"], headings(summary)
    told = {"scale": scale_name(summary), "threshold": number(model["domain_threshold"])}
    told["materials"] = f"{word(summary)}s"
    numbers = {name: place for place, name in reversed([*enumerate(cards, start=1)])}
    lines = []
    for row in shortlist.to_dict("records"):
        row["card"] = numbers.get(row["material_id"])
        cells = [
            Cell(
                column.name,
                names[column.name],
                column.css or ("number" if column.kind == "number" else ""),
                row[column.name] if column.sorts else None,
                column.shown(row),
            )
            for column in shown
        ]
        find = " ".join(str(row[name]) for name in FOUND_BY if name in row and not missing(row[name]))
        lines.append(
            Line(row["card"], bool(row["in_domain"]), str(row["material_id"]), str(row["formula"]), find, cells)
        )
    return Table([Heading(c.name, names[c.name], c.kind, c.help.format(**told)) for c in shown], lines)


def download_columns(shortlist: pd.DataFrame) -> list[str]:
    """Those of the CSV, as far as the campaign has them."""
    return [column.name for column in COLUMNS if column.download and column.name in shortlist]


def artifact_rows(
    summary: Mapping[str, Any], shortlist: pd.DataFrame, crystals: Mapping[str, Crystal] | None = None
) -> list[dict[str, Any]]:
    """The shortlist as the table on the server shows it; the whole of it is in ranking.csv.

    Args:
        summary: content of summary.json.
        shortlist: whole rows.
        crystals: of the shortlist, by material_id.
    """
    names, shortlist = headings(summary), with_crystals(shortlist, crystals or {})
    shown = [column for column in COLUMNS if column.artifact and column.name in shortlist]
    return [
        {
            names[column.name]: column.told(row)
            for column in shown
            if not (column.optional and missing(row[column.name]))
        }
        for row in shortlist.to_dict("records")
    ]
