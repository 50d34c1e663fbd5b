"""What a parent is, for people: who made it, from what, under which licence, and what its levels mean.

Each parent declares its `About` beside its name; reports, model cards, BibTeX and the documentation are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MPTRJ = "MPtrj, 1.58 million relaxation steps of 146,000 Materials Project structures"
"""Data that several parents were trained on (Deng et al. 2023)."""

MP20 = "averaged over the structures of MP-20, Materials Project crystals"
"""How element vectors were taken from networks that give vectors to sites."""


@dataclass(frozen=True)
class Reference:
    """A publication to cite.

    Attributes:
        key: of its BibTeX entry, e.g. "chen2019".
        citation: one line, ending with the year in brackets.
        fields: of its BibTeX entry: author, title, year and whatever the kind of entry has.
        doi: without a resolver; empty where none is known.
        entry: kind of its BibTeX entry: "article" in a journal, "misc" for a preprint.
    """

    key: str
    citation: str
    fields: Mapping[str, str]
    doi: str = ""
    entry: str = "article"

    @property
    def short(self) -> str:
        """As in running text, e.g. "Chen et al., 2019"."""
        names = [name.partition(",")[0] for name in self.fields["author"].split(" and ")]
        first = " & ".join(names) if len(names) < 3 else f"{names[0]} et al."
        return f"{first}, {self.fields['year']}"

    def as_source(self) -> dict[str, Any]:
        """As data sources say what to cite: citation and doi, and the BibTeX entry with its kind and key."""
        bibtex = {"entry": self.entry, "key": self.key, **self.fields}
        return {"citation": self.citation, "doi": self.doi, "bibtex": bibtex}


@dataclass(frozen=True)
class LevelAbout:
    """What a level is.

    Attributes:
        width: of its vectors.
        of: "site" or "structure".
        meaning: in words.
        needs_coordinates: False where compositions will do.
    """

    width: int
    of: str
    meaning: str
    needs_coordinates: bool = True


@dataclass(frozen=True)
class About:
    """What a parent is.

    Attributes:
        title: name for people, e.g. "SevenNet-l3i5".
        described: what a methods section says of it, e.g. "the pretrained MEGNet graph network".
        references: what to cite, the most important first.
        uncited: why there is nothing to cite, where there are no references.
        package: distribution that carries its weights or numbers, by the name under which it is imported; empty where
            they are part of this package or of no package at all.
        extra: of this package, that installs the former; empty where it is always installed.
        licence: of the weights, by the package that carries them.
        trained_on: data, how many, and which labels.
        overlap: the sentence that stands beside scores: what of its training may be among the user's structures and
            labels.
        takes: how far it looks, and which elements it covers.
        levels: level -> what it is.
    """

    title: str
    described: str
    licence: str
    trained_on: str
    overlap: str
    references: tuple[Reference, ...] = ()
    uncited: str = ""
    package: str = ""
    extra: str = ""
    takes: str = ""
    levels: Mapping[str, LevelAbout] = field(default_factory=dict)

    @property
    def citation(self) -> str:
        """All references as one line; empty where there are none."""
        return "; ".join(reference.citation for reference in self.references)

    @property
    def install(self) -> str:
        """What to pip install where `package` is missing."""
        return f"'atomsets-screening[{self.extra}]'" if self.extra else self.package


def levels_about(
    site: Mapping[str, int], structure: Mapping[str, int], meanings: Mapping[str, str], *, of_elements: tuple[str, ...]
) -> dict[str, LevelAbout]:
    """The levels of a parent in words.

    Args:
        site: level -> width.
        structure: level -> width.
        meanings: of each of them.
        of_elements: those that need no coordinates.

    Raises:
        ValueError: a level without a meaning, or a meaning without a level.
    """
    if meanings.keys() != {*site, *structure}:
        raise ValueError(f"levels {sorted({*site, *structure} ^ meanings.keys())} have no meaning, or are none")
    widths = [*((name, width, "site") for name, width in site.items())]
    widths += [(name, width, "structure") for name, width in structure.items()]
    return {name: LevelAbout(width, of, meanings[name], name not in of_elements) for name, width, of in widths}


def unknown(name: str) -> About:
    """Stands for a parent that says nothing of itself."""
    return About(
        title=name,
        described=f"the parent {name}",
        uncited="it doesn't say what to cite",
        licence="not known: it doesn't say",
        trained_on="not known: it doesn't say",
        overlap=f"What the parent {name} was trained on is not known: it may have seen these structures and their "
        "labels, and scores may be flattered by that.",
    )
