"""Blocks of a source add up to the source, and the intake gives each content once."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomsets_core.features.shards import Intake, shard_key
from atomsets_core.sources.pull import pull, read_blocks
from atomsets_core.structures.batch import Structures


@pytest.fixture(scope="module")
def path(tmp_path_factory, elastic):
    """50 structures, the third once more under another name, an identifier twice, and one without sites."""
    table = elastic.structures.take(np.arange(50)).to_arrow().select(["material_id", "lattice", "Z", "frac"])
    again = table.slice(2, 1).set_column(0, "material_id", pa.array(["again"]))
    same_id = table.slice(7, 1).set_column(0, "material_id", table["material_id"].slice(9, 1))
    empty = table.slice(0, 1).set_column(0, "material_id", pa.array(["empty"]))
    empty = empty.set_column(2, "Z", pa.array([[]], empty["Z"].type))
    path = tmp_path_factory.mktemp("blocks") / "structures.parquet"
    pq.write_table(pa.concat_tables([table, again, same_id, empty]), path, row_group_size=20)
    return path


def blocks(path, size):
    n_seen, found = read_blocks(str(path), size=size)
    return n_seen, list(found)


@pytest.mark.parametrize("size", [1, 7, 20, 1000])
def test_blocks_are_the_source_in_pieces(path, size):
    whole = pull(str(path))
    n_seen, found = blocks(path, size)
    assert n_seen == whole.n_seen == 53
    joined = Structures.concat([block.structures for block in found])
    assert list(joined.material_id) == list(whole.structures.material_id)
    assert list(joined.hashes) == list(whole.structures.hashes)
    refused = [refusal for block in found for refusal in block.refused]
    assert sorted(r.material_id for r in refused) == sorted(r.material_id for r in whole.refused)
    assert max(len(block.structures) for block in found) <= size


def test_rows_without_a_name_are_numbered_through(tmp_path, elastic):
    path = tmp_path / "nameless.parquet"
    pq.write_table(elastic.structures.to_arrow().select(["lattice", "Z", "frac"]).slice(0, 30), path)
    _, found = blocks(path, 8)
    assert [name for block in found for name in block.structures.material_id] == [str(i) for i in range(30)]


def test_other_sources_come_in_blocks_too():
    n_seen, found = read_blocks("embedded:elastic", size=500)
    assert [len(block.structures) for block in found] == [0, 500, 500, 181]
    assert n_seen == 1181


@pytest.mark.parametrize("block", [1, 16, 1000])
def test_shards_depend_on_the_source_alone(path, block):
    intake = Intake(16)
    groups = list(intake.shards(read_blocks(str(path), size=block)[1]))
    assert [len(group) for group in groups] == [16, 16, 16, 2]
    keys = [shard_key(list(group.hashes), "digest", ["V0"]) for group in groups]
    reference = Intake(16).shards(read_blocks(str(path), size=4096)[1])
    assert keys == [shard_key(list(group.hashes), "digest", ["V0"]) for group in reference]
    assert (intake.seen, len(intake.content), intake.duplicates, len(intake.refused)) == (53, 50, 1, 2)
    index = intake.index().to_pandas()
    assert list(index["material_id"][index["duplicate"]]) == ["again"]
    assert index["structure_hash"].iloc[2] == index["structure_hash"][index["duplicate"]].item()
