"""Labels and candidates that are structures or formulas: which go together, and what is said of the others."""

import pytest

from atomsets_core.jobs.structures import agreed_kinds
from atomsets_core.sources.base import SourceError
from atomsets_core.structures.compositions import as_compositions


def test_structures_may_be_ranked_by_labels_of_formulas(elastic):
    (said,) = agreed_kinds(as_compositions(["Fe2O3", "Nb3Co"]), elastic.structures)
    assert "each is ranked by its composition alone" in said
    assert agreed_kinds(elastic.structures, elastic.structures) == []
    assert agreed_kinds(as_compositions(["Fe2O3"]), as_compositions(["MgO"])) == []


def test_formulas_are_not_ranked_by_labels_of_structures(elastic):
    with pytest.raises(SourceError, match='set training.take = "compositions" to learn from the compositions'):
        agreed_kinds(elastic.structures, as_compositions(["MgO"]))


def test_no_element_in_common_is_told():
    reason = "no candidate holds an element that any label is of: labels are of O, Fe, candidates of Na, Cl"
    with pytest.raises(SourceError, match=reason):
        agreed_kinds(as_compositions(["Fe2O3"]), as_compositions(["NaCl"]))
