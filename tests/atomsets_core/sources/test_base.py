"""What a source hands over adds up: each entry is a row or a refusal, each identifier stands once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from atomsets_core.sources.base import Pulled, pulled_from_arrow, without_duplicates
from atomsets_core.structures.batch import Refusal, Structures

CUBE = [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0]


def table(ids: list[str], numbers: list[int], **columns: list) -> pa.Table:
    """One polonium-like cube each."""
    n = len(ids)
    made = {"material_id": ids, "lattice": [CUBE] * n, "Z": [[z] for z in numbers], "frac": [[0.0] * 3] * n}
    return pa.table({**made, **columns})


def test_the_first_of_each_identifier_is_kept_and_each_later_one_is_in_the_ledger():
    ids = ["a", "b", "a", "c", "a", "b"]
    pulled = pulled_from_arrow(table(ids, [1, 2, 3, 4, 5, 6], x=[1, 2, 3, 4, 5, 6]), {})
    assert list(pulled.structures.material_id) == ["a", "b", "c"]
    assert pulled.structures.numbers.tolist() == pulled.columns["x"].tolist() == [1, 2, 4]
    assert Counter(refusal.material_id for refusal in pulled.refused) == {"a": 2, "b": 1}
    for refusal in pulled.refused:
        assert refusal.stage == "pull"
        assert "duplicate id" in refusal.reason
    # the ledger tells the repeated structures apart
    assert len({refusal.structure_hash for refusal in pulled.refused}) == 3
    assert pulled.n_seen == 6


def test_a_repeat_of_an_entry_that_was_refused_is_no_repeat():
    pulled = pulled_from_arrow(table(["a", "a", "a"], [0, 1, 2]), {})
    assert pulled.structures.numbers.tolist() == [1]
    assert ["unknown element" in pulled.refused[0].reason, "duplicate id" in pulled.refused[1].reason] == [True, True]
    assert pulled.n_seen == 3


@pytest.mark.parametrize("seed", range(5))
def test_accepted_and_refused_add_up_and_columns_stay_with_their_structure(seed: int):
    random = np.random.default_rng(seed)
    n = 200
    ids = [f"m{i}" for i in random.integers(0, 150, n)]
    numbers = random.integers(-5, 125, n).tolist()
    pulled = pulled_from_arrow(table(ids, numbers, x=[float(z) for z in numbers]), {})
    assert pulled.n_seen == n == len(pulled.structures) + len(pulled.refused)
    assert len(set(pulled.structures.material_id)) == len(pulled.structures)
    assert Counter([*pulled.structures.material_id, *(r.material_id for r in pulled.refused)]) == Counter(ids)
    np.testing.assert_array_equal(pulled.columns["x"], pulled.structures.numbers)


def test_without_repeats_nothing_is_touched():
    pulled = pulled_from_arrow(table(["a", "b"], [1, 2]), {"name": "x"})
    assert without_duplicates(pulled) is pulled


def test_arrow_round_trip_keeps_columns_and_their_types():
    source = table(["a", "b"], [1, 2], gap=[1.5, None], label=["x", None], flag=[True, False], count=[1, 2])
    before = pulled_from_arrow(source, {"name": "x"})
    after = pulled_from_arrow(before.to_arrow(), {"name": "x"})
    pd.testing.assert_frame_equal(before.columns, after.columns)
    assert list(before.structures.hashes) == list(after.structures.hashes)
    assert before.provenance == after.provenance


def test_the_structures_own_columns_win_over_those_of_the_source():
    source = table(["a", "b"], [26, 8], formula=["wrong"] * 2, n_atoms=[9, 9], structure_hash=["0"] * 2, x=[1, 2])
    pulled = pulled_from_arrow(source, {})
    assert list(pulled.columns.columns) == ["x"]
    assert pulled.to_arrow()["formula"].to_pylist() == ["Fe", "O2"]
    assert pulled.to_arrow()["n_atoms"].to_pylist() == [1, 1]


def test_identifiers_may_be_in_another_column():
    source = table(["a", "b"], [26, 8]).rename_columns(["name", "lattice", "Z", "frac"])
    pulled = pulled_from_arrow(source, {}, id_column="name")
    assert list(pulled.structures.material_id) == ["a", "b"]
    assert list(pulled.columns.columns) == []


def test_a_table_without_structures_is_refused():
    with pytest.raises(ValueError, match="no column 'lattice'"):
        pulled_from_arrow(pa.table({"x": [1]}), {})


def test_columns_and_structures_must_have_one_length():
    structures: Structures = pulled_from_arrow(table(["a"], [1]), {}).structures
    with pytest.raises(ValueError, match="2 rows of columns for 1 structures"):
        Pulled(structures, pd.DataFrame({"x": [1, 2]}))


def test_refusals_of_the_source_are_kept_before_the_repeats():
    pulled = pulled_from_arrow(table(["a", "a"], [1, 2]), {})
    again = without_duplicates(
        Pulled(
            Structures.concat([pulled.structures, pulled.structures]),
            pd.DataFrame({"x": [1, 2]}),
            [Refusal("z", "parse", "not a CIF")],
        )
    )
    assert [refusal.material_id for refusal in again.refused] == ["z", "a"]
    assert again.columns["x"].tolist() == [1]
