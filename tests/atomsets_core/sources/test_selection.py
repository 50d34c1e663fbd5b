"""A label that can't be learned from is refused with its reason; a filter names what it leaves out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.ledger import LEDGER, ledger_table
from atomsets_core.sources.selection import filter_reasons, usable_labels
from atomsets_core.structures.batch import Refusal
from atomsets_core.structures.reading import as_structures

INF = float("inf")


def pulled(**columns: list) -> Pulled:
    """Cubes of Fe, FeO, LiFeO, LiFeOO, ... with these columns."""
    n = len(next(iter(columns.values())))
    symbols = [["Fe"], ["Fe", "O"], ["Li", "Fe", "O"], ["Li", "Fe", "O", "O"]]
    made = [
        Structure(Lattice.cubic(4), symbols[i % 4], np.linspace(0, 0.6, len(symbols[i % 4]))[:, None] * np.ones(3))
        for i in range(n)
    ]
    return Pulled(as_structures(made, [f"m{i}" for i in range(n)]), pd.DataFrame(columns), [], {"name": "file.csv"})


@pytest.mark.parametrize(
    ("value", "transform", "reason"),
    [
        (float("nan"), "none", "K is missing"),
        (None, "none", "K is missing"),
        (INF, "none", "K is infinite"),
        (-INF, "log10", "K is infinite"),
        ("inf", "none", "K is infinite"),
        ("about 3", "none", "K is not a number: 'about 3'"),
        ("", "none", "K is not a number: ''"),
        ([1.0, 2.0], "none", "K is not a number: '[1.0, 2.0]'"),
        ({"a": 1}, "none", "K is not a number"),
        (0.0, "log10", "K is 0: log10 needs a positive value"),
        (-2.5, "log10", "K is -2.5: log10 needs a positive value"),
        ("-2.5", "log10", "K is -2.5: log10 needs a positive value"),
    ],
)
def test_each_unusable_label_is_refused_with_its_reason(value: object, transform: str, reason: str):
    source = pulled(K=pd.Series([100.0, value, 3.0], dtype=object))
    usable, refused = usable_labels(source, "K", transform)
    assert usable.tolist() == [True, False, True]
    assert [(r.material_id, r.stage, r.structure_hash) for r in refused] == [
        ("m1", "label", source.structures.hashes[1])
    ]
    assert refused[0].reason.startswith(reason)


def test_zero_and_negative_values_are_good_without_a_logarithm():
    usable, refused = usable_labels(pulled(K=[0.0, -1.0, 1e-300]), "K", "none")
    assert usable.all()
    assert refused == []


def test_numbers_written_as_text_are_numbers():
    usable, _ = usable_labels(pulled(K=["1.5", " 2 ", "1e3"]), "K", "log10")
    assert usable.all()


def test_integers_with_gaps_keep_their_gaps():
    usable, refused = usable_labels(pulled(K=pd.array([1, None, 3], dtype="Int64")), "K", "log10")
    assert usable.tolist() == [True, False, True]
    assert refused[0].reason == "K is missing"


def test_a_long_text_is_cut_in_the_reason():
    _, refused = usable_labels(pulled(K=[1.0, "x" * 5000]), "K", "none")
    assert len(refused[0].reason) < 100


def test_not_one_usable_label_is_an_error_that_says_why():
    with pytest.raises(SourceError, match="none of the 2 values of 'K' can be learned from: K is 0: log10"):
        usable_labels(pulled(K=[0.0, -1.0]), "K", "log10")


def test_an_unknown_target_lists_the_numeric_columns():
    with pytest.raises(SourceError, match=r"no column 'k' in file.csv; numeric are \['K'\]"):
        usable_labels(pulled(K=[1.0], text=["a"]), "k", "none")


def test_bounds_include_their_ends():
    reasons = filter_reasons(pulled(gap=[0.9, 1.0, 2.0, 2.1]), {"gap": (1.0, 2.0)})
    assert reasons.tolist() == ["gap below 1.0", "", "", "gap above 2.0"]


def test_an_open_bound_lets_everything_pass_but_what_is_missing():
    source = pulled(gap=[-1e9, 1e9, None])
    assert filter_reasons(source, {"gap": (None, None)}).tolist() == ["", "", "gap is missing"]
    assert filter_reasons(source, {"gap": (0.0, None)}).tolist() == ["gap below 0.0", "", "gap is missing"]
    assert filter_reasons(source, {}).tolist() == ["", "", ""]


def test_number_of_atoms_and_elements_are_known_without_a_column():
    source = pulled(x=[1.0] * 4)
    assert filter_reasons(source, {"n_atoms": (2, 3)}).tolist() == ["n_atoms below 2", "", "", "n_atoms above 3"]
    # LiFeOO has four atoms of three elements
    assert filter_reasons(source, {"n_elements": (3, None)}).tolist() == ["n_elements below 3"] * 2 + ["", ""]


def test_excluded_elements_and_the_first_reason_counts():
    source = pulled(gap=[0.0, 5.0, 5.0, 5.0])
    reasons = filter_reasons(source, {"gap": (1.0, None)}, ["Li", "O"])
    assert reasons.tolist() == ["gap below 1.0", "holds O", "holds Li", "holds Li"]


def test_mistakes_in_filters_are_named():
    source = pulled(gap=[1.0, 2.0], colour=["red", "blue"])
    with pytest.raises(
        SourceError, match=r"filter on 'bandgap': file.csv has no such column; there are n_atoms, .* gap"
    ):
        filter_reasons(source, {"bandgap": (0, None)})
    with pytest.raises(SourceError, match="filter on 'colour': the column holds no number"):
        filter_reasons(source, {"colour": (0, None)})
    with pytest.raises(SourceError, match="'Xx' is not an element"):
        filter_reasons(source, {}, ["Xx"])


def test_filters_on_nothing():
    empty = pulled(gap=[1.0]).structures.take([])
    source = Pulled(empty, pd.DataFrame({"gap": np.empty(0)}))
    assert filter_reasons(source, {"gap": (0, 1), "n_elements": (1, 2)}, ["O"]).tolist() == []


def test_the_ledger_has_one_row_for_each_refusal():
    rows = [
        ("training", Refusal("a", "label", "K is missing", "ff")),
        ("candidates", Refusal("b", "parse", "no sites")),
    ]
    table = ledger_table(rows)
    assert table.column_names == list(LEDGER)
    assert table.to_pylist()[0] == dict(zip(LEDGER, ("training", "a", "label", "K is missing", "ff"), strict=True))
    assert table.num_rows == 2
    assert ledger_table([]).schema == table.schema


def test_only_some_elements_are_let_through(elastic):
    structures = elastic.structures.take(np.arange(100))
    source = Pulled(structures, pd.DataFrame(index=range(100)))
    reasons = filter_reasons(source, {}, only_elements=["Nb", "Co", "Si", "Al"])
    for crystal, reason in zip(structures.to_pymatgen(), reasons, strict=True):
        others = {e.symbol for e in crystal.composition} - {"Nb", "Co", "Si", "Al"}
        assert reason in {f"holds {symbol}" for symbol in others} if others else reason == ""
    assert (reasons == "").any()
    with pytest.raises(SourceError, match="only_elements: 'Xx' is not an element"):
        filter_reasons(source, {}, only_elements=["Xx"])
