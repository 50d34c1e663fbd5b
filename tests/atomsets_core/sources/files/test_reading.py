"""Whatever holds structures is read entry by entry: each is accepted unchanged or refused with a reason."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import struct
import sys
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.files import reading
from atomsets_core.sources.files.reading import read_path
from atomsets_core.storage import memory
from atomsets_core.structures.reading import from_pymatgen

_BESIDE = [folder / "shared" / "data" / "matbench_phonons.json.gz" for folder in Path(__file__).parents[3:6]]
MATBENCH_PHONONS = next((path for path in _BESIDE if path.exists()), None)


def nacl(a: float = 5.69) -> Structure:
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Structure(Lattice.cubic(a), ["Na"] * 4 + ["Cl"] * 4, [*corners, *((corners + np.array([0.5, 0, 0])) % 1)])


@lru_cache
def quartz() -> Structure:
    sites = [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]]
    return Structure.from_spacegroup("P3_221", Lattice.hexagonal(4.916, 5.405), ["Si", "O"], sites)


def cif(structure: Structure, **options: float) -> str:
    return structure.to(fmt="cif", **options)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    return path


def hashes(*structures: Structure) -> list[str]:
    return list(from_pymatgen(structures)[0].hashes)


def reasons(pulled: Pulled) -> dict[str, str]:
    for refusal in pulled.refused:
        assert len(refusal.reason) <= 200
        assert "\n" not in refusal.reason
    assert pulled.n_seen == len(pulled.structures) + len(pulled.refused)
    return {refusal.material_id: refusal.reason for refusal in pulled.refused}


def ids(pulled: Pulled) -> list[str]:
    return list(pulled.structures.material_id)


# Each format gives back the crystal that was written.


@pytest.mark.parametrize("layout", ["one", "list", "dict", "records", "split", "columns", "table", "gz"])
def test_pymatgen_json_layouts_give_the_same_structures(tmp_path, layout):
    first, second = nacl().as_dict(), quartz().as_dict()
    pair = [{"structure": first, "mbid": "a", "y": 1.5}, {"structure": second, "mbid": "b", "y": 2.5}]
    rows = [[first, 1.5], [second, 2.5]]
    documents = {
        "one": (first, ["x"]),
        "list": ([first, second], ["x-0", "x-1"]),
        "dict": ({"mp-1": first, "mp-2": second}, ["mp-1", "mp-2"]),
        "records": (pair, ["a", "b"]),
        "split": ({"index": [0, 1], "columns": ["structure", "y"], "data": rows}, ["x-0", "x-1"]),
        "columns": ({"structure": {"p": first, "q": second}, "y": {"p": 1.5, "q": 2.5}}, ["p", "q"]),
        "table": ({"data": pair}, ["a", "b"]),
        "gz": ([first, second], ["x-0", "x-1"]),
    }
    document, names = documents[layout]
    content = json.dumps(document).encode()
    if layout == "gz":
        path = write(tmp_path / "x.json.gz", gzip.compress(content))
    else:
        path = write(tmp_path / "x.json", content)
    pulled = read_path(path)
    assert ids(pulled) == names
    assert list(pulled.structures.hashes) == hashes(nacl(), quartz())[: len(names)]
    if layout in ("records", "split", "columns", "table"):
        assert list(pulled.columns["y"]) == [1.5, 2.5]


def test_an_index_that_names_the_rows_is_used_and_one_that_counts_them_is_not(tmp_path):
    rows = [[nacl().as_dict()], [quartz().as_dict()]]
    named = write(tmp_path / "n.json", json.dumps({"index": ["mb-1", "mb-2"], "columns": ["structure"], "data": rows}))
    counted = write(tmp_path / "c.json", json.dumps({"index": [0, 1], "columns": ["structure"], "data": rows}))
    assert ids(read_path(named)) == ["mb-1", "mb-2"]
    assert ids(read_path(counted)) == ["c-0", "c-1"]


def test_matbench_file_is_read_whole():
    if MATBENCH_PHONONS is None:
        pytest.skip("the matbench file isn't here")
    pulled = read_path(MATBENCH_PHONONS)
    assert (len(pulled.structures), pulled.refused) == (1265, [])
    assert pulled.columns["last phdos peak"].notna().all()
    assert pulled.columns["last phdos peak"].iloc[0] == pytest.approx(98.58577122703691)


@pytest.mark.parametrize("name", ["a.vasp", "POSCAR", "CONTCAR_relaxed", "POSCAR.gz"])
def test_poscar_round_trip(tmp_path, name):
    content = quartz().to(fmt="poscar").encode()
    pulled = read_path(write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content))
    assert list(pulled.structures.hashes) == hashes(quartz())
    assert ids(pulled) == [name.removesuffix(".gz").removesuffix(".vasp")]


@pytest.mark.parametrize("symprec", [None, 0.01])
def test_cif_gives_the_same_crystal_with_and_without_symmetry(tmp_path, symprec):
    pulled = read_path(write(tmp_path / "q.CIF", cif(quartz(), symprec=symprec)))
    (read,) = pulled.structures.to_pymatgen()
    assert ids(pulled) == ["q"]
    assert read.lattice.parameters == pytest.approx(quartz().lattice.parameters, abs=1e-5)
    assert read.composition == quartz().composition
    distances = [np.sort(crystal.distance_matrix, axis=None) for crystal in (read, quartz())]
    assert distances[0] == pytest.approx(distances[1], abs=1e-4)


def test_cif_of_several_blocks_gives_several_structures_and_skips_text_blocks(tmp_path):
    text = "data_global\n_publ_author 'A. Nother'\n" + cif(nacl()) + "\n" + cif(nacl(5.0)) + "\n" + cif(quartz())
    pulled = read_path(write(tmp_path / "many.cif", text))
    assert ids(pulled) == ["many-0", "many-1", "many-2"]  # also where two blocks have one name
    assert list(pulled.structures.hashes) == hashes(nacl(), nacl(5.0), *pulled.structures.take([2]).to_pymatgen())


def test_database_codes_name_the_blocks_of_a_cif(tmp_path):
    blocks = [cif(nacl()) + "\n_cod_database_code 1000041\n", cif(quartz()) + "\n_cod_database_code 1000042\n"]
    assert ids(read_path(write(tmp_path / "cod.cif", "\n".join(blocks)))) == ["1000041", "1000042"]


def test_parquet_of_our_own_layout_and_six_number_lattices(tmp_path):
    batch, _ = from_pymatgen([nacl(), quartz()], ["a", "b"])
    table = batch.to_arrow().append_column("gap", pa.array([5.0, 6.0]))
    pq.write_table(table, tmp_path / "own.parquet")
    pulled = read_path(tmp_path / "own.parquet")
    assert list(pulled.structures.hashes) == list(batch.hashes)
    assert list(pulled.columns["gap"]) == [5.0, 6.0]
    assert ids(pulled) == ["a", "b"]
    parameters, sites = [*nacl().lattice.parameters], nacl().frac_coords.ravel()
    six = pa.table({"lattice": [parameters], "Z": [nacl().atomic_numbers], "frac": [sites]})
    pq.write_table(six, tmp_path / "six.parquet")
    pulled = read_path(tmp_path / "six.parquet")
    assert list(pulled.structures.hashes) == hashes(nacl())
    assert ids(pulled) == ["0"]


def test_parquet_identifiers(tmp_path):
    table = from_pymatgen([nacl(), quartz()])[0].to_arrow().drop_columns(["material_id"])
    pq.write_table(table.append_column("mbid", pa.array(["m1", None])), tmp_path / "a.parquet")
    assert ids(read_path(tmp_path / "a.parquet")) == ["m1", "1"]
    pq.write_table(table.append_column("code", pa.array([7, 8])), tmp_path / "a.parquet")
    assert ids(read_path(tmp_path / "a.parquet", id_column="code")) == ["7", "8"]
    pq.write_table(table, tmp_path / "b.parquet")
    pq.write_table(table, tmp_path / "a.parquet")
    assert ids(read_path(tmp_path)) == ["a-0", "a-1", "b-0", "b-1"]


def test_parquet_with_a_column_of_structures(tmp_path):
    column = [json.dumps(nacl().as_dict()), cif(nacl()), "?"]
    pq.write_table(pa.table({"structure": column, "id": ["a", "b", "c"], "y": [1, 2, 3]}), tmp_path / "s.parquet")
    pulled = read_path(tmp_path / "s.parquet")
    assert list(pulled.structures.hashes) == hashes(nacl()) * 2
    assert list(pulled.columns["y"]) == [1, 2]
    assert list(reasons(pulled)) == ["c"]


def test_extended_xyz_and_ase_database(tmp_path):
    ase = pytest.importorskip("ase")
    ase_db, ase_io = pytest.importorskip("ase.db"), pytest.importorskip("ase.io")
    atoms = [quartz().to_ase_atoms(), nacl().to_ase_atoms()]
    atoms[0].info = {"material_id": "q", "gap": 5.8}
    atoms[1].info = {}
    ase_io.write(tmp_path / "a.xyz", [*atoms, ase.Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])], format="extxyz")
    pulled = read_path(tmp_path / "a.xyz")
    assert ids(pulled) == ["q", "a-1"]
    assert [s.composition for s in pulled.structures.to_pymatgen()] == [quartz().composition, nacl().composition]
    assert pulled.columns["gap"].tolist() == pytest.approx([5.8, np.nan], nan_ok=True)
    assert "not periodic" in reasons(pulled)["a-2"]

    with ase_db.connect(tmp_path / "a.db") as database:
        database.write(atoms[0], key_value_pairs={"mp_id": "mp-1", "gap": 5.8})
        database.write(atoms[1])
        database.write(ase.Atoms("H"))
    before = (tmp_path / "a.db").read_bytes()
    pulled = read_path(tmp_path / "a.db")
    assert ids(pulled) == ["mp-1", "a-2"]
    assert list(pulled.structures.hashes) == hashes(quartz(), nacl())
    assert list(reasons(pulled)) == ["a-3"]
    assert (tmp_path / "a.db").read_bytes() == before


def test_a_broken_frame_of_an_xyz_file_costs_only_itself(tmp_path):
    pytest.importorskip("ase")
    head = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\n'
    frames = [
        head + "Fe 0 0 0\n",
        head + "Fe 0 zero 0\n",
        head + "Q 0 0 0\n",
        head + "Fe 0 nan 0\n",
        head + "Ni 0 0 0\n",
    ]
    pulled = read_path(write(tmp_path / "f.xyz", "".join(frames) + head))
    assert ids(pulled) == ["f-0", "f-4"]
    assert set(reasons(pulled)) == {"f-1", "f-2", "f-3", "f-5"}
    assert reasons(pulled)["f-3"] == "a coordinate is NaN or infinite"


def test_without_ase_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ase.io.extxyz", None)
    write(tmp_path / "a.xyz", "1\n\nH 0 0 0\n")
    with pytest.raises(SourceError, match="pip install ase"):
        read_path(tmp_path / "a.xyz")
    write(tmp_path / "b.cif", cif(nacl()))
    pulled = read_path(tmp_path)
    assert ids(pulled) == ["b"]
    assert "pip install ase" in reasons(pulled)["a.xyz"]


def test_a_database_of_something_else_is_left_as_it_is(tmp_path):
    pytest.importorskip("ase")
    connection = sqlite3.connect(tmp_path / "notes.db")
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = (tmp_path / "notes.db").read_bytes()
    with pytest.raises(SourceError, match="not an ASE database"):
        read_path(tmp_path / "notes.db")
    assert (tmp_path / "notes.db").read_bytes() == before


# What is no usable crystal is refused, and never becomes another crystal.


def _cell(text: str, *replacements: tuple[str, str]) -> str:
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("replacements", "reason"),
    [
        ([("Na0  1  0.00000000", "Na0  1  nan")], "no coordinates"),
        ([("Na0  1  0.00000000", "Na0  1  .")], "no coordinates"),
        ([("  Na  Na0", "  Va  Va0")], "unknown element 'Va'"),
        ([("  Na  Na0", "  OH  OH0")], "unknown element 'OH'"),
        ([("  Na  Na0  1  0.00000000  0.00000000  0.00000000  1\n", "")], "disagree"),
        ([("'Na4 Cl4'", "'Na4 Cl4 H8'")], "Missing elements H"),
        ([("_cell_length_b   5.69000000\n", "")], "'_cell_length_b' is missing"),
        ([("_cell_length_a   5.69000000", "_cell_length_a   nan")], ""),
        ([("_cell_length_a   5.69000000", "_cell_length_a   0")], ""),
        ([("_atom_site_fract_z", "_atom_site_fract_q")], "'_atom_site_fract_z' is missing"),
        ([("_symmetry_equiv_pos_as_xyz", "_left_out"), ("'P 1'", "'?'"), ("_number   1", "_number   ?")], None),
    ],
)
def test_cif_that_pymatgen_would_read_as_something_else(tmp_path, replacements, reason):
    pulled = read_path(write(tmp_path / "x.cif", _cell(cif(nacl()), *replacements)))
    if reason is None:  # P1 is what remains where a file says nothing about symmetry
        assert list(pulled.structures.hashes) == hashes(nacl())
        return
    assert len(pulled.structures) == 0
    ((name, said),) = reasons(pulled).items()
    assert name in ("x", "x.cif")
    assert reason in said


@pytest.mark.parametrize("number", ["225", "?"])
def test_cif_with_an_unknown_space_group_and_no_operations_is_refused_not_taken_for_p1(tmp_path, number):
    text = f"""data_x
_symmetry_space_group_name_H-M 'F 4/m -9'
_symmetry_Int_Tables_number {number}
{"".join(f"_cell_length_{axis} 5.69{chr(10)}" for axis in "abc")}
{"".join(f"_cell_angle_{angle} 90{chr(10)}" for angle in ("alpha", "beta", "gamma"))}
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 0 0 0
Cl1 0.5 0.5 0.5
"""
    assert "the space group 'F4/m-9' isn't known" in reasons(read_path(write(tmp_path / "x.cif", text)))["x.cif"]
    known = text.replace("F 4/m -9", "F m -3 m")
    assert list(read_path(write(tmp_path / "y.cif", known)).structures.n_atoms) == [8]


def test_poscar_without_element_symbols_is_refused_not_called_hydrogen(tmp_path):
    lines = nacl().to(fmt="poscar").splitlines()
    text = "\n".join(line.replace(" Na", "").replace(" Cl", "") for i, line in enumerate(lines) if i != 5)
    assert "no element symbols" in reasons(read_path(write(tmp_path / "POSCAR", text)))["POSCAR"]


def test_broken_entries_of_a_json_file_cost_only_themselves(tmp_path):
    good, nan, element, species, flat = (json.loads(json.dumps(nacl().as_dict())) for _ in range(5))
    nan["sites"][0]["abc"][0] = float("nan")
    element["sites"][0]["species"][0]["element"] = "Xx"
    species["sites"][0]["species"] = [{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}]
    flat["lattice"]["matrix"][2] = [0, 0, 0]
    slab = json.loads(json.dumps(nacl().as_dict())) | {
        "lattice": nacl().lattice.as_dict() | {"pbc": [True, True, False]}
    }
    document = {"good": good, "nan": nan, "xx": element, "mixed": species, "flat": flat, "slab": slab, "none": None}
    pulled = read_path(write(tmp_path / "x.json", json.dumps(document)))
    assert ids(pulled) == ["good", "mixed"]
    assert list(pulled.structures.disordered) == [False, True]
    said = reasons(pulled)
    assert set(said) == set(document) - {"good", "mixed"}
    assert "NaN" in said["nan"]
    assert "Xx" in said["xx"]
    assert "periodic" in said["slab"]


def test_json_never_imports_what_a_site_property_names(tmp_path):
    document = nacl().as_dict()
    document["sites"][0]["properties"] = {"p": {"@module": "antigravity", "@class": "X"}}
    sys.modules.pop("antigravity", None)
    assert len(read_path(write(tmp_path / "x.json", json.dumps(document))).structures) == 1
    assert "antigravity" not in sys.modules


def test_repeated_identifiers_keep_the_first(tmp_path):
    write(tmp_path / "a.cif", cif(nacl()))
    write(tmp_path / "a.vasp", quartz().to(fmt="poscar"))
    pulled = read_path(tmp_path)
    assert list(pulled.structures.formulas) == ["NaCl"]
    assert "duplicate id" in reasons(pulled)["a"]


# Folders, archives.


def test_one_broken_file_in_a_folder_loses_nothing_else(tmp_path):
    write(tmp_path / "b" / "two.vasp", quartz().to(fmt="poscar"))
    write(tmp_path / "one.cif", cif(nacl()))
    write(tmp_path / "bad.cif", cif(nacl())[:400])
    write(tmp_path / "bad.json", "{")
    write(tmp_path / "bad.parquet", "PAR1")
    write(tmp_path / "README.md", "no structure")
    write(tmp_path / ".hidden" / "x.cif", "data_x")
    pulled = read_path(tmp_path)
    assert ids(pulled) == ["b/two", "one"]
    assert list(pulled.structures.formulas) == ["SiO2", "NaCl"]
    assert set(reasons(pulled)) == {"bad.cif", "bad.json", "bad.parquet"}
    assert (pulled.provenance["files"], pulled.provenance["ignored"]) == (5, 1)


def test_digest_is_of_the_file_or_of_the_names_and_digests_in_a_folder(tmp_path):
    path = write(tmp_path / "one.cif", cif(nacl()))
    assert read_path(path).provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_path(path).provenance | {"sha256": ""} == {
        "name": "one.cif",
        "path": str(path),
        "files": 1,
        "sha256": "",
    }
    first = read_path(tmp_path).provenance["sha256"]
    path.rename(tmp_path / "two.cif")
    renamed = read_path(tmp_path).provenance["sha256"]
    write(tmp_path / "two.cif", cif(nacl(5.7)))
    assert len({first, renamed, read_path(tmp_path).provenance["sha256"]}) == 3


def test_zip_gives_what_the_folder_gives(tmp_path):
    folder = tmp_path / "folder"
    write(folder / "b" / "two.vasp", quartz().to(fmt="poscar"))
    write(folder / "one.cif", cif(nacl()))
    write(folder / "three.json.gz", gzip.compress(json.dumps({"mp-3": nacl(5.0).as_dict()}).encode()))
    write(folder / "labels.csv", "id,y\none,1\ntwo,2\nmp-3,3\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
        archive.writestr("__MACOSX/._one.cif", "resource fork")
    plain, zipped = read_path(folder), read_path(tmp_path / "all.zip")
    assert ids(plain) == ids(zipped) == ["b/two", "one", "mp-3"]
    assert list(plain.structures.hashes) == list(zipped.structures.hashes)
    assert list(plain.columns["y"]) == list(zipped.columns["y"]) == [2, 1, 3]
    assert zipped.provenance["sha256"] == hashlib.sha256((tmp_path / "all.zip").read_bytes()).hexdigest()


def test_zip_members_stay_inside(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("../evil.cif", "/abs.cif", "..\\win.cif", "C:/drive.cif", "good.cif", "inner.zip"):
            archive.writestr(name, cif(nacl()))
    pulled = read_path(tmp_path / "x.zip")
    assert ids(pulled) == ["good"]
    said = reasons(pulled)
    assert set(said) == {"../evil.cif", "/abs.cif", "../win.cif", "C:/drive.cif", "inner.zip"}
    assert "outside" in said["../evil.cif"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def _patch_zip(path: Path, member: bytes, offset_local: int, offset_central: int, kind: str, value: int) -> None:
    """Overwrite one header field of a member, in its local and its central header."""
    content = bytearray(path.read_bytes())
    for signature, name_at, offset in ((b"PK\3\4", 30, offset_local), (b"PK\1\2", 46, offset_central)):
        start = content.find(signature)
        while content[start + name_at : start + name_at + len(member)] != member:
            start = content.index(signature, start + 1)
        struct.pack_into(kind, content, start + offset, value)
    path.write_bytes(bytes(content))


def test_encrypted_lying_and_huge_zip_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "LARGEST_MEMBER", 100_000)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("good.cif", "secret.cif", "short.cif", "long.cif"):
            archive.writestr(name, cif(nacl()))
        archive.writestr("huge.cif", b"\0" * 200_000)
        archive.writestr("liar.cif", b"\0" * 200_000)
        archive.writestr("bomb.json.gz", gzip.compress(b" " * 200_000))
        archive.writestr("other.cif", cif(nacl()), compress_type=zipfile.ZIP_LZMA)
    _patch_zip(path, b"secret.cif", 6, 8, "<H", 1)
    _patch_zip(path, b"short.cif", 22, 24, "<I", 300)
    _patch_zip(path, b"long.cif", 22, 24, "<I", 4_000_000_000)
    _patch_zip(path, b"liar.cif", 22, 24, "<I", 50)
    pulled = read_path(path)
    said = reasons(pulled)
    assert "encrypted" in said["secret.cif"]
    assert "more than 0 MB" in said["huge.cif"]
    assert "more than 0 MB" in said["bomb.json.gz"]
    assert "compression" in said["other.cif"]
    assert {"short.cif", "liar.cif"} < set(said)
    assert set(ids(pulled)) <= {"good", "long"}  # a size stated too large does no harm
    assert "good" in ids(pulled)


def test_all_members_together_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_ARCHIVE", 3 * len(cif(nacl())))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(5):
            archive.writestr(f"{i}.cif", cif(nacl()))
    pulled = read_path(tmp_path / "x.zip")
    assert ids(pulled) == ["0", "1", "2"]
    assert "unpack it first" in reasons(pulled)["3.cif"]


def test_a_damaged_zip_is_named(tmp_path):
    write(tmp_path / "x.zip", b"PK\3\4 and nothing more")
    with pytest.raises(SourceError, match=r"x\.zip.*not a readable zip"):
        read_path(tmp_path / "x.zip")


def test_a_member_without_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("nameless", cif(nacl()))
        archive.writestr("a.cif", cif(nacl()))
    # zipfile ends names at a null byte
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes().replace(b"nameless", b"\0ameless"))
    pulled = read_path(tmp_path / "x.zip")
    assert ids(pulled) == ["a"]
    assert reasons(pulled) == {"?": "a file without a name"}


def test_a_zip_with_a_damaged_directory_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.cif", cif(nacl()))
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 6] = 148  # the version of zip that is needed to read it: 14.8
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.zip.*14\.8"):
        read_path(tmp_path / "x.zip")


# Labels.


def test_labels_join_both_ways(tmp_path):
    for name in ("a", "b", "sub/c", "d"):
        write(tmp_path / f"{name}.cif", cif(nacl()))
    write(tmp_path / "bad.cif", "data_")
    write(
        tmp_path / "labels.csv",
        "id,K_VRH,stable\na,10.5,True\nsub/c.cif,n/a,False\nd,broken,True\nbad,3,True\nghost,7,True\n",
    )
    pulled = read_path(tmp_path)
    assert ids(pulled) == ["a", "b", "d", "sub/c"]
    labels = pulled.columns.set_index(pulled.structures.material_id)
    assert labels["K_VRH"].dtype == np.float64
    assert labels["K_VRH"].tolist() == pytest.approx([10.5, np.nan, np.nan, np.nan], nan_ok=True)
    assert labels["stable"].to_dict()["sub/c"] is False
    said = {refusal.material_id: (refusal.stage, refusal.reason) for refusal in pulled.refused}
    assert set(said) == {"bad.cif", "ghost"}  # the label of a refused file needs no second row
    assert said["ghost"][0] == "pull"
    assert "no structure file for it" in said["ghost"][1]
    assert pulled.n_seen == 6


@pytest.mark.parametrize("key", ["material_id", "id", "name", "file", "mine"])
def test_labels_by_any_usual_key_column(tmp_path, key):
    write(tmp_path / "x" / "001.cif", cif(nacl()))
    write(tmp_path / "x" / "mp-1" / "POSCAR", nacl().to(fmt="poscar"))
    labels = write(tmp_path / "elsewhere.csv", f"comment,{key},y\n1,001,4.5\n2,mp-1,5.5\n2,mp-1,6.5\n")
    pulled = read_path(tmp_path / "x", labels=labels, id_column="mine" if key == "mine" else "material_id")
    assert dict(zip(ids(pulled), pulled.columns["y"], strict=True)) == {"001": 4.5, "mp-1/POSCAR": 5.5}
    assert "names it again" in reasons(pulled)["mp-1"]


def test_a_label_that_fits_several_structures_goes_to_none(tmp_path):
    for name in ("x/a", "y/a", "b"):
        write(tmp_path / f"{name}.cif", cif(nacl()))
    labels = write(tmp_path / "l.csv", "name,y\na,1\nb,2\n")
    pulled = read_path(tmp_path, labels=labels)
    assert dict(zip(ids(pulled), pulled.columns["y"].fillna(-1), strict=True)) == {"b": 2, "x/a": -1, "y/a": -1}
    assert "2 structures go by it" in reasons(pulled)["a"]


def test_labels_join_material_ids_of_a_table(tmp_path):
    path = write(tmp_path / "x.json", json.dumps({"mp-1": nacl().as_dict(), "mp-2": quartz().as_dict()}))
    pulled = read_path(path, labels=write(tmp_path / "l.csv", "material_id,gap,note\nmp-2,5.8,glass\n"))
    assert pulled.columns["gap"].tolist() == pytest.approx([np.nan, 5.8], nan_ok=True)
    assert pulled.columns["note"].iloc[1] == "glass"
    assert "gap" in pulled.to_arrow().column_names


def test_labels_that_name_nothing_are_an_error_of_the_whole(tmp_path):
    write(tmp_path / "a.cif", cif(nacl()))
    with pytest.raises(SourceError, match="doesn't exist"):
        read_path(tmp_path, labels=tmp_path / "none.csv")
    write(tmp_path / "l.csv", "K,G\n1,2\n")
    with pytest.raises(SourceError, match=r"l\.csv: no column says which structure"):
        read_path(tmp_path)


# A CSV that names structure files.


def test_csv_naming_structure_files(tmp_path):
    write(tmp_path / "cifs" / "a.cif", cif(nacl()))
    write(tmp_path / "cifs" / "b.vasp", quartz().to(fmt="poscar"))
    write(tmp_path / "cifs" / "two.json", json.dumps([nacl().as_dict()] * 2))
    rows = ["1,cifs/a.cif,1.5", "2,cifs/b.vasp,2.5", "3,cifs/c.cif,3", "4,,4", "5,cifs/two.json,5", "2,cifs/a.cif,6"]
    pulled = read_path(write(tmp_path / "x.csv", "mp_id,file,gap\n" + "\n".join(rows) + "\n"))
    assert ids(pulled) == ["1", "2"]
    assert list(pulled.structures.formulas) == ["NaCl", "SiO2"]
    assert list(pulled.columns["gap"]) == [1.5, 2.5]
    refused = [(refusal.material_id, refusal.reason.split(":")[0]) for refusal in pulled.refused]
    assert [name for name, _ in refused] == ["3", "4", "5", "2"]
    assert refused[0][1] == "there is no file cifs/c.cif"
    assert refused[2][1] == "cifs/two.json holds 2 structures, one is needed"


def test_csv_with_cif_text_in_its_cells(tmp_path):
    table = pd.DataFrame({"material_id": ["mp-1", "mp-2"], "cif": [cif(nacl()), "data_x\nnothing"], "y": [1.0, 2.0]})
    table.to_csv(tmp_path / "mp_20.csv.gz", index=False)
    pulled = read_path(tmp_path / "mp_20.csv.gz")
    assert ids(pulled) == ["mp-1"]
    assert list(pulled.structures.hashes) == hashes(nacl())
    assert list(reasons(pulled)) == ["mp-2"]


def test_csv_inside_a_zip_reaches_no_file_outside(tmp_path):
    outside = write(tmp_path / "a.cif", cif(nacl()))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x.csv", f"id,file\na,{outside}\n")
    pulled = read_path(tmp_path / "x.zip")
    assert ids(pulled) == []
    assert "can't name files" in reasons(pulled)["a"]


def test_csv_of_compositions_says_that_a_structure_is_needed(tmp_path):
    with pytest.raises(SourceError, match="a structure is needed"):
        read_path(write(tmp_path / "x.csv", "formula,gap\nNaCl,5\n"))


# What concerns the whole.


def test_errors_of_the_whole_name_the_path_and_what_is_wrong(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere.*no such file"):
        read_path(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no structure files"):
        read_path(tmp_path)
    for name, content, message in [
        ("x.docx", "x", "unknown kind of file '.docx'"),
        ("x.json", "[]", "holds no structures"),
        ("y.json", "{", "not readable JSON"),
        ("z.json", '{"@class": "Molecule", "sites": []}', "no structures in it"),
        ("d.json", "[" * 100_000, "recursion"),
        ("x.parquet", "PAR1", "not a readable Parquet file"),
        ("x.csv", "", "x.csv"),
    ]:
        path = write(tmp_path / name, content)
        with pytest.raises(SourceError, match=message) as error:
            read_path(path)
        assert name in str(error.value)


def test_parquet_that_holds_something_else_is_an_error_of_the_whole(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="no column 'lattice'"):
        read_path(tmp_path / "x.parquet")
    pq.write_table(pa.table({"lattice": [[[1.0] * 3] * 3], "Z": [[1]], "frac": [[0.0] * 3]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"x\.parquet"):
        read_path(tmp_path / "x.parquet")


def test_text_that_looks_numeric_here_and_there_stays_text(tmp_path):
    records = [
        {"structure": nacl().as_dict(), "spacegroup": "Fm-3m", "gap": "5", "flag": True},
        {"structure": nacl().as_dict(), "spacegroup": "225", "gap": "unknown", "flag": None},
        {"structure": nacl().as_dict(), "spacegroup": "Pm-3m", "gap": 3, "flag": False},
    ]
    pulled = read_path(write(tmp_path / "x.json", json.dumps(records)))
    assert list(pulled.columns["spacegroup"]) == ["Fm-3m", "225", "Pm-3m"]
    assert pulled.columns["gap"].tolist() == pytest.approx([5, np.nan, 3], nan_ok=True)
    assert pulled.to_arrow()["flag"].to_pylist() == [True, None, False]


@pytest.mark.parametrize("address", ["s3://bucket/x.csv", "https://example.org/a.cif", "hdfs://x/a.parquet"])
def test_addresses_that_are_no_files_say_what_sources_are(address):
    with pytest.raises(SourceError, match="download it first"):
        read_path(address)


def test_the_address_of_a_file_is_its_path(tmp_path):
    (tmp_path / "a b.vasp").write_text("x\n4.2\n1 0 0\n0 1 0\n0 0 1\nMg O\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    assert len(read_path((tmp_path / "a b.vasp").as_uri()).structures) == 1


def test_a_key_of_identifiers_that_no_record_has_is_an_error(tmp_path):
    salt = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]).as_dict()
    (tmp_path / "s.json").write_text(json.dumps([{"id": "a", "mine": "b", "structure": salt}]))
    assert list(read_path(tmp_path / "s.json", id_column="mine").structures.material_id) == ["b"]
    with pytest.raises(SourceError, match="no column 'yours' for the identifiers"):
        read_path(tmp_path / "s.json", id_column="yours")
