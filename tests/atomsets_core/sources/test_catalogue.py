"""A file of structures handled line by line gives what the same structures give in memory."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomsets_core.sources import catalogue
from atomsets_core.sources.base import Pulled
from atomsets_core.sources.catalogue import Catalogue, rewrite, write_catalogue
from atomsets_core.sources.pull import pull, pull_into
from atomsets_core.sources.selection import (
    already_seen,
    already_seen_lines,
    deduplicate,
    deduplicate_file,
    filter_reasons,
)
from atomsets_core.storage.store import StorageError, Store
from atomsets_core.structures.batch import Structures


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(catalogue, "BLOCK", 7)


@pytest.fixture
def store(tmp_path, small_blocks):
    return Store(tmp_path)


@pytest.fixture(scope="module")
def pulled(elastic):
    """40 structures, five of them once more under other names, one of those moved and in another cell."""
    first = elastic.structures.take(np.arange(40))
    again = replace(first.take(np.arange(5)), material_id=np.array([f"again-{i}" for i in range(5)], dtype=object))
    doubled = again.take([0]).to_pymatgen()[0] * (1, 1, 2)
    other = catalogue.from_arrow(
        pa.table(
            {
                "material_id": ["doubled"],
                "lattice": [doubled.lattice.matrix.ravel().tolist()],
                "Z": [list(doubled.atomic_numbers)],
                "frac": [(doubled.frac_coords + 0.1).ravel().tolist()],
            }
        )
    )[0]
    structures = Structures.concat([first, again, other])
    columns = pd.DataFrame({"e": np.linspace(1.0, 0.0, 46), "gap": [None, *range(45)], "text": ["x"] * 46})
    return Pulled(structures, columns, provenance={"name": "made up"})


@pytest.fixture
def filled(store, pulled):
    store.write_table("s.parquet", pulled.to_arrow(), row_group_size=11)
    return Catalogue.open(store, "s.parquet")


def test_it_is_what_was_written(filled, pulled):
    assert list(filled.lines.material_id) == list(pulled.structures.material_id)
    assert list(filled.lines.hashes) == list(pulled.structures.hashes)
    assert list(filled.lines.formulas) == list(pulled.structures.formulas)
    assert list(filled.structures().hashes) == list(pulled.structures.hashes)
    np.testing.assert_array_equal(filled.columns(["e", "nothing"])["e"], pulled.columns["e"])


@pytest.mark.parametrize("rows", [[3], [0, 6, 7, 10, 11, 45], [], range(46), range(12, 30)])
def test_parts_of_it_are_read_in_blocks(filled, pulled, rows):
    rows = np.array(rows, dtype=np.int64)
    part = filled.take(rows)
    reference = pulled.structures.take(rows)
    positions, hashes, energies = [], [], []
    for at, block, columns in part.blocks(["e"]):
        assert len(at) == len(block) <= 7
        positions.extend(at)
        hashes.extend(block.hashes)
        energies.extend(columns["e"].to_pylist())
    assert positions == list(range(len(rows)))
    assert hashes == list(reference.hashes)
    assert energies == list(pulled.columns["e"].iloc[rows])
    groups = list(part.groups(4))
    assert [h for group in groups for h in group.hashes] == hashes
    assert all(len(group) == 4 for group in groups[:-1])


def test_forgotten_lines_are_read_again(filled, pulled):
    rows = np.array([1, 8, 30, 45])
    early = filled.take(rows)
    filled.forget()
    late = filled.take(rows)
    assert list(early.lines.hashes) == list(late.lines.hashes) == list(pulled.structures.hashes[rows])
    late.forget()
    np.testing.assert_array_equal(late.lines.n_atoms, pulled.structures.n_atoms[rows])
    assert list(filled.hashes) == list(pulled.structures.hashes)
    assert filled.take(np.ones(46, dtype=bool)) is filled


def test_rows_left_out_are_gone_after_rewriting(filled):
    kept = filled.take(np.array([1, 8, 30, 45]))
    rewrite(kept)
    again = Catalogue.open(filled.store, "s.parquet")
    assert list(again.lines.hashes) == list(kept.lines.hashes) == list(again.structures().hashes)
    assert again.schema == filled.schema


def test_a_changed_file_is_noticed(filled):
    table = filled.store.read_table("s.parquet")
    frac = table["frac"].to_pylist()
    frac[4] = frac[4][:-1]
    broken = table.set_column(table.column_names.index("frac"), "frac", pa.array(frac, table["frac"].type))
    filled.store.write_table("s.parquet", broken)
    with pytest.raises(StorageError, match="is damaged: mp-"):
        filled.structures()


@pytest.mark.parametrize("by", [["content"], ["structure"], ["id", "content", "structure"]])
@pytest.mark.parametrize("prefer", [None, "e"])
def test_duplicates_go_from_a_file_as_from_memory(store, pulled, tmp_path, by, prefer):
    pq.write_table(pulled.to_arrow(), tmp_path / "in.parquet")
    file = pull_into(store, "s.parquet", str(tmp_path / "in.parquet"))
    reference = deduplicate(pulled, by, prefer=prefer)
    kept = deduplicate_file(store, file, by, prefer=prefer)
    assert list(Catalogue.open(store, "s.parquet").structures().hashes) == list(reference.structures.hashes)
    assert kept.refused == reference.refused
    assert kept.structures == len(reference.structures) < len(pulled.structures)
    assert kept.n_seen == 46


def test_filters_are_those_of_structures(filled, pulled):
    bounds = {"gap": (2.0, 30.0), "n_elements": (2, 3), "n_atoms": (1, 20)}
    for more in ({}, {"exclude_elements": ["O", "Fe"]}, {"only_elements": ["Nb", "Co", "Si", "O", "Ca"]}):
        lines = filter_reasons(filled.pulled(["gap"], "made up"), bounds, **more)
        assert list(lines) == list(filter_reasons(pulled, bounds, **more))
    np.testing.assert_array_equal(filled.lines.n_elements, pulled.structures.n_elements)


def test_what_was_seen_is_what_structures_say(filled, pulled):
    training = filled.take(np.arange(3, 40, 2))
    candidates = filled.take(np.setdiff1d(np.arange(46), np.arange(5, 40, 4)))
    expected = already_seen(candidates.structures(), training.structures())
    assert list(already_seen_lines(candidates, training)) == list(expected)
    assert {"", "its identifier is in the training data", "its structure is in the training data"} <= set(expected)


def test_a_table_copied_in_blocks_is_the_table_read_whole(store, elastic, tmp_path):
    table = elastic.structures.take(np.arange(30)).to_arrow()
    table = table.append_column("K", pa.array(np.arange(30.0))).append_column("note", pa.array(["a", None] * 15))
    same = table.slice(2, 1)
    empty = table.slice(0, 1).set_column(5, "Z", pa.array([[]], table["Z"].type))
    empty = empty.set_column(0, "material_id", pa.array(["empty"]))
    path = tmp_path / "in.parquet"
    pq.write_table(pa.concat_tables([table, same, empty]), path, row_group_size=9)
    whole = pull(str(path))
    file = pull_into(store, "s.parquet", str(path))
    again = Catalogue.open(store, "s.parquet")
    assert list(again.structures().hashes) == list(whole.structures.hashes)
    pd.testing.assert_frame_equal(again.columns(["K", "note"]), whole.columns[["K", "note"]])
    assert sorted((r.material_id, r.stage) for r in file.refused) == sorted(
        (r.material_id, r.stage) for r in whole.refused
    )
    assert file.provenance == whole.provenance == store.read_json("s.json")
    assert file.n_seen == whole.n_seen == 32


def test_partial_occupancies_survive(store, tmp_path):
    table = pa.table(
        {
            "material_id": ["a", "b"],
            "lattice": [[4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0]] * 2,
            "Z": [[26, 28], [11]],
            "frac": [[0.0] * 6, [0.0] * 3],
            "occupancy": [[0.5, 0.5], [1.0]],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    pull_into(store, "s.parquet", str(tmp_path / "in.parquet"))
    found = Catalogue.open(store, "s.parquet")
    assert list(found.lines.formulas) == list(pull(str(tmp_path / "in.parquet")).structures.formulas)
    assert list(found.structures().shares) == [0.5, 0.5, 1.0]
    assert list(found.lines.n_elements) == [2, 1]


def test_nothing_written_is_an_empty_catalogue(store, elastic):
    assert write_catalogue(store, "s.parquet", [elastic.structures.take([]).to_arrow()]) == 0
    nothing = Catalogue.open(store, "s.parquet")
    assert len(nothing) == 0
    assert list(nothing.groups(5)) == []
