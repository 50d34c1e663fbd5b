"""The best candidates become files that other programs read back as the same crystals."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar

from atomsets_core.report.candidates.export import FORMATS, ExportError, chosen_rows, export
from atomsets_core.storage.store import Store
from atomsets_core.structures import from_pymatgen
from tests.atomsets_core.report.test_report import N_RANKED, N_SHORTLIST, campaign


@pytest.fixture
def store(tmp_path) -> Store:
    return campaign(np.random.default_rng(0), tmp_path / "done")


def ranked(store: Store) -> pd.DataFrame:
    return store.read_table("ranking.parquet").to_pandas()


def test_a_folder_of_cifs_holds_the_shortlist_best_first(store, tmp_path):
    done = export(store, tmp_path / "out", "cif")
    assert [path.name.split("-")[0] for path in done.files] == [f"{k:03d}" for k in range(1, N_SHORTLIST + 1)]
    assert done.files[0].name == f"001-{ranked(store)['material_id'][0]}-{ranked(store)['formula'][0]}.cif"
    salt = Structure.from_file(done.files[0])
    assert (salt.composition.formula, salt.get_space_group_info()[1]) == ("Na1 Cl1", 225)
    whole = export(store, tmp_path / "whole", "cif", top=2, conventional=True)
    assert Structure.from_file(whole.files[1]).composition.formula == "Na4 Cl4"
    assert "_symmetry_Int_Tables_number   225" in whole.files[1].read_text()
    assert (whole.n, done.left_out) == (2, {})


def test_poscars_name_their_candidate_and_keep_elements_together(store, tmp_path):
    done = export(store, tmp_path / "out", "poscar", top=1)
    read = Poscar.from_file(done.files[0])
    assert read.comment == f"{ranked(store)['formula'][0]} {ranked(store)['material_id'][0]}"
    assert read.natoms == [1, 1]
    assert read.structure.density == pytest.approx(2.16, abs=0.01)


def test_one_file_of_frames_or_records_has_the_numbers_of_the_ranking(store, tmp_path):
    table = ranked(store)
    frames = ase.io.read(export(store, tmp_path / "a.xyz", "xyz").files[0], ":")
    assert [frame.info["material_id"] for frame in frames] == table["material_id"][:N_SHORTLIST].tolist()
    np.testing.assert_allclose([frame.info["predicted"] for frame in frames], table["predicted"][:N_SHORTLIST])
    assert frames[0].get_volume() == pytest.approx(2 * 2.82**3)
    records = json.loads(export(store, tmp_path / "a.json", "json", top=2).files[0].read_text())
    assert [record["rank"] for record in records] == [1, 2]
    assert Structure.from_dict(records[0]["structure"]).composition.reduced_formula == "NaCl"
    rows = pd.read_csv(export(store, tmp_path / "a.csv", "csv", top=30, whole_ranking=True).files[0])
    assert rows["rank"].tolist() == list(range(1, 31))


def test_the_whole_ranking_takes_structures_from_what_was_pulled(store, tmp_path):
    iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    name = ranked(store)["material_id"][N_SHORTLIST]
    pulled, _ = from_pymatgen([iron], [name])
    store.write_table("structures/candidates.parquet", pulled.to_arrow())
    done = export(store, tmp_path / "out", "cif", top=N_SHORTLIST + 2, whole_ranking=True)
    assert done.n == N_SHORTLIST + 1
    assert Structure.from_file(done.files[-1]).composition.formula == "Fe2"
    assert list(done.left_out.values()) == ["its structure is not kept"]
    assert len(chosen_rows(store, None, True)) == N_RANKED


def test_what_a_format_cannot_say_is_left_out_with_the_reason(store, tmp_path):
    content = store.read_json("evidence.json")
    content["candidates"][0]["occupancy"] = [0.5, 1.0]
    store.write_json("evidence.json", content)
    for kind in ("poscar", "xyz"):
        done = export(store, tmp_path / kind, kind)
        assert done.n == N_SHORTLIST - 1
        assert "use --format cif" in next(iter(done.left_out.values()))
    assert export(store, tmp_path / "cifs", "cif").n == N_SHORTLIST


def test_formulas_have_no_structure_to_write(store, tmp_path):
    content = store.read_json("evidence.json")
    store.write_json("evidence.json", {**content, "candidates": []})
    for kind in set(FORMATS) - {"csv"}:
        with pytest.raises(ExportError, match="formulas, which have no structure to write"):
            export(store, tmp_path / "x", kind)
    assert export(store, tmp_path / "x.csv", "csv").n == N_SHORTLIST


def test_nothing_to_write_is_said(store, tmp_path):
    with pytest.raises(ExportError, match="there are cif, poscar, xyz, json, csv"):
        export(store, tmp_path / "x", "vasp")
    with pytest.raises(ExportError, match="holds no finished campaign"):
        export(Store(tmp_path / "nowhere"), tmp_path / "x", "cif")
    table = ranked(store)
    store.write_table("ranking.parquet", pa.Table.from_pandas(table.assign(shortlist=False), preserve_index=False))
    with pytest.raises(ExportError, match="no candidate was ranked"):
        export(store, tmp_path / "x", "csv")
