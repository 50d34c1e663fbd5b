"""Files as people have them, through the commands: each with its right outcome, from this repository and, where they
are at hand, from the shared data."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from prefect.testing.utilities import prefect_test_harness
from pymatgen.core import Composition
from typer.testing import CliRunner

from atomsets_core.sources.pull import pull
from atomsets_flows.cli import app
from tests.input_cases import salts, write_cases

SMALL = ["--set=members=2", "--set=folds=2", "--set=epochs=2"]


@pytest.fixture(scope="module", params=["own", "shared"])
def cases(request, tmp_path_factory) -> Path:
    """A folder with every kind of file."""
    if request.param == "shared":
        place = request.getfixturevalue("shared") / "cases"
        if not place.is_dir():
            pytest.skip("the shared cases are not here")
        return place
    place = tmp_path_factory.mktemp("cases")
    write_cases(place)
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of structures, trained on a few."""
    place = tmp_path_factory.mktemp("model")
    rows = [
        {"material_id": name, "structure": s.as_dict(), "K": 20 + 3.0 * i}
        for i, (name, s) in enumerate(salts().items())
    ]
    (place / "k.json").write_text(json.dumps(rows))
    ran("train", place / "k.json", "--target=K", "--features=megnet:V0", f"--out={place / 'm'}", *SMALL)
    return place / "m"


@pytest.fixture(scope="module")
def prefect_server():
    """One server for all campaigns of this file."""
    with prefect_test_harness(server_startup_timeout=90):
        yield


QUICK = ["--set=model.members=2", "--set=model.folds=2", "--set=model.epochs=2", "--set=cluster.workers=1"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ran(*arguments):
    """What a command that succeeds says on stderr, and in JSON where asked."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return SimpleNamespace(said=" ".join(result.stderr.split()), told=json.loads(result.stdout or "null"))


def pulled(source, out, *more) -> tuple[pd.DataFrame, dict[str, str], str]:
    """Rows by identifier, reasons by identifier or file, and what was said, of `atomsets pull`."""
    said = ran("pull", source, f"--out={out}", *more).said
    frame = pq.read_table(out / "structures.parquet").to_pandas().set_index("material_id")
    refused = pq.read_table(out / "refused.parquet").to_pylist()
    return frame, {row["material_id"]: row["reason"] for row in refused}, said


def atoms(row) -> Composition:
    """What a cell holds."""
    found = Composition()
    for z, share in zip(row["Z"], row.get("occupancy", np.ones(len(row["Z"]))), strict=True):
        found += Composition({int(z): float(share)})
    return found


def learned(source, out, target, *more) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Rows learned from, rows that weren't, and what was said, of `atomsets train`."""
    said = ran("train", source, f"--target={target}", f"--out={out}", *SMALL, *more).said
    failures = out / "failures.parquet"
    refused = pq.read_table(failures).to_pandas() if failures.exists() else pd.DataFrame({"reason": []})
    return pd.read_csv(out / "out_of_fold.csv"), refused, said


def test_formulas(cases, tmp_path):
    rows = pd.read_csv(cases / "formulas/formulas.csv", keep_default_na=False)
    found = pull(str(cases / "formulas/formulas.csv"), compositions=True)
    made = dict(zip(found.structures.material_id, range(len(found.structures)), strict=True))
    refused = {refusal.material_id: refusal.reason for refusal in found.refused}

    def at(text):
        return f"formulas-{list(rows['formula']).index(text)}"

    for text, means in (
        ("CuSO4.5H2O", "CuSO9H10"), ("CuSO4·5H2O", "CuSO9H10"), ("Na2CO3.10H2O", "Na2CO13H20"),
        ("MgCl2*6H2O", "MgCl2O6H12"), ("Fe₂O₃", "Fe2O3"), ("Mg(OH)2", "MgO2H2"),
    ):  # fmt: skip
        one = found.structures.take([made[at(text)]])
        shares = {int(z): x for z, x in zip(one.numbers, one.fractions, strict=True)}
        meant = Composition(means).fractional_composition
        assert shares == pytest.approx({element.Z: share for element, share in meant.items()}), text
    for text, why in (
        ("Fe3+", "a charge"), ("SO4^2-", "a charge"), ("Li(+1)Cl(-1)", "a charge"), ("Ti-6Al-4V", "an alloy by weight"),
        ("La1-xSrxMnO3", "an amount that isn't stated"), ("SiO2-δ", "an amount that isn't stated"),
        ("NaN", "the cell reads 'NaN'"), ("TiO2-anatase", "a name behind the formula"),
        ("NaCl (rocksalt)", "a name behind the formula"), ("MoS2/WS2", "two compounds"),
        ("La0,7Sr0,3MnO3", "decimals with a point"), ("MAPbI3", "unknown element 'M'"),
    ):  # fmt: skip
        assert why in refused[at(text)], text
    kept, _, _ = learned(cases / "formulas/formulas.csv", tmp_path / "m", "gap", "--features=amount")
    assert len(kept) <= len(made)


def test_cifs_are_read_right_or_refused_with_a_word(cases, tmp_path):
    found, why, _ = pulled(cases / "cif", tmp_path)
    shared_site = atoms(found.loc["H_shares_site_with_O"]).get_el_amt_dict()
    assert shared_site == pytest.approx({"La": 2, "Fe": 2, "As": 2, "H": 1.6, "O": 0.4}, abs=1e-6)
    assert found.loc["type_zero_occ", "formula"] == "NaCl"
    assert found.loc["R_setting_R", "n_atoms"] == 2
    assert "may be F d -3 m :1" in why["Fd3m_noorigin.cif"]
    assert "nothing else says which" in why["Fd3m_noorigin.cif"]
    for name in ("implicitH_disordered", "implicitH_ordered"):
        assert "hydrogen atoms are stated but have no positions" in why[f"{name}.cif"]
    assert "H in one and not in the other" in why["missingH_disordered.cif"]
    assert "unknown element" in why["type_SiAl_slash.cif"]
    assert "may be Ho or H" in why["label_HO1.cif"]


def test_symmetry_without_operations(cases, tmp_path):
    found, why, _ = pulled(cases / "symmetry", tmp_path)
    contents = {name: atoms(row).formula for name, row in found.iterrows()}
    assert contents == {
        "LiNbO3_rhombohedral_axes": "Li2 Nb2 O6",
        "bismuth_rhombohedral_axes": "Bi2",
        "silicon_origin2_Z8": "Si8",
        "corundum_rhombohedral_axes": "Al4 O6",
    }
    assert "the cell contradicts the space group" in why["cubic_group_tetragonal_cell.cif"]


def test_what_is_no_bulk_crystal_is_predicted_and_flagged(cases, model, tmp_path):
    for folder, kinds in (
        ("vacuum", {"CO2_box15": "molecule", "N2_box20": "molecule", "graphene20": "slab"}),
        ("cif", {"slab": "slab", "molecule_box": "molecule"}),
    ):
        out = tmp_path / f"{folder}.csv"
        ran_ = ran("predict", model, cases / folder, f"--out={out}", "--json")
        rows = pd.read_csv(out).set_index("material_id")
        assert {name: rows.loc[name, "matter"] for name in kinds} == kinds
        assert rows.loc[list(kinds), "remark"].str.contains("in vacuum|vacuum on both sides").all()
        assert ran_.told["no_bulk"] >= len(kinds)
        assert f"{ran_.told['no_bulk']} of them are for molecules, slabs or wires" in ran_.said
    assert rows.loc["type_zero_occ", "matter"] == "bulk"


def test_a_folder_with_a_table_without_header(cases, tmp_path):
    kept, _, said = learned(cases / "cgcnn_layout", tmp_path, "value", "--features=megnet:V0")
    assert "id_prop.csv: no header: read as id, value" in said
    assert len(kept) == 30
    table = pd.read_csv(cases / "cgcnn_layout/id_prop.csv", header=None, index_col=0)[1]
    assert kept.set_index("material_id")["value"].to_dict() == pytest.approx(table.to_dict(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("comment_lines", "2 comment lines passed over"),
        ("pretty_formula", ""),
        ("semicolon_comma_decimal", "semicolons between columns"),
        ("semicolon_point", "semicolons between columns"),
        ("thousands", "read with commas between thousands"),
        ("thousands_tail", "read with commas between thousands"),
        ("units_all", "read with units in the cells, all in eV"),
        ("esd", "read with uncertainties in the cells"),
    ],
)
def test_tables_are_read_whole(cases, tmp_path, name, note):
    source = cases / f"csv/{name}.csv"
    found = pull(str(source), compositions=True)
    raw = [line for line in source.read_text().splitlines() if line and not line.startswith("#")][1:]
    kept, refused, said = learned(source, tmp_path, "gap", "--features=amount")
    assert len(found.structures) == len(raw) == len(kept)
    assert len(refused) == 0
    assert note in said
    cells = [
        line.replace('"', "").partition(";" if ";" in line else ",")[2].rpartition(",mp")[0] or line for line in raw
    ]
    if name == "thousands_tail":
        numbers = [float(line.partition(",")[2].replace('"', "").replace(",", "")) for line in raw]
        assert list(found.columns["gap"]) == numbers
    if name == "esd":
        assert found.columns["gap_error"].tolist() == pytest.approx([_error(line) for line in raw])
    assert cells
    assert np.isfinite(found.columns["gap"]).all()


def _error(line: str) -> float:
    """What the digits in brackets mean: of the last decimals."""
    value, _, digits = line.partition(",")[2].rstrip(")").partition("(")
    return float(digits) * 10.0 ** -len(value.partition(".")[2])


def test_values_that_are_not_read_are_named(cases, tmp_path):
    kept, refused, _ = learned(cases / "csv/units_some_mixed.csv", tmp_path / "a", "gap", "--features=amount")
    assert len(kept) + len(refused) == 43
    assert refused["reason"].str.contains(r"gap is not a number: '[\d.]+ eV'").all()
    assert len(refused) > 10
    kept, refused, _ = learned(cases / "csv/sentinels.csv", tmp_path / "b", "gap", "--features=amount")
    assert "gap is -999, which stands for a missing value" in refused["reason"].iloc[0]
    assert kept["value"].max() < 10


def test_json_of_databases(cases, tmp_path):
    entries, _, said = pulled(cases / "json/computed_structure_entries.json", tmp_path / "a")
    assert list(entries.index[:2]) == ["mp-10003", "mp-10010"]
    assert len(entries) == 6
    assert "total energy of each cell in eV, not per atom and not corrected" in said
    jarvis, _, _ = pulled(cases / "json/jarvis_dft3d.json", tmp_path / "b")
    assert list(jarvis.index) == [f"JVASP-{i}" for i in range(6)]
    assert np.isnan(jarvis["bulk_modulus_kv"].iloc[0])
    assert jarvis["bulk_modulus_kv"].iloc[1:].notna().all()
    documents, _, _ = pulled(cases / "json/mp_summary_docs.json", tmp_path / "c")
    moduli = [documents[f"bulk_modulus.{kind}"] for kind in ("voigt", "reuss", "vrh")]
    assert ((moduli[0] + moduli[1]) / 2).tolist() == pytest.approx(moduli[2].tolist())
    cells, _, _ = pulled(cases / "json/csv_str_dict.csv", tmp_path / "d")
    assert list(cells.index) == list(entries.index)
    assert cells["n_atoms"].tolist() == entries["n_atoms"].tolist()
    assert cells["K"].notna().all()


def test_identifiers_join(cases, tmp_path):
    rows, why, _ = pulled(cases / "ids/cifs", tmp_path / "a", f"--labels={cases / 'ids/labels.csv'}")
    table = pd.read_csv(cases / "ids/labels.csv", dtype={"id": str})
    joined = rows["K"].notna()
    # a bare number and another prefix could be another database's: refused by name, all others join
    assert joined.sum() == len(table) - 2
    assert len(why) == 2
    for name in why:
        assert "there's no structure file for it" in why[name]
        assert name in set(table["id"])
    assert set(table["K"]) >= set(rows["K"][joined])
    result = run("pull", cases / "ids/cifs", f"--labels={cases / 'ids/shifted.csv'}", f"--out={tmp_path / 'b'}")
    assert result.exit_code == 2
    assert "its header names 2 columns, its rows have 3 fields" in " ".join(result.stderr.split())


def test_formats(cases, tmp_path):
    def only(name, *more):
        found, _, said = pulled(cases / f"formats/{name}", tmp_path / name, *more)
        return found, said

    bond = {}
    for name in ("negscale_cart", "posscale_cart"):
        row = only(f"{name}.vasp")[0].iloc[0]
        frac = np.array(row["frac"]).reshape(2, 3)
        bond[name] = np.linalg.norm((frac[1] - frac[0]) @ np.array(row["lattice"]).reshape(3, 3))
    assert bond["negscale_cart"] == pytest.approx(bond["posscale_cart"], abs=1e-6) == pytest.approx(2.96, abs=0.01)
    for name in ("mono_c.cif", "mono_c_num.cif"):
        assert atoms(only(name)[0].iloc[0]).formula == "Na2 Cl2"
    assert atoms(only("calcflag.cif")[0].iloc[0]).formula == "Mg1 O1"
    labelled, _ = only("hexids.extxyz", f"--labels={cases / 'formats/hexids.csv'}")
    table = pd.read_csv(cases / "formats/hexids.csv", dtype={"material_id": str}).set_index("material_id")
    assert labelled["K_VRH"].to_dict() == table["K_VRH"].to_dict()
    assert set(labelled.index) == {"0012345678", "12345e6789", "98765e4321", "0000000077"}
    entries, said = only("cse_entryid.json")
    assert list(entries.index) == ["mp-22862", "mp-1265"]
    assert entries["e_above_hull"].tolist() == [0.02, 0.02]
    assert "energy is the total energy of each cell in eV" in said
    assert "correction, of the cell too" in said
    alexandria, said = only("alex_entries.json")
    assert list(alexandria.index) == ["agm000", "agm001"]
    assert "e_above_hull" in alexandria
    assert "energy is the total energy of each cell in eV" in said
    emmet, _ = only("emmet_json.json", f"--labels={cases / 'formats/lab.csv'}")
    assert emmet["gap"].to_dict() == {"mp-22862": 5.0}
    assert list(only("df_table.json")[0].index) == ["a1", "b2"]
    assert list(only("unnamed_index.csv")[0].index) == ["mp-22862", "mp-1265"]
    omat = only("omat.parquet")[0].iloc[0]
    assert omat["formula"] == "MgO"
    assert omat["energy"] == -1.0


def test_two_labels_of_one_crystal(cases, tmp_path):
    source = cases / "two_labels/two_functionals.json"
    _kept, refused, said = learned(source, tmp_path, "K", "--features=megnet:V0")
    assert "30 structures or formulas with several values of K that differ by 30 %" in said
    assert "the median of each is learned" in said
    assert "repeats = mean, latest, drop, keep" in said
    assert "their identifiers (mp-..., oqmd-...)" in said
    # one crystal of the shared file has an identifier twice: that label counts too
    assert refused["reason"].str.contains(r"one of [23] labels of the same content").sum() == 30


def test_small_numbers_are_learned_as_well(cases, tmp_path):
    source, fits = cases / "small_numbers/small.csv", []
    for target in ("K_small", "K_TPa_inv"):
        told = ran("train", source, f"--target={target}", f"--out={tmp_path / target}", "--features=amount", "--json",
                   "--set=members=2", "--set=folds=2", "--set=epochs=20").told  # fmt: skip
        fits.append(told["r2"])
    assert fits[0] == pytest.approx(fits[1], abs=0.02)


def test_repeats_over_a_column_that_is_not_seen(cases, tmp_path):
    widths = {}
    for n in (3, 8):
        kept, _, said = learned(cases / f"repeats/temps{n}.csv", tmp_path / str(n), "zT", "--features=amount")
        assert "They differ in the column T" in said
        assert "which the model doesn't see" in said
        ran("predict", tmp_path / str(n), cases / "repeats/new.csv", f"--out={tmp_path / f'{n}.csv'}")
        rows = pd.read_csv(tmp_path / f"{n}.csv")
        widths[n] = float((rows["upper"] - rows["lower"]).mean()) / float(kept["value"].std())
    # as wide as the labels scatter, not as the repeats of one compound do
    assert 1.5 < widths[8] < 5
    assert 1 / 1.7 < widths[8] / widths[3] < 1.7


def test_a_filter_that_cannot_be_read_fails_a_candidate(cases, prefect_server, tmp_path, monkeypatch):
    monkeypatch.chdir(cases / "filter")
    labels = cases / "two_labels/two_functionals.json"
    few = [f"--set=training.source={labels}", "--set=training.target=K", "--set=discovery.seeds=0"]
    told = ran("screen", "filter.toml", "--out", tmp_path, "--json", *few, *QUICK).told
    rows = pd.read_csv("cand.csv")
    unread = rows[rows["e_hull"].astype(str) == "0.01 eV"]["material_id"]
    assert len(unread) == 10
    failures = pq.read_table(tmp_path / "failures.parquet").to_pandas()
    failed = failures[failures["dataset"] == "candidates"].set_index("material_id")
    assert set(failed.index) == set(unread)
    assert failed["reason"].str.contains("e_hull is not a number: '0.01 eV'").all()
    assert set(failed["stage"]) == {"filter"}
    counts = told["counts"]["candidates"]
    assert counts["filtered"] == 0
    assert counts["failed"] == 10
    assert set(pd.read_csv(tmp_path / "ranking.csv")["material_id"]) == set(rows["material_id"]) - set(unread)


def test_one_formula_throughout_ends_with_a_ranking(cases, prefect_server, tmp_path, monkeypatch):
    monkeypatch.chdir(cases)
    ended = ran("screen", "one_formula.toml", "--out", tmp_path, "--set=discovery.seeds=2", *QUICK)
    ranking = pd.read_csv(tmp_path / "ranking.csv")
    known = pd.read_csv("one_formula/labels.csv")
    assert len(ranking) == len(list(Path("one_formula").glob("*.cif"))) == len(known)
    assert ranking["formula"].nunique() == 1
    assert np.isfinite(ranking["predicted"]).all()
    assert "ranked + 0 filtered + 0 failed" in ended.said
