"""Words of limits, and columns of candidates that a joint ranking uses."""

import numpy as np
import pandas as pd
import pytest

from atomsets_core.discovery.goals import Goal
from atomsets_core.jobs.candidate_columns import candidate_column, candidate_numbers, columns_there
from atomsets_core.jobs.combine import chance_words, limit_words
from atomsets_core.jobs.rank import hull_energies
from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.catalogue import Catalogue
from atomsets_core.storage.store import Store
from atomsets_core.structures.compositions import as_compositions


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100%"), (0.0, "0%"), (0.42, "42%"), (0.999998, "99.9998%"), (0.0012, "0.1%"), (1e-12, "almost 0%")],
)
def test_nearly_certain_is_not_certain(share, said):
    assert chance_words(share) == said


def test_a_limit_says_its_probability_as_it_was_asked_for():
    assert limit_words(Goal("G", "exceed", 30.0, at_least=0.995), "GPa") == "G is above 30 GPa with less than 99.5%"


@pytest.fixture
def formulas(tmp_path):
    """Four formulas with columns of numbers, of text, and of both."""
    columns = pd.DataFrame(
        {
            "price (g)": [1.0, 2.0, np.nan, 4.0],
            "who": ["a", "b", "c", "d"],
            "e_above_hull": ["0.01", "?", "0.02", None],
        }
    )
    pulled = Pulled(as_compositions(["Fe2O3", "NaCl", "MgO", "Ti"]), columns, [], {"name": "t"})
    store = Store(tmp_path)
    store.write_table("candidates.parquet", pulled.to_arrow())
    return Catalogue.open(store, "candidates.parquet")


def test_a_column_is_found_up_to_its_unit(formulas):
    assert candidate_column(formulas, "price").tolist() == pytest.approx([1.0, 2.0, np.nan, 4.0], nan_ok=True)
    assert columns_there(formulas) == ["price (g)", "who", "e_above_hull", "n_elements"]


def test_a_cell_that_is_no_number_has_a_reason(formulas):
    values, unread = candidate_numbers(formulas, "e_above_hull")
    assert values.tolist() == pytest.approx([0.01, np.nan, 0.02, np.nan], nan_ok=True)
    assert [bool(text) for text in unread] == [False, True, False, False]
    assert "is not a number: '?'" in unread[1]
    assert hull_energies(formulas)[0] == 0.01, "one cell of text costs itself alone"


def test_a_column_of_text_is_refused(formulas):
    with pytest.raises(SourceError, match="no candidate has a number in the column 'who': who is not a number: 'a'"):
        candidate_column(formulas, "who")


def test_formulas_have_elements_and_no_cell(formulas):
    assert candidate_column(formulas, "n_elements").tolist() == [2, 2, 2, 1]
    for name in ("density", "n_atoms"):
        with pytest.raises(SourceError, match=f"'{name}' is no property .* no such column"):
            candidate_column(formulas, name)
