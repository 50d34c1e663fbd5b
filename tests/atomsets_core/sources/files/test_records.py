"""Records of databases: where the structure stands, what it is called, and which numbers become columns."""

from __future__ import annotations

import bz2
import json
import lzma
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.files.records import LONGEST_DICT, plain_record, python_dict
from atomsets_core.structures import from_pymatgen

SALT = Structure(Lattice.from_parameters(4, 4.2, 4.4, 60, 65, 70), ["Na", "Cl"], [[0, 0, 0], [0.4, 0.5, 0.6]])
MGO = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
BOTH = (SALT, MGO)
MADE = Path(__file__).parents[3] / "data" / "formats"
HASHES = list(from_pymatgen(BOTH)[0].hashes)


def jarvis(structure: Structure, cartesian: bool = False) -> dict:
    """As JARVIS-tools' Atoms.to_dict writes it."""
    return {
        "lattice_mat": structure.lattice.matrix.tolist(),
        "coords": (structure.cart_coords if cartesian else structure.frac_coords).tolist(),
        "elements": [site.specie.symbol for site in structure],
        "abc": list(structure.lattice.abc),
        "angles": list(structure.lattice.angles),
        "cartesian": cartesian,
        "props": [""] * len(structure),
    }


def optimade(structure: Structure) -> dict:
    symbols = [site.specie.symbol for site in structure]
    return {
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species_at_sites": symbols,
        "species": [{"name": symbol, "chemical_symbols": [symbol], "concentration": [1.0]} for symbol in set(symbols)],
        "nsites": len(structure),
        "dimension_types": [1, 1, 1],
    }


def assert_both(path, ids=("a", "b")) -> None:
    pulled = read_path(path)
    assert not pulled.refused
    assert list(pulled.structures.material_id) == list(ids)
    found = pulled.structures
    for i, structure in enumerate(BOTH):
        sites = slice(found.offsets[i], found.offsets[i + 1])
        np.testing.assert_allclose(found.lattice[i], structure.lattice.matrix, atol=1e-6)
        np.testing.assert_allclose(found.frac[sites], structure.frac_coords, atol=1e-6)
        assert list(found.numbers[sites]) == list(structure.atomic_numbers)
    return pulled


@pytest.mark.parametrize("cartesian", [True, False])
def test_figshare_json_of_jarvis(tmp_path, cartesian):
    rows = [{"jid": name, "atoms": jarvis(s, cartesian), "gap": 1.5} for name, s in zip("ab", BOTH, strict=True)]
    (tmp_path / "dft_3d.json").write_text(json.dumps(rows))
    assert list(assert_both(tmp_path / "dft_3d.json").columns["gap"]) == [1.5, 1.5]
    (tmp_path / "one.json").write_text(json.dumps(jarvis(SALT)))
    np.testing.assert_allclose(read_path(tmp_path / "one.json").structures.lattice[0], SALT.lattice.matrix)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("end", "pack"), [("", bytes), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_entries_of_pymatgen(tmp_path, inside, end, pack):
    entries = [
        ComputedStructureEntry(
            s, -3.0, entry_id=name, data={"k": 5.0, "spg": {"number": 1}}, parameters={"run_type": "GGA"}
        )
        for name, s in zip("ab", BOTH, strict=True)
    ]
    document = [entry.as_dict() for entry in entries]
    path = tmp_path / f"entries.json{end}"
    path.write_bytes(pack(json.dumps({"entries": document} if inside else document).encode()))
    columns = assert_both(path).columns
    assert list(columns["k"]) == [5.0, 5.0]
    assert list(columns["energy"]) == [-3.0, -3.0]
    assert list(columns["spg.number"]) == [1, 1]
    assert not [name for name in columns if name.startswith(("@", "composition"))]


def test_the_identifier_of_the_database_goes_before_the_entrys(tmp_path):
    rows = [
        {"structure": SALT.as_dict(), "entry_id": "mp-1-GGA", "data": {"material_id": "mp-1"}},
        {"structure": MGO.as_dict(), "entry_id": None, "data": {"mat_id": "agm1"}},
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert_both(tmp_path / "x.json", ("mp-1", "agm1"))


def test_numbers_of_nested_dicts_become_columns_and_never_too_many():
    record = {"structure": {}, "bulk_modulus": {"vrh": 100.0, "deep": {"more": {"too": {"deep": 1}}}}, "vrh": 1}
    found = plain_record(record)
    assert found["bulk_modulus.vrh"] == 100.0
    assert not [name for name in found if name.endswith("too.deep")]
    many = plain_record({"structure": {}, "x": {str(i): i for i in range(10_000)}})
    assert len(many) < 300
    assert plain_record({"structure": {}, "data": {"a": 1}, "a": 2})["a"] == 2


def test_json_lines(tmp_path):
    rows = [{"material_id": name, "structure": s.as_dict(), "gap": 2.0} for name, s in zip("ab", BOTH, strict=True)]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert_both(path)
    path.write_text(f"{json.dumps(rows[0])}\n{{broken\n{json.dumps(rows[1])}\n")
    pulled = read_path(path)
    assert list(pulled.structures.material_id) == ["a", "b"]
    assert [refusal.material_id for refusal in pulled.refused] == ["x-1"]


def test_a_saved_response_of_optimade(tmp_path):
    data = [
        {"type": "structures", "id": name, "attributes": {**optimade(s), "_x_gap": 3.0, "_x_nested": {"k": 4.0}}}
        for name, s in zip("ab", BOTH, strict=True)
    ]
    (tmp_path / "response.json").write_text(json.dumps({"data": data, "meta": {"data_returned": 2}, "links": {}}))
    columns = assert_both(tmp_path / "response.json").columns
    assert list(columns["_x_gap"]) == [3.0, 3.0]
    assert list(columns["_x_nested.k"]) == [4.0, 4.0]
    data[0]["attributes"]["dimension_types"] = [1, 1, 0]
    (tmp_path / "slab.json").write_text(json.dumps({"data": data}))
    assert "not periodic" in read_path(tmp_path / "slab.json").refused[0].reason


@pytest.mark.parametrize("elements", ["numbers", "atomic_numbers", "symbols", "species"])
def test_parquet_with_cells_and_positions(tmp_path, elements):
    names = [
        [site.specie.symbol for site in s] if elements in ("symbols", "species") else list(s.atomic_numbers)
        for s in BOTH
    ]
    table = pa.table(
        {
            "material_id": ["a", "b"],
            "cell": [s.lattice.matrix.tolist() for s in BOTH],
            "positions": [s.cart_coords.tolist() for s in BOTH],
            elements: names,
            "energy": [-1.0, -2.0],
        }
    )
    pq.write_table(table, tmp_path / "omat.parquet")
    assert list(assert_both(tmp_path / "omat.parquet").columns["energy"]) == [-1.0, -2.0]


def test_parquet_with_the_columns_of_optimade(tmp_path):
    names = ("lattice_vectors", "cartesian_site_positions", "species_at_sites", "nsites")
    table = pa.table({"immutable_id": ["a", "b"], **{name: [optimade(s)[name] for s in BOTH] for name in names}})
    pq.write_table(table, tmp_path / "lemat.parquet")
    assert_both(tmp_path / "lemat.parquet")


def test_rows_of_such_a_table_that_are_no_crystals_are_refused(tmp_path):
    cell, places = MGO.lattice.matrix.tolist(), MGO.cart_coords.tolist()
    table = pa.table(
        {
            "id": list("abcde"),
            "cell": [cell, [[0.0] * 3] * 3, cell, cell, None],
            "positions": [places, places, places[:1], places, places],
            "species": [["Mg", "O"], ["Mg", "O"], ["Mg", "O"], ["Mg", "Qq"], ["Mg", "O"]],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    pulled = read_path(tmp_path / "x.parquet")
    assert list(pulled.structures.material_id) == ["a"]
    assert {refusal.material_id for refusal in pulled.refused} == set("bcde")


def test_dicts_of_python_and_poscars_in_the_cells_of_a_table(tmp_path):
    import pandas as pd

    cells = [
        str(SALT.as_dict()).replace("True, True, True", "(True, True, True)"),
        MGO.to(fmt="poscar"),
    ]
    pd.DataFrame({"material_id": ["a", "b"], "structure": cells, "K": [1.0, 2.0]}).to_csv(
        tmp_path / "x.csv", index=False
    )
    assert list(assert_both(tmp_path / "x.csv").columns["K"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    "text", ["{'a': array([1])}", "{'a': __import__('os').getcwd()}", "{'a': nan}", "{", "{" * 99, "[" * 10_000]
)
def test_nothing_but_plain_values_is_taken_from_a_python_dict(text):
    with pytest.raises(ValueError, match="json.dumps"):
        python_dict(text)


def test_python_dicts_are_bounded():
    with pytest.raises(ValueError, match="write JSON"):
        python_dict("{'a': '" + "x" * LONGEST_DICT + "'}")


def test_other_json_is_still_no_structures(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": 1, "b": {"c": 2}}))
    with pytest.raises(SourceError, match="no structures in it"):
        read_path(tmp_path / "x.json")


def test_a_zip_of_jarvis_as_its_own_package_writes_it():
    pulled = read_path(MADE / "jdft_3d.json.zip")
    assert not pulled.refused
    assert list(pulled.structures.material_id) == ["JVASP-1002", "JVASP-1067"]
    for structure in pulled.structures.to_pymatgen():
        np.testing.assert_allclose(structure.lattice.matrix, [[4.1, 0, 0.3], [-1.2, 5, 0.9], [0, 0.4, 6.3]], atol=1e-6)
        np.testing.assert_allclose(structure.frac_coords, [[0, 0, 0], [0.4, 0.5, 0.6], [0.9, 0.3, 0.2]], atol=1e-6)
    assert list(pulled.columns["bulk_modulus_kv"]) == [150.5, 150.5]


def test_an_archive_that_nomad_made_of_a_run_of_vasp():
    """nomad.archive.json is of `nomad parse`, see scripts/build_format_files.py: diamond, in metres and joules."""
    pulled = read_path(MADE / "nomad.archive.json")
    assert (len(pulled.structures), pulled.refused) == (1, [])
    found = pulled.structures.to_pymatgen()[0]
    a = 3.57
    np.testing.assert_allclose(found.lattice.matrix, (np.ones((3, 3)) - np.eye(3)) * a / 2, atol=1e-6)
    np.testing.assert_allclose(found.cart_coords, [[0, 0, 0], [a / 4] * 3], atol=1e-6)
    assert [site.specie.symbol for site in found] == ["C", "C"]
    (row,) = pulled.columns.to_dict("records")
    assert row["energy"] == pytest.approx(-3.242899156042434e-18 / 1.602176634e-19)
    assert row["max_force"] == 0.0


# NOMAD's archives, by the names of its schemas: runschema, and nomad-simulations 0.10.0. All are in SI units.

EV = 1.602176634e-19


def nomad_run(structures: list[Structure], named: int | None = None) -> dict:
    systems = [
        {
            "atoms": {
                "labels": [site.specie.symbol for site in structure],
                "positions": (1e-10 * structure.cart_coords).tolist(),
                "lattice_vectors": (1e-10 * structure.lattice.matrix).tolist(),
                "periodic": [True] * 3,
            }
        }
        for structure in structures
    ]
    forces = [[0.0, 0.0, 0.5 * EV * 1e10]] * len(structures[-1])
    calculation = {"energy": {"total": {"value": -7.5 * EV}}, "forces": {"total": {"value": forces}}}
    if named is not None:
        calculation["system_ref"] = f"#/run/0/system/{named}"
    return {"run": [{"program": {"name": "VASP"}, "system": systems, "calculation": [{}, calculation]}]}


def nomad_data(structure: Structure) -> dict:
    system = {
        "positions": (1e-10 * structure.cart_coords).tolist(),
        "lattice_vectors": (1e-10 * structure.lattice.matrix).tolist(),
        "periodic_boundary_conditions": [True, True, True],
        "particle_states": [{"chemical_symbol": site.specie.symbol} for site in structure],
    }
    outputs = {
        "total_energies": [{"value": -7.5 * EV}],
        "total_forces": [{"value": [[0.5 * EV * 1e10, 0, 0]] * len(structure)}],
    }
    return {"data": {"model_system": [system], "outputs": [outputs]}}


@pytest.mark.parametrize("layout", ["archives", "reply", "data"])
def test_archives_of_nomad_are_in_metres_and_joules(tmp_path, layout):
    if layout == "data":
        documents = [{"metadata": {"entry_id": name}, **nomad_data(s)} for name, s in zip("ab", BOTH, strict=True)]
    else:
        documents = [
            {"entry_id": "a", "archive": nomad_run([MGO, SALT])},
            {"entry_id": "b", "archive": nomad_run([MGO])},
        ]
    path = tmp_path / "archive.json"
    path.write_text(json.dumps({"data": documents, "pagination": {}} if layout == "reply" else documents))
    columns = assert_both(path).columns
    np.testing.assert_allclose(columns["energy"], -7.5)
    np.testing.assert_allclose(columns["max_force"], 0.5)


def test_one_archive_of_nomad_and_the_system_that_its_calculation_names(tmp_path):
    archive = {"metadata": {"entry_id": "x1"}, **nomad_run([SALT, MGO], named=0)}
    for number, document in enumerate((archive, {"data": {"entry_id": "x1", "archive": archive}})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(document))
        pulled = read_path(path)
        assert list(pulled.structures.material_id) == ["x1"]
        np.testing.assert_allclose(pulled.structures.lattice[0], SALT.lattice.matrix, atol=1e-6)


def test_an_archive_of_nomad_without_atoms_is_refused_by_its_identifier(tmp_path):
    slab = nomad_run([SALT])
    slab["run"][0]["system"][0]["atoms"]["periodic"] = [True, True, False]
    rows = [{"entry_id": "a", "archive": {"run": [{}]}}, {"entry_id": "b", "archive": slab}]
    (tmp_path / "x.json").write_text(json.dumps({"data": rows}))
    reasons = {refusal.material_id: refusal.reason for refusal in read_path(tmp_path / "x.json").refused}
    assert "NOMAD archive" in reasons["a"]
    assert "not periodic" in reasons["b"]


def _as_json(tmp_path, document):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(document))
    return read_path(path)


@pytest.mark.parametrize("key", ["final_structure", "relaxed_structure", "cif", "poscar", "cif_string"])
def test_structures_of_records_under_other_names(tmp_path, key):
    value = SALT.to(fmt=key.removesuffix("_string")) if key in ("cif", "poscar", "cif_string") else SALT.as_dict()
    other = (SALT * (2, 1, 1)).as_dict()
    pulled = _as_json(tmp_path, [{"material_id": "a", key: value, "initial_structure": other, "gap": 8.5}])
    assert list(pulled.structures.material_id) == ["a"]
    assert pulled.structures.n_atoms.tolist() == [len(SALT)]  # the end of a relaxation, not its beginning
    assert pulled.columns["gap"].tolist() == [8.5]


@pytest.mark.parametrize("wrapper", ["results", "response", "materials", "docs"])
def test_replies_of_servers_whatever_their_list_is_called(tmp_path, wrapper):
    records = [{"material_id": "a", "structure": SALT.as_dict(), "gap": 8.5}]
    pulled = _as_json(tmp_path, {wrapper: records, "count": 1, "next": None})
    assert list(pulled.structures.material_id) == ["a"]
    assert pulled.columns["gap"].tolist() == [8.5]


def test_lists_of_structures_and_labels_beside_each_other(tmp_path):
    pulled = _as_json(tmp_path, {"structures": [SALT.as_dict()] * 2, "labels": {"gaps": [8.5, 7.5], "short": [1]}})
    assert pulled.columns["gaps"].tolist() == [8.5, 7.5]
    assert "short" not in pulled.columns


def test_records_by_material_and_calculation(tmp_path):
    inside = {f"mp-1-0-{i}": {"structure": SALT.as_dict(), "energy_per_atom": -float(i)} for i in range(2)}
    pulled = _as_json(tmp_path, {"mp-1": inside})
    assert list(pulled.structures.material_id) == ["mp-1-0-0", "mp-1-0-1"]
    assert pulled.columns["energy_per_atom"].tolist() == [0, -1]


def test_texts_by_name_and_identifiers_of_mongodb(tmp_path):
    pulled = _as_json(tmp_path, {"a": SALT.to(fmt="cif"), "b": SALT.to(fmt="poscar")})
    assert list(pulled.structures.material_id) == ["a", "b"]
    pulled = _as_json(tmp_path, [{"_id": {"$oid": "5f3e"}, "structure": SALT.as_dict()}])
    assert list(pulled.structures.material_id) == ["5f3e"]


def test_what_print_shows_is_named(tmp_path):
    pulled = _as_json(tmp_path, [{"structure": str(SALT)}])
    assert "what print(structure) shows" in pulled.refused[0].reason


def test_the_index_of_a_parquet_file_of_structures(tmp_path):
    table = pd.DataFrame({"structure": [json.dumps(SALT.as_dict())], "gap": [8.5]}, index=["a"])
    table.to_parquet(tmp_path / "s.parquet")
    pulled = read_path(tmp_path / "s.parquet")
    assert list(pulled.structures.material_id) == ["a"]
    assert list(pulled.columns) == ["gap"]
