"""A first campaign file, made from the data that it is for: what they hold is looked at, and what was found is said.

`atomsets init` asks its questions with this; everything it writes can be changed by hand afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atomsets_core.sources import (
    MATERIALS_PROJECT,
    Pulled,
    SourceError,
    find_column,
    label_values,
    unit_of,
)
from atomsets_core.structures import COMPOSITIONS, STRUCTURES, Compositions
from atomsets_core.transforms import LOG10
from atomsets_flows.campaign.estimate import look_at
from atomsets_flows.campaign.sections import Candidates, Training

FEWEST = 9
"""Values below which there is no interval of 90 %."""

DECADES = 20.0
"""Times by which the largest value is above the smallest where a logarithmic scale is proposed."""

MOST_CLASSES = 8
"""Different words in a column of classes at most."""

HULLS = ("e_above_hull", "energy_above_hull")
"""Columns of the stability, in eV/atom."""

STABLE = 0.1
"""eV/atom above the hull that candidates may have, where that is known."""

NO_PROPERTY = frozenset({"space_group", "spacegroup", "spacegroup_number", "n_atoms", "nsites", "n_elements", *HULLS})
"""Columns of numbers that nobody wants predicted."""


@dataclass(frozen=True)
class Column:
    """A column that could be learned.

    Attributes:
        name: of the column.
        n: rows with a value.
        unit: as the data state it; empty where they don't.
        low: smallest number; None of classes.
        high: largest number; None of classes.
        classes: the words of a column of classes, the most frequent first; none of numbers.
    """

    name: str
    n: int
    unit: str = ""
    low: float | None = None
    high: float | None = None
    classes: tuple[str, ...] = ()

    @property
    def logarithmic(self) -> bool:
        """Whether the values are positive and span more than a decade, so that they are learned as logarithms."""
        return self.low is not None and self.high is not None and self.low > 0 and self.high > DECADES * self.low

    def told(self) -> str:
        """What it holds, e.g. "K_VRH: 1,181 values, 6.48 to 436 GPa"."""
        if self.classes:
            return f"{self.name}: {self.n:,} labels, {', '.join(self.classes)}"
        return f"{self.name}: {self.n:,} values, {self.low:.4g} to {self.high:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Looked:
    """What a source was found to hold.

    Attributes:
        source: its address.
        n: entries that can be used; None of a database, which isn't asked.
        kind: "structures" or "compositions".
        refused: entries that can't be read.
        reasons: of the first few of these.
        columns: that could be learned, those with most values first.
        names: all columns.
    """

    source: str
    n: int | None
    kind: str = STRUCTURES
    refused: int = 0
    reasons: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    names: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """What was found, in sentences."""
        if self.n is None:
            return [f"{self.source}: a database, which is not asked now"]
        lines = [f"{self.source}: {self.n:,} {self.kind}"]
        if self.refused:
            lines.append(f"{self.refused:,} entries can't be used, e.g. {'; '.join(self.reasons)}")
        return lines


def look(source: str, labels: str | None = None, *, candidates: bool = False) -> Looked:
    """Read a source as a campaign would, and say what is in it.

    Args:
        source: as in a campaign file.
        labels: table of values, for a source of structures alone.
        candidates: whether it holds what is ranked.

    Raises:
        SourceError: it can't be read; the message says why.
    """
    if source == MATERIALS_PROJECT or "optimade:" in source:
        return Looked(source, None)
    if candidates:
        shown = look_at(Candidates(source=source, labels=labels))  # type: ignore[call-arg]
    else:
        shown = look_at(Training(source=source, labels=labels, target="?"))  # type: ignore[call-arg]
    if shown is None:
        return Looked(source, None)
    pulled = shown.pulled
    names = [str(name) for name in pulled.columns.columns]
    made = {f"{name}_error" for name in names}  # of values as 2.319(2)
    found = [column for name in names if name not in made and (column := _column(pulled, name)) is not None]
    return Looked(
        source,
        shown.n if not shown.whole else len(pulled.structures),
        COMPOSITIONS if isinstance(pulled.structures, Compositions) else STRUCTURES,
        len(pulled.refused),
        tuple(f"{one.material_id}: {one.reason}" for one in pulled.refused[:2]),
        tuple(sorted(found, key=lambda column: -column.n)),
        tuple(names),
    )


def _column(pulled: Pulled[Any], name: str) -> Column | None:
    """What a column holds; None where it holds nothing that could be learned."""
    if name.lower() in NO_PROPERTY:
        return None
    values = label_values(pulled, name)
    numbers = values[np.isfinite(values)]
    texts = pulled.columns[name].dropna().astype(str).str.strip()
    texts = texts[texts != ""]
    if len(numbers) > len(texts) / 2 and len(np.unique(numbers)) > 2:
        try:
            unit = unit_of(pulled.provenance, [name], "")
        except ValueError:
            unit = ""
        return Column(name, len(numbers), unit, float(numbers.min()), float(numbers.max()))
    words = texts.value_counts()
    if 2 <= len(words) <= min(MOST_CLASSES, len(texts) // 3):
        return Column(name, len(texts), classes=tuple(map(str, words.index)))
    return None


@dataclass(frozen=True)
class Draft:
    """What a campaign file is made from.

    Attributes:
        name: of the campaign.
        training: what the source of labels holds.
        column: that is learned.
        candidates: what the source of candidates holds.
        labels: table of values, if they stand in one.
        title: of the property.
        symbol: of the property.
        unit: of the property.
        goal: what is wanted.
        value: for the goals target, exceed and class.
        window: for the goal window.
        shortlist: candidates on it.
    """

    name: str
    training: Looked
    column: Column
    candidates: Looked
    labels: str | None = None
    title: str = ""
    symbol: str = ""
    unit: str = ""
    goal: str = "maximize"
    value: float | str | None = None
    window: tuple[float, float] | None = None
    shortlist: int = 25

    def toml(self) -> str:
        """The campaign file, each line with what it is for."""
        training, column = self.training, self.column
        lines = [
            "# A screening campaign, written by `atomsets init`. Options that are left out have defaults; all are",
            "# explained in flows/campaign/sections.py. `atomsets screen FILE --dry-run` says what it would do.",
            f"name = {_text(self.name)}",
            "",
            "[training]",
            _line("source", training.source, training.told()[0].partition(": ")[2]),
        ]
        if self.labels:
            lines.append(_line("labels", self.labels, "the table with the values, joined by identifier"))
        lines.append(_line("target", column.name, column.told().partition(": ")[2]))
        if column.classes:
            lines.append(_line("task", "class", "the labels are classes: a probability is predicted"))
        lines.append(_named("title", self.title, "bulk modulus", "what people read instead of the column's name"))
        lines.append(_named("symbol", self.symbol, "K", "what stands over columns and on axes"))
        if not column.classes:
            lines.append(_named("unit", self.unit, "GPa", "of the values"))
            if column.logarithmic:
                lines.append(_line("transform", LOG10.name, "positive and over more than a decade; or none"))
            else:
                lines.append(f"# {_line('transform', LOG10.name, 'where errors are a share of the value')}")
        if training.kind == STRUCTURES and self.candidates.kind == COMPOSITIONS:
            lines.append(_line("take", COMPOSITIONS, "candidates are formulas, so formulas are learned from"))
        lines += [
            "",
            "[candidates]",
            _line("source", self.candidates.source, self.candidates.told()[0].partition(": ")[2]),
        ]
        lines += _filters(self.candidates)
        lines += [
            "",
            "[objective]",
            _line("goal", self.goal, "maximize, minimize, target, window, exceed; class of labels"),
        ]
        if self.value is not None:
            lines.append(f"value = {_value(self.value)}")
        if self.window is not None:
            lines += [f"low = {self.window[0]!r}", f"high = {self.window[1]!r}"]
        lines.append(f"{f'shortlist = {self.shortlist}':<30}# candidates to look at first")
        return "\n".join(lines) + "\n"


def _filters(candidates: Looked) -> list[str]:
    """Bounds on the stability where it is known; as a comment where it isn't."""
    hull = next((name for name in HULLS if find_column(candidates.names, name) is not None), None)
    if candidates.source == MATERIALS_PROJECT:
        hull = "energy_above_hull"
    elements = '# exclude_elements = ["Pb"]      # or only_elements = ["Ti", "N"]'
    if hull is None:
        return [elements, "# [candidates.filters]           # bounds on any column of the candidates, and on n_atoms",
                "# n_atoms = { max = 40 }"]  # fmt: skip
    return [
        elements,
        "[candidates.filters]",
        f"{f'{hull} = {{ max = {STABLE} }}':<30}# eV/atom; also n_atoms, n_elements",
    ]


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _value(value: float | str) -> str:
    return _text(value) if isinstance(value, str) else repr(value)


def _line(key: str, text: str, comment: str) -> str:
    return f"{f'{key} = {_text(text)}':<30}# {' '.join(comment.split())}".rstrip("# ")


def _named(key: str, text: str, example: str, comment: str) -> str:
    return _line(key, text, comment) if text else f"# {_line(key, example, comment)}"


def pick(looked: Looked, target: str | None) -> Column:
    """The column that is learned: the one that is named, else the only one.

    Raises:
        SourceError: there is none of that name, none at all, or more than one; the message names them.
    """
    names = [column.name for column in looked.columns]
    if not names:
        raise SourceError(
            f"{looked.source} holds no column of numbers or classes to learn: name the table of values with --labels"
        )
    if target is None:
        if len(names) == 1:
            return looked.columns[0]
        raise SourceError(f"{looked.source} holds {', '.join(names)}: name the one to learn with --target")
    found = find_column(names, target)
    if found is None:
        raise SourceError(f"{looked.source}: no column {target!r} to learn; there are {', '.join(names)}: --target")
    return next(column for column in looked.columns if column.name == found)


def warnings_of(draft: Draft) -> list[str]:
    """What the user should know of the data before a run, in sentences."""
    said = []
    if draft.column.n < FEWEST:
        said.append(f"{draft.column.n} values are too few for intervals, which need {FEWEST}")
    elif draft.column.n < 50:
        said.append(f"with {draft.column.n} values look at the discovery table before the shortlist")
    if not draft.unit and not draft.column.classes:
        said.append("no unit was named: say --unit, or leave it out for a pure number")
    for looked in (draft.training, draft.candidates):
        said += looked.told()[1:]
    return said


def name_from(path: Path, sources: Sequence[str]) -> str:
    """A name for the campaign: that of its file, as far as a name may have its letters."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem).strip("-._")
    return stem[:60] or Path(next(iter(sources), "campaign")).stem or "campaign"
