"""Labels that came later find their predictions, once, and only predictions that didn't know them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.campaigns import outcomes
from tests.atomsets_core.campaigns.test_changes import ranking


def labels(**values):
    return pa.table(
        {
            "material_id": pa.array(list(values), pa.string()),
            "structure_hash": pa.array([f"{name}-a" for name in values], pa.string()),
            "value": pa.array(list(values.values()), pa.float64()),
        }
    )


def confront(before, labelled, learned=None, already=None):
    learned = labels() if learned is None else learned
    already = outcomes.none() if already is None else already
    return outcomes.confront(before, labelled, learned, already, run=3, model="models/m")


def test_a_label_finds_its_prediction():
    before = ranking(list("abcd"), shortlist=["a"])
    found = confront(before, labels(c=170.0, z=5.0, a=999.0))
    assert found["material_id"].to_pylist() == ["a", "c"]
    assert found["rank"].to_pylist() == [1, 3]
    assert found["predicted"].to_pylist() == [before["predicted"][0].as_py(), before["predicted"][2].as_py()]
    assert outcomes.is_inside(found).tolist() == [False, True]
    assert set(found["run"].to_pylist()) == {3}
    assert set(found["model"].to_pylist()) == {"models/m"}


def test_a_label_under_another_name_is_found_by_its_structure():
    labelled = labels(elsewhere=1.0)
    labelled = labelled.set_column(1, "structure_hash", pa.array(["b-a"]))
    assert confront(ranking(list("abc")), labelled)["material_id"].to_pylist() == ["b"]


def test_what_the_model_had_learned_and_what_was_confronted_before_does_not_count():
    before = ranking(list("abcd"))
    assert confront(before, labels(a=1.0, b=2.0), learned=labels(a=1.0))["material_id"].to_pylist() == ["b"]
    first = confront(before, labels(a=1.0))
    again = confront(before, labels(a=1.0, c=3.0), already=first)
    assert again["material_id"].to_pylist() == ["c"]
    assert outcomes.append(first, again).num_rows == 2


def test_scores():
    n = 40
    before = ranking([f"m{i}" for i in range(n)], predicted=np.full(n, 100.0))  # intervals 83.3 to 120
    right = {f"m{i}": 110.0 for i in range(36)}
    wrong = {f"m{i}": 1000.0 for i in range(36, n)}
    found = outcomes.scores(confront(before, labels(**right, **wrong)), 0.9, 0.05, np.log10)
    assert (found["n"], found["inside"], found["coverage"]) == (40, 36, 0.9)
    assert found["mae"] == pytest.approx((36 * np.log10(1.1) + 4) / 40)
    assert found["bias"] == pytest.approx(-found["mae"])
    assert found["drifted"] is False
    worse = outcomes.scores(
        confront(before, labels(**dict.fromkeys(list(right)[:20], 1000.0) | wrong)), 0.9, 0.05, np.log10
    )
    assert worse["drifted"] is True
    assert worse["coverage_p"] < 1e-6


def test_few_or_none_are_not_judged():
    nothing = outcomes.scores(outcomes.none(), 0.9, 0.05)
    assert (nothing["n"], nothing["mae"], nothing["drifted"]) == (0, None, None)
    before = ranking(list("abc"))
    few = outcomes.scores(confront(before, labels(a=1.0, b=1.0)), 0.9, 0.05)
    assert few["n"] == 2
    assert few["drifted"] is None


def test_rows_say_whether_it_was_right():
    before = ranking(list("ab"), predicted=[100.0, 100.0])
    rows = outcomes.rows_of(confront(before, labels(a=110.0, b=200.0)), np.log10)
    assert [row["inside"] for row in rows] == [True, False]
    assert rows[1]["error"] == pytest.approx(-np.log10(2))


def test_probabilities_are_judged_by_the_classes_that_came():
    random = np.random.default_rng(1)
    p = random.uniform(0.05, 0.95, 60)
    before = ranking([f"m{i}" for i in range(60)], predicted=p)
    true = {f"m{i}": float(random.random() < p[i]) for i in range(60)}
    found = outcomes.class_scores(confront(before, labels(**true)), 0.4)
    value = np.array(list(true.values()))
    assert found["n"] == 60
    assert found["inside"] == int(((p >= 0.5) == (value > 0.5)).sum())
    assert found["log_loss"] == pytest.approx(-np.mean(np.log(np.where(value > 0.5, p, 1 - p))))
    assert found["log_loss_out_of_fold"] == 0.4
    assert found["drifted"] is False
    turned = outcomes.class_scores(confront(before, labels(**{name: 1.0 - v for name, v in true.items()})), 0.4)
    assert turned["drifted"] is True
    assert turned["coverage_p"] < 1e-3
    few = outcomes.class_scores(confront(before, labels(m0=1.0)), 0.4)
    assert few["drifted"] is None
    nothing = outcomes.class_scores(outcomes.none(), 0.4)
    assert (nothing["n"], nothing["log_loss"]) == (0, None)


def test_a_probability_is_right_on_the_side_of_a_half():
    found = confront(ranking(list("ab"), predicted=np.array([0.7, 0.2])), labels(a=1.0, b=1.0))
    assert [row["inside"] for row in outcomes.rows_of(found, of_class=True)] == [True, False]
