"""Files of compositions handled line by line: as those of structures, without cells."""

import numpy as np
import pandas as pd
import pytest

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.catalogue import Catalogue
from atomsets_core.sources.pull import pull, pull_into
from atomsets_core.sources.selection import (
    already_seen,
    already_seen_lines,
    crystal_keys,
    deduplicate,
    deduplicate_file,
    filter_reasons,
)
from atomsets_core.storage.store import Store
from atomsets_core.structures.compositions import Compositions, as_compositions

TABLE = "formula,gap,n\nFe2O3,2.1,3\nFe4O6,2.0,1\nPb0.1Sn0.9Te,0.2,2\nMgO,7.8,4\nGa2O3,4.8,5\n"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "gaps.csv").write_text(TABLE)
    return Store(tmp_path)


@pytest.fixture
def file(store):
    return pull_into(store, "pulled.parquet", f"{store.root}/gaps.csv", options={"compositions": True})


def test_lines_and_blocks_are_those_of_the_table(store, file):
    found, memory = Catalogue.open(store, file.name), pull(f"{store.root}/gaps.csv", compositions=True)
    assert found.kind == found.lines.kind == "compositions"
    assert list(found.lines.formulas) == ["Fe2O3", "Fe2O3", "Sn9Te10Pb", "MgO", "Ga2O3"]
    assert list(found.hashes) == list(memory.structures.hashes)
    assert list(found.lines.n_elements) == [2, 2, 3, 2, 2]
    assert list(found.take(np.array([3])).structures().formulas) == ["MgO"]
    assert [len(group) for group in found.groups(2)] == [2, 2, 1]
    assert list(found.pulled(["nowhere"], "gaps").columns) == ["gap", "n"]
    keys = crystal_keys(found, np.ones(5, dtype=bool), np.arange(5.0))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("kind", ["content", "structure"])
def test_a_composition_is_kept_once_the_preferred_one(store, file, kind):
    kept = deduplicate_file(store, file, [kind], prefer="n")
    assert list(Catalogue.open(store, kept.name).material_id) == ["gaps-1", "gaps-2", "gaps-3", "gaps-4"]
    assert kept.refused[0].reason == "duplicate of gaps-1, which has the lower n: the same composition"
    in_memory = deduplicate(pull(f"{store.root}/gaps.csv", compositions=True), [kind], prefer="n")
    assert sorted(in_memory.structures.material_id) == ["gaps-1", "gaps-2", "gaps-3", "gaps-4"]


def test_seen_is_what_has_the_composition_and_not_the_number_of_the_row(store, file, elastic):
    found = Catalogue.open(store, file.name)
    known = as_compositions(["O6Fe4", "NaCl"], ["gaps-3", "gaps-4"])
    seen = already_seen(as_compositions(["Fe2O3", "MgO"], ["gaps-4", "gaps-3"]), known)
    assert list(seen) == ["its composition is in the training data", ""]
    others = found.take(np.array([0, 4]))
    assert list(already_seen_lines(found, others)) == [
        *["its composition is in the training data"] * 2, "", "", "its composition is in the training data",
    ]  # fmt: skip
    crystals = elastic.structures.take(np.flatnonzero(elastic.structures.formulas == "MgO")[:1])
    assert list(already_seen(crystals, as_compositions(["Mg2O2"]))) == ["its composition is in the training data"]


def test_filters_know_elements_and_no_cells(store, file):
    found = Catalogue.open(store, file.name).pulled(["gap"], "gaps")
    reasons = filter_reasons(found, {"gap": (1.0, None), "n_elements": (None, 2)}, ["Ga"])
    assert list(reasons) == ["", "", "gap below 1.0", "", "holds Ga"]
    memory = pull(f"{store.root}/gaps.csv", compositions=True)
    assert list(filter_reasons(memory, {}, [], ["Fe", "O"])) == ["", "", "holds Sn", "holds Mg", "holds Ga"]
    for source in (found, memory):
        with pytest.raises(SourceError, match="formulas have no cell of atoms; n_elements counts their elements"):
            filter_reasons(source, {"n_atoms": (None, 4)})


def test_of_structures_only_what_they_are_made_of_is_kept(tmp_path, elastic):
    store = Store(tmp_path)
    file = pull_into(store, "pulled.parquet", "embedded:elastic", take="compositions")
    found = Catalogue.open(store, file.name)
    assert found.kind == "compositions"
    assert file.structures == len(found) == len(elastic.structures)
    assert list(found.hashes) == list(Compositions.of(elastic.structures).hashes)
    pd.testing.assert_frame_equal(found.columns(["K_VRH"]), elastic.columns[["K_VRH"]])
    assert not {"lattice", "frac", "n_atoms"} & set(found.schema.names)
