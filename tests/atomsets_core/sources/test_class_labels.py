"""Labels that are classes: one of them against all others, contradictions by rule, and what can't be learned, named."""

import numpy as np
import pandas as pd
import pytest

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.class_labels import CLASS_RULES, check_both, class_labels, class_name, settle_classes
from atomsets_core.structures.compositions import from_formulas

FORMULAS = ["NaCl", "KCl", "Fe", "Cu", "MgO", "Al2O3", "NiAl", "TiC"]


def pulled(cells):
    structures, _ = from_formulas(FORMULAS[: len(cells)], [f"id-{k}" for k in range(len(cells))])
    return Pulled(structures, pd.DataFrame({"kind": pd.Series(cells, dtype=object)}), provenance={"name": "a.csv"})


def test_one_class_is_told_from_all_others():
    found = class_labels(pulled(["ion", "ion", "metal", "metal", "ion", "ion", None, "ceramic"]), "kind", "metal")
    assert found.usable.tolist() == [True] * 6 + [False, True]
    assert found.values[found.usable].tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert found.counts == {"metal": 2, "ion": 4, "ceramic": 1}
    assert [(row.material_id, row.reason) for row in found.refused] == [("id-6", "kind is missing")]
    assert found.notes == ["kind: metal (2 rows) is told from all other classes together: ion (4), ceramic (1)"]


@pytest.mark.parametrize(
    ("cells", "wanted", "name"),
    [
        ([True, False, True, False], True, "true"),
        ([True, False, True, False], "true", "true"),
        ([1.0, 2.0, 1.0, 2.0], 2.0, "2"),
        ([1, 2, 1, 2], "2", "2"),
        (["Metal", "ion", "Metal", "ion"], "metal", "Metal"),
    ],
)
def test_the_wanted_class_is_found_however_it_is_written(cells, wanted, name):
    found = class_labels(pulled(cells), "kind", wanted)
    assert next(iter(found.counts)) == name
    assert found.values.tolist() == [float(class_name(cell) == name) for cell in cells]


@pytest.mark.parametrize(
    ("cells", "wanted", "message"),
    [
        (["metal"] * 8, "metal", "all 8 rows of 'kind' are of one class, 'metal'"),
        ([None] * 8, "metal", "none of the 8 rows has a class in 'kind'"),
        (["a", "b"] * 4, "c", r"'c' is no class of 'kind': name one of a \(4 rows\), b \(4 rows\)"),
        (["a"] + ["b"] * 7, "a", r"the class 'a' in 'kind' has 1 row alone \(id-0\).*objective.value"),
        (["a"] + ["b"] * 7, "b", "what is not 'b' in 'kind' has 1 row alone"),
        ([1.5, 2.0, 3.0, 4.0], "2", "holds numbers such as 1.5.*training.task = 'number'"),
    ],
)
def test_what_cannot_be_learned_says_what_to_change(cells, wanted, message):
    with pytest.raises(SourceError, match=message):
        class_labels(pulled(cells), "kind", wanted)


def test_many_classes_are_names_or_numbers():
    structures, _ = from_formulas(["NaCl", "KCl"] * 15, [f"id-{k}" for k in range(30)])
    for cells, what in (([f"c{k}" for k in range(30)], "classes"), (list(range(30)), "numbers")):
        with pytest.raises(SourceError, match=f"holds 30 different {what}, and 20 classes are the most"):
            class_labels(Pulled(structures, pd.DataFrame({"kind": cells})), "kind", cells[0])


def test_a_class_of_one_formula_is_no_class():
    with pytest.raises(SourceError, match="has 3 rows of one formula alone"):
        check_both(list("abcde"), ["Fe", "Fe", "Fe", "NaCl", "KCl"], np.array([1.0, 1, 1, 0, 0]), "kind", "metal")
    with pytest.raises(SourceError, match="has no row alone"):
        check_both(list("ab"), ["Fe", "Cu"], np.array([0.0, 0.0]), "kind", "metal")


def settled(rule, values):
    names = [f"id-{k}" for k in range(len(values))]
    keys = np.array(["x"] * (len(values) - 1) + ["y"], dtype=object)
    usable = np.ones(len(values), dtype=bool)
    return settle_classes(names, names, usable, np.array(values), "kind", rule, keys)


@pytest.mark.parametrize(
    ("rule", "values", "left"),
    [
        ("keep", [1.0, 0.0, 1.0, 0.0], [0, 1, 2, 3]),
        ("drop", [1.0, 0.0, 1.0, 0.0], [3]),
        ("latest", [1.0, 0.0, 0.0, 0.0], [2, 3]),
        ("median", [1.0, 0.0, 1.0, 0.0], [0, 3]),
        ("median", [1.0, 0.0, 0.0, 0.0], [1, 3]),
        ("median", [1.0, 0.0, 1.0], [2]),
    ],
)
def test_contradictions_are_said_and_settled_by_the_rule(rule, values, left):
    found = settled(rule, values)
    assert np.flatnonzero(found.usable).tolist() == left
    assert len(found.refused) == len(values) - len(left)
    assert "1 structure or formula with labels of kind that contradict each other" in found.notes[0]
    if rule != "keep":
        assert all("labels of the same crystal that contradict" in row.reason for row in found.refused)


def test_labels_that_agree_need_no_rule_and_means_are_for_numbers():
    assert settled("median", [1.0, 1.0, 0.0]).notes == []
    with pytest.raises(ValueError, match="repeats = 'mean' is for numbers: of classes there are median, latest"):
        settled("mean", [1.0, 0.0, 1.0])
    assert "mean" not in CLASS_RULES
