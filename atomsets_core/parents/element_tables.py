"""Levels of the element alone: published element vectors, and the amounts of the elements in a composition.

Each is a parent like the networks, but needs no coordinates: structures, disordered ones too, and compositions will do.
The published tables are read from the package elementembeddings (Onwuli et al., Digital Discovery 2, 1558 (2023)),
whose code is not imported; `element_sources` says where each table comes from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pymatgen.core import Element

from atomsets_core.parents.about import About, levels_about
from atomsets_core.parents.base import Features, Parent, featurize_batches, installed_file, weights_digest
from atomsets_core.parents.element_sources import LEVEL, TABLES
from atomsets_core.structures import LARGEST_ATOMIC_NUMBER, Compositions, Structures

CODE_VERSION = "1"
"""Part of the digests: raised when the meaning of the numbers below changes."""

AMOUNT = "amount"
AMOUNT_LEVELS = {"fraction": 1, "log": 1}

ABOUT_AMOUNT = About(
    title="amounts of the elements",
    described="the amounts of the elements",
    uncited="it is the composition itself",
    licence="BSD 3-Clause, part of this package",
    trained_on="nothing: the fractions of the elements in the composition",
    overlap="The amounts of the elements are those of the composition: they know nothing of these labels.",
    takes="the formula alone; all elements",
    levels=levels_about(
        AMOUNT_LEVELS,
        {},
        {
            "fraction": "atomic fraction of the site's element in the whole",
            "log": "its decimal logarithm, in which traces differ",
        },
        of_elements=tuple(AMOUNT_LEVELS),
    ),
)

NAMES = (AMOUNT, *TABLES)
"""What `load_parent` finds here."""


class ElementTable:
    """A table of element vectors as a parent, with one site level.

    Args:
        name: of the table.
        table: (n, width) by atomic number; rows of NaN where the table lacks the element.
    """

    structure_levels: Mapping[str, int] = {}
    default_levels = (LEVEL,)
    element_levels = (LEVEL,)

    def __init__(self, name: str, table: npt.NDArray[np.float32]) -> None:
        self.name = name
        self.site_levels = {LEVEL: table.shape[1]}
        self.table = table
        self.digest = weights_digest(name, CODE_VERSION, {"table": table})

    def featurize(self, batch: Structures | Compositions, levels: Sequence[str] | None = None) -> Features:
        """See `Parent.featurize`. Refused is what holds an element that the table lacks."""
        covered = np.asarray(np.isfinite(self.table).all(axis=1))
        return featurize_batches(self, batch, levels, covered=covered, embedding={LEVEL: self.table})


class Amounts:
    """How much of each element there is, as a parent.

    In a mean weighted by the fractions trace elements vanish; with these levels the network sees how much there is of
    the element it looks at. `ABOUT_AMOUNT` says what the levels are.
    """

    name = AMOUNT
    site_levels = AMOUNT_LEVELS
    structure_levels: Mapping[str, int] = {}
    default_levels = tuple(AMOUNT_LEVELS)
    element_levels = tuple(AMOUNT_LEVELS)
    digest = weights_digest(AMOUNT, CODE_VERSION, {})

    def featurize(self, batch: Structures | Compositions, levels: Sequence[str] | None = None) -> Features:
        """See `Parent.featurize`. Nothing is refused."""
        fraction = _fractions(batch)[:, None].astype(np.float32)
        tables = {"fraction": fraction, "log": np.log10(fraction)}
        return featurize_batches(
            self,
            batch,
            levels,
            covered=np.arange(LARGEST_ATOMIC_NUMBER + 1) > 0,
            embedding={},
            of_rows=tables,
        )


def _fractions(batch: Structures | Compositions) -> npt.NDArray[np.float64]:
    """(rows,) atomic fraction of each row's element in its structure or composition."""
    if isinstance(batch, Compositions):
        return batch.fractions
    owner = np.repeat(np.arange(len(batch)), batch.n_atoms)
    composition = Compositions.of(batch)
    of_element = np.repeat(np.arange(len(batch)), composition.n_elements) * 256 + composition.numbers
    return composition.fractions[np.searchsorted(of_element, owner * 256 + batch.numbers)]


@lru_cache(maxsize=4)
def read_table(name: str) -> npt.NDArray[np.float32]:
    """(119, width) float32 by atomic number, NaN where the table lacks the element.

    Raises:
        FileNotFoundError: the package elementembeddings is not installed.
    """
    about = TABLES[name].about
    path = installed_file(about.package, f"data/element_representations/{TABLES[name].file}", about.install)
    vectors = _read_csv(path) if path.suffix == ".csv" else json.loads(path.read_text())
    if all(isinstance(value, int) for value in vectors.values()):  # a scale: the element's place in it
        places = sorted(set(vectors.values()))
        vectors = {symbol: np.eye(len(places))[places.index(value)] for symbol, value in vectors.items()}
    # Old files call elements by provisional symbols (Uut), and MEGNet's has a row for none.
    known = {symbol: row for symbol, row in vectors.items() if Element.is_valid_symbol(symbol)}
    width = len(next(iter(known.values())))
    table = np.full((LARGEST_ATOMIC_NUMBER + 1, width), np.nan, dtype=np.float32)
    for symbol, row in known.items():
        table[Element(symbol).Z] = row
    return table


def _read_csv(path: Path) -> dict[str, list[float]]:
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        symbol = header.index("element")
        return {row[symbol]: [float(x) for i, x in enumerate(row) if i != symbol] for row in rows if row}


def load_table(name: str, _device: str = "cpu") -> ElementTable:
    """A published table as a parent; the device plays no part.

    Raises:
        FileNotFoundError: the package elementembeddings is not installed.
    """
    return ElementTable(name, read_table(name))


def entries() -> dict[str, tuple[About, Callable[[str], Parent]]]:
    """Name -> what it is, and a loader, of each table and of the amounts."""
    return {
        AMOUNT: (ABOUT_AMOUNT, lambda _device: Amounts()),
        **{name: (table.about, partial(load_table, name)) for name, table in TABLES.items()},
    }
