"""Columns become numbers as a whole; what couldn't be read stays with its row, through files and selections."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.jobs.structures import select
from atomsets_core.sources.base import SourceError
from atomsets_core.sources.columns import UNREAD, find_column, joined, numbers_of, read_columns, sizes_differ, unit_of
from atomsets_core.sources.pull import pull, pull_into
from atomsets_core.sources.selection import usable_labels
from atomsets_core.storage.store import Store


def test_each_column_becomes_what_most_of_its_cells_are():
    frame = pd.DataFrame(
        {
            "whole": ["1", "2", "3"],
            "real": ["1", "2.5", None],
            "flag": ["True", "false", "TRUE"],
            "text": ["oxide", "n/a", "salt"],
            "mixed": ["5.2", "na", "7(1)"],
            "nothing": [None, "", "NaN"],
            "none": [{"a": 1}, None, [2]],
        },
        dtype=object,
    )
    read = read_columns(frame, rows=[2, 3, 4])
    assert read.frame["whole"].dtype == np.int64
    assert read.frame["real"].dtype == read.frame["mixed"].dtype == read.frame["nothing"].dtype == np.float64
    assert read.frame["flag"].tolist() == [True, False, True]
    assert read.frame["text"].fillna("-").tolist() == ["oxide", "-", "salt"]
    assert read.frame["mixed_error"].tolist()[2] == 1
    assert json.loads(read.frame[UNREAD].iloc[1]) == {"mixed": "is not a number: 'na' (row 3)"}
    assert read.frame[UNREAD].isna().tolist() == [True, False, True]
    again = read_columns(read.frame)
    pd.testing.assert_frame_equal(again.frame, read.frame)


def test_sentences_go_with_their_column_when_tables_are_joined():
    one = read_columns(pd.DataFrame({"a": ["1", "x", "2"], "b": ["1", "2", "y"]}, dtype=object)).frame
    other = read_columns(pd.DataFrame({"b": ["1", "2", "3"], "c": ["~1", "2", "3"]}, dtype=object)).frame
    both = joined(one, other)
    assert sorted(both.columns) == ["a", "b", "c", UNREAD]
    assert [json.loads(text) if text else None for text in both[UNREAD]] == [
        {"c": "is not a number: '~1'"},
        {"a": "is not a number: 'x'"},
        None,
    ]


def test_a_column_is_found_without_its_unit_or_where_it_stands_unless_two_are_meant():
    names = ["K (GPa)", "data.gap", "G [GPa]", "G (kbar)", "k"]
    assert [find_column(names, name) for name in ("K", "gap", "G [GPa]", "G", "k", "x")] == [
        "K (GPa)",
        "data.gap",
        "G [GPa]",
        None,
        "k",
        None,
    ]


def test_nines_are_named_with_what_all_others_are():
    values, reasons = numbers_of(pd.DataFrame({"gap": [1.0, 2, 3, -999, 4, 5]}), "gap")
    assert np.isnan(values[3])
    assert reasons[3] == "is -999, which stands for a missing value: all others lie between 1 and 5"


def test_the_unit_is_the_sources_own_and_none_that_contradicts_it():
    told = {"units": {"K": "kbar", "n": ""}}
    assert unit_of(told, ["K"], "") == "kbar"
    assert unit_of(told, ["K"], "kbar") == "kbar"
    assert unit_of(told, ["n"], "GPa") == "GPa"
    assert unit_of({"units": {"K (GPa)": "GPa"}}, ["K"], "") == "GPa"
    assert unit_of(told, ["K"], "eggs") == "eggs"  # nobody knows what it is
    with pytest.raises(ValueError, match="K is in kbar in the source, and you say GPa"):
        unit_of(told, ["K"], "GPa")


def test_an_energy_of_the_cell_is_named_where_cells_differ_in_size():
    told = {"per_cell": ["energy"]}
    (note,) = sizes_differ(told, ["energy", "gap"], np.array([2, 8, 4]))
    assert "energy is of the whole cell, and cells have 2 to 8 atoms" in note
    assert sizes_differ(told, ["energy"], np.array([4, 4])) == []
    assert sizes_differ({}, ["energy"], np.array([2, 8])) == []


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """Ten cubes each: labels in a table, and candidates with the cells of a filter mixed."""
    gaps = ["0.01", "0.02 eV", "0.09", "", "na", "0.03", "<0.1", "0.04", "0.02", "0.5"]
    found = {}
    for name, cells, start in (("training", ["1.5", "2(1)", "~3", *["4"] * 7], 4.0), ("candidates", gaps, 5.0)):
        rows = [
            {"material_id": f"{name[0]}{i}", "structure": Structure(Lattice.cubic(start + i / 2), ["Fe"], [[0] * 3])}
            for i in range(10)
        ]
        table = [
            {**row, "structure": json.dumps(row["structure"].as_dict()), "gap": cells[i]} for i, row in enumerate(rows)
        ]
        found[name] = tmp_path / f"{name}.csv"
        pd.DataFrame(table).to_csv(found[name], index=False)
    return found


def test_a_candidate_whose_value_cannot_be_read_has_failed_and_was_not_filtered(sources, tmp_path):
    store = Store(tmp_path / "store")
    training, candidates = (pull_into(store, f"{name}.parquet", str(path)) for name, path in sources.items())
    chosen = select(store, training, candidates, "gap", "none", {"gap": (None, 0.05)}, (), (), False)
    assert list(chosen.candidates.material_id) == ["c0", "c5", "c7", "c8"]
    assert chosen.filtered == {"gap above 0.05": 2, "gap is missing": 1}
    reasons = {(where, refusal.material_id): (refusal.stage, refusal.reason) for where, refusal in chosen.refused}
    assert reasons == {
        ("training", "t2"): ("label", "gap is not a number: '~3' (row 4)"),
        ("candidates", "c1"): ("filter", "gap is not a number: '0.02 eV', whose unit others don't have (row 3)"),
        ("candidates", "c4"): ("filter", "gap is not a number: 'na' (row 6)"),
        ("candidates", "c6"): ("filter", "gap is a bound, not a value: '<0.1' (row 8)"),
    }
    assert len(chosen.training) == 9


def test_a_pulled_file_says_of_its_rows_what_the_source_said(sources, tmp_path):
    store = Store(tmp_path / "store")
    pull_into(store, "candidates.parquet", str(sources["candidates"]))
    pulled = pull(str(tmp_path / "store" / "candidates.parquet"))
    _, refused = usable_labels(pulled, "gap", "none")
    assert "gap is not a number: 'na' (row 6)" in [refusal.reason for refusal in refused]
    with pytest.raises(SourceError, match=r"no column 'gab' .*numeric are \['gap'\]"):
        usable_labels(pulled, "gab", "none")
