"""Inputs as people have them, made small: each kind of file that `tests/test_cases.py` states the right outcome of.

Names are those of the folder `cases` beside a checkout that has the shared data; what is in the files is made here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry, ManualEnergyAdjustment

FORMULAS = ("CuSO4·5H2O", "CuSO4.5H2O", "MgCl2*6H2O", "Na2CO3.10H2O", "La1-xSrxMnO3", "La0.7Sr0.3MnO3", "Fe3+",
            "SO4^2-", "Li(+1)Cl(-1)", "NaN", "NaCl (rocksalt)", "TiO2-anatase", "Fe₂O₃", "La0,7Sr0,3MnO3",
            "Ti-6Al-4V", "SiO2-δ", "MoS2/WS2", "Mg(OH)2", "CH3NH3PbI3", "MAPbI3", "WO3", "ZnO", "GaN")  # fmt: skip

_METALS = ("Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Hg", "Al", "Ga", "In", "Sn", "Pb", "Cu", "Ag")
COMPOUNDS = tuple(f"{metal}{anion}" for metal in _METALS for anion in ("O", "S", "Se"))[:43]
"""Formulas of the tables in csv/."""


def cif(lengths: Any, angles: Any, sites: str, *lines: str, columns: tuple[str, ...] = (), label: bool = True) -> str:
    """CIF text; `sites` are rows of label, element (without `label` only that) and place, then further columns."""
    names = ["label", "type_symbol"] if label else ["label"]
    names += ["fract_x", "fract_y", "fract_z", *columns]
    cell = [f"_cell_length_{axis} {value}" for axis, value in zip("abc", lengths, strict=True)]
    cell += [f"_cell_angle_{axis} {value}" for axis, value in zip(("alpha", "beta", "gamma"), angles, strict=True)]
    head = ["data_x", *cell, *lines, "loop_", *(f"_atom_site_{name}" for name in names)]
    return "\n".join([*head, *(row.strip() for row in sites.strip().splitlines())]) + "\n"


_P1 = ("_symmetry_space_group_name_H-M 'P 1'", "loop_", "_symmetry_equiv_pos_as_xyz", "'x,y,z'")
_RIGHT = (90, 90, 90)
_WATERED = "_chemical_formula_sum 'Mg0.5 H2 O Ca0.5'"


def _group(symbol: str) -> str:
    return f"_symmetry_space_group_name_H-M '{symbol}'"


def cifs() -> dict[str, str]:
    """Name -> text of each CIF."""
    rhombohedral, large = (5.3, 5.3, 5.3), (9.0, 9.0, 9.0)
    shared_site = "Mg1 Mg 0 0 0 0.5\nCa1 Ca 0 0 0 0.5\nO1 O 0.26 0 0 1"
    return {
        "cif/Fd3m_noorigin.cif": cif((5.66,) * 3, _RIGHT, "Ge1 Ge 0 0 0", _group("F d -3 m")),
        "cif/H_shares_site_with_O.cif": cif(
            (4.0, 4.0, 9.0), _RIGHT,
            "La1 La 0 .5 .15 1\nLa2 La .5 0 .85 1\nFe1 Fe 0 0 .5 1\nFe2 Fe .5 .5 .5 1\nAs1 As 0 .5 .66 1\n"
            "As2 As .5 0 .34 1\nH1 H 0 0 0 .8\nO1 O 0 0 0 .2\nH2 H .5 .5 0 .8\nO2 O .5 .5 0 .2",
            "_chemical_formula_sum 'La2 Fe2 As2 H1.6 O0.4'", *_P1, columns=("occupancy",),
        ),
        "cif/R_setting_R.cif": cif((4.1,) * 3, (57,) * 3, "Sb1 Sb .233 .233 .233", _group("R -3 m :R")),
        "cif/implicitH_disordered.cif": cif(
            large, _RIGHT, "Mg1 Mg 0 0 0 0 .5\nCa1 Ca 0 0 0 0 .5\nO1 O .26 0 0 2 1", _WATERED, *_P1,
            columns=("attached_hydrogens", "occupancy"),
        ),
        "cif/implicitH_ordered.cif": cif(
            large, _RIGHT, "Mg1 Mg 0 0 0 0\nO1 O .26 0 0 2", *_P1, columns=("attached_hydrogens",)
        ),
        "cif/missingH_disordered.cif": cif(large, _RIGHT, shared_site, _WATERED, *_P1, columns=("occupancy",)),
        "cif/type_SiAl_slash.cif": cif((4.1,) * 3, _RIGHT, "M1 Nb/Zr 0 0 0\nO1 O .5 .5 .5", _group("F m -3 m")),
        "cif/type_zero_occ.cif": cif(
            (4.1,) * 3, _RIGHT, "Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1\nH1 H .25 .25 .25 0", *_P1, columns=("occupancy",)
        ),
        "cif/label_HO1.cif": cif(large, _RIGHT, "HO1 0 0 0\nO1 .11 0 0", *_P1, label=False),
        "cif/slab.cif": cif(
            (3.16, 3.16, 28), (90, 90, 120), "W1 W 0 0 .5\nS1 S .3333 .6667 .556\nS2 S .3333 .6667 .444", *_P1
        ),
        "cif/molecule_box.cif": cif((16,) * 3, _RIGHT, "C1 C .5 .5 .5\nO1 O .5 .5 .5705", *_P1),
        "symmetry/LiNbO3_rhombohedral_axes.cif": cif(
            (5.48,) * 3, (56.1,) * 3, "Nb1 Nb 0 0 0\nLi1 Li .281 .281 .281\nO1 O .112 .352 -.279", _group("R 3 c")
        ),
        "symmetry/bismuth_rhombohedral_axes.cif": cif(
            (4.746,) * 3, (57.23,) * 3, "Bi1 Bi .2339 .2339 .2339", _group("R -3 m")
        ),
        "symmetry/silicon_origin2_Z8.cif": cif(
            (5.43,) * 3, _RIGHT, "Si1 Si .125 .125 .125", _group("F d -3 m"), "_cell_formula_units_Z 8",
            "_chemical_formula_sum 'Si'", "_exptl_crystal_density_diffrn 2.33",
        ),
        "symmetry/corundum_rhombohedral_axes.cif": cif(
            rhombohedral, (55.3,) * 3, "Al1 Al .352 .352 .352\nO1 O .556 .944 .25", _group("R -3 c")
        ),
        "symmetry/cubic_group_tetragonal_cell.cif": cif(
            (4.3, 4.3, 5.1), _RIGHT, "K1 K 0 0 0\nCl1 Cl .5 .5 .5", _group("F m -3 m")
        ),
        "vacuum/CO2_box15.cif": cif((15,) * 3, _RIGHT, "C1 C 0 0 0\nO1 O 0 0 .0775\nO2 O 0 0 -.0775", *_P1),
        "vacuum/N2_box20.cif": cif((20,) * 3, _RIGHT, "N1 N 0 0 0\nN2 N 0 0 .055", *_P1),
        "vacuum/graphene20.cif": cif(
            (2.46, 2.46, 20), (90, 90, 120), "C1 C 0 0 .5\nC2 C .3333 .6667 .5", *_P1
        ),
        "formats/mono_c.cif": cif(
            (4.1, 5.1, 6.1), (90, 90, 110), "Na1 Na .2 .3 0\nCl1 Cl .7 .6 .5", _group("P 1 1 2/m")
        ),
        "formats/mono_c_num.cif": cif(
            (4.1, 5.1, 6.1), (90, 90, 110), "Na1 Na .2 .3 0\nCl1 Cl .7 .6 .5", "_symmetry_Int_Tables_number 10"
        ),
        "formats/calcflag.cif": cif(
            (4.2,) * 3, _RIGHT, "Mg1 Mg 0 0 0 d\nO1 O .5 .5 .5 d\nX1 O .25 .25 .25 dum", "_space_group_IT_number 1",
            columns=("calc_flag",),
        ),
    }  # fmt: skip


def tables() -> dict[str, str]:
    """Name -> text of each table of formulas."""
    values = np.round(np.linspace(0.4, 8.9, len(COMPOUNDS)), 2)
    rows = list(zip(COMPOUNDS, values, strict=True))
    tail = [f"{1.0 + 40 * i * i:.0f}" for i in range(len(rows))]

    def table(cells: Any, separator: str = ",", head: str = "formula,gap") -> str:
        return "\n".join([head.replace(",", separator), *(separator.join(row) for row in cells)]) + "\n"

    return {
        "formulas/formulas.csv": table((f'"{name}"', f"{1 + 0.1 * i:.1f}") for i, name in enumerate(FORMULAS)),
        "csv/comment_lines.csv": "# measured by hand\n# in 2021\n" + table((f, str(v)) for f, v in rows),
        "csv/esd.csv": table((f, f"{v}(3)") for f, v in rows),
        "csv/pretty_formula.csv": table(
            ((f"mp-{i}", f, str(v)) for i, (f, v) in enumerate(rows)), head="material_id,pretty_formula,gap"
        ),
        "csv/semicolon_comma_decimal.csv": table(((f, str(v).replace(".", ",")) for f, v in rows), ";"),
        "csv/semicolon_point.csv": table(((f, str(v)) for f, v in rows), ";"),
        "csv/sentinels.csv": table((f, "-999" if i == 0 else str(v)) for i, (f, v) in enumerate(rows)),
        "csv/thousands.csv": table((f, f'"{1000 * v:,.0f}"' if v >= 1 else f"{1000 * v:.0f}") for f, v in rows),
        "csv/thousands_tail.csv": table(
            (f, f'"{int(v):,}"') for (f, _), v in zip(rows, tail, strict=True)
        ),
        "csv/units_all.csv": table((f, f"{v} eV") for f, v in rows),
        "csv/units_some_mixed.csv": table((f, f"{v} eV" if i % 3 == 0 else str(v)) for i, (f, v) in enumerate(rows)),
    }  # fmt: skip


def _salt(symbols: tuple[str, str], a: float) -> Structure:
    """The primitive cell of rock salt."""
    return Structure(0.5 * a * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), list(symbols), [[0, 0, 0], [0.5] * 3])


def salts(n: int = 30) -> dict[str, Structure]:
    """Rock-salt structures by identifier, no two alike."""
    pairs = [(metal, anion) for metal in _METALS[:12] for anion in ("O", "S", "Se")][:n]
    return {f"mp-{10003 + 7 * i}": _salt(pair, 4.2 + 0.05 * i) for i, pair in enumerate(pairs)}


def write_cases(place: Path) -> None:
    """All of them into a folder."""
    for folder in ("json", "cgcnn_layout", "ids/cifs", "one_formula", "two_labels", "filter", "repeats",
                   "small_numbers", "formats"):  # fmt: skip
        (place / folder).mkdir(parents=True, exist_ok=True)
    for name, text in {**cifs(), **tables()}.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    known = salts()
    values = {name: 20.0 + 9.5 * i for i, name in enumerate(known)}
    _write_folders(place, known, values)
    _write_json(place / "json", dict(list(known.items())[:6]), values)
    _write_formats(place / "formats")
    both = [{"material_id": name, "structure": s.as_dict(), "K": values[name]} for name, s in known.items()]
    both += [
        {"material_id": f"oqmd-{i}", "structure": s.as_dict(), "K": 1.3 * values[name]}
        for i, (name, s) in enumerate(known.items())
    ]
    (place / "two_labels/two_functionals.json").write_text(json.dumps(both))
    rows = ["material_id,structure,e_hull"]
    for i, structure in enumerate(known.values()):
        cell = json.dumps(structure.as_dict()).replace('"', '""')
        rows.append(f'c{i},"{cell}",{"0.01 eV" if i % 3 == 0 else 0.01}')
    (place / "filter/cand.csv").write_text("\n".join(rows) + "\n")
    (place / "filter/filter.toml").write_text(FILTER)
    (place / "one_formula.toml").write_text(ONE_FORMULA)
    for n in (3, 8):
        lines = [
            f"{formula},{300 + 100 * step},{0.2 + 0.02 * i + 0.05 * step:.3f}"
            for i, formula in enumerate(COMPOUNDS[:40])
            for step in range(n)
        ]
        (place / f"repeats/temps{n}.csv").write_text("\n".join(["formula,T,zT", *lines]) + "\n")
    (place / "repeats/new.csv").write_text("formula\nMgTe\nCaTe\nPbTe0.9Se0.1\n")
    lines = [f"{formula},{30 + 7 * i},{(30 + 7 * i) * 1e-9!r}" for i, formula in enumerate(COMPOUNDS)]
    (place / "small_numbers/small.csv").write_text("\n".join(["formula,K_TPa_inv,K_small", *lines]) + "\n")


ONE_FORMULA = """\
name = "allotropes"
[training]
source = "one_formula"
target = "K"
unit = "GPa"
[candidates]
source = "one_formula"
exclude_seen = false
[objective]
shortlist = 5
"""

FILTER = """\
name = "filter"
[training]
source = "embedded:elastic"
target = "K_VRH"
unit = "GPa"
transform = "log10"
[candidates]
source = "cand.csv"
exclude_seen = false
[candidates.filters]
e_hull = { max = 0.05 }
"""


def _write_folders(place: Path, known: dict[str, Structure], values: dict[str, float]) -> None:
    for name, structure in known.items():
        structure.to(str(place / f"cgcnn_layout/{name}.cif"))
    (place / "cgcnn_layout/id_prop.csv").write_text("".join(f"{name},{value}\n" for name, value in values.items()))
    (place / "cgcnn_layout/atom_init.json").write_text(json.dumps({str(z): [0, 1] for z in range(1, 20)}))
    names = list(known)[:12]
    for name in names:
        known[name].to(str(place / f"ids/cifs/{name}.cif"))
    spelled = [
        names[0], names[1].upper(), names[2].removeprefix("mp-"), f"{names[3]} ", f"{names[4]}_SiRu2",
        names[5].replace("-", "_"), f"mvc-{names[6][3:]}", f"{names[7]}-GGA", f"{names[8]}.CIF",
        f"cifs/{names[9]}.cif", f"C:\\data\\cifs\\{names[10]}.cif",
        f"https://next-gen.materialsproject.org/materials/{names[11]}",
    ]  # fmt: skip
    rows = [f"{called},{values[name]}" for called, name in zip(spelled, names, strict=True)]
    (place / "ids/labels.csv").write_text("\n".join(["id,K", *rows]) + "\n")
    (place / "ids/shifted.csv").write_text("id,K\n" + "".join(f"{name},{values[name]},ok\n" for name in names))
    diamond = Structure(_salt(("C", "C"), 3.567).lattice, ["C", "C"], [[0, 0, 0], [0.25] * 3])
    graphite = Structure(Lattice.hexagonal(2.46, 6.7), ["C"] * 4,
                         [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25], [0, 0, 0.75], [2 / 3, 1 / 3, 0.75]])  # fmt: skip
    rows = []
    for i in range(40):
        (graphite if i % 2 == 0 else diamond).copy().apply_strain(0.002 * i).to(str(place / f"one_formula/c{i:02}.cif"))
        rows.append(f"c{i:02},{(35.0 if i % 2 == 0 else 440.0) - i}")
    (place / "one_formula/labels.csv").write_text("\n".join(["id,K", *rows]) + "\n")


def _write_json(place: Path, known: dict[str, Structure], values: dict[str, float]) -> None:
    entries = [
        ComputedStructureEntry(s, -5.0 * len(s), data={"k": values[name]}, entry_id=name).as_dict()
        for name, s in known.items()
    ]
    (place / "computed_structure_entries.json").write_text(json.dumps(entries))
    jarvis = [
        {
            "jid": f"JVASP-{i}",
            "bulk_modulus_kv": "na" if i == 0 else values[name],
            "atoms": {
                "lattice_mat": s.lattice.matrix.tolist(),
                "coords": s.frac_coords.tolist(),
                "elements": [site.specie.symbol for site in s],
                "cartesian": False,
                "props": [""] * len(s),
            },
        }
        for i, (name, s) in enumerate(known.items())
    ]
    (place / "jarvis_dft3d.json").write_text(json.dumps(jarvis))
    documents = [
        {
            "material_id": name,
            "structure": s.as_dict(),
            "bulk_modulus": {"voigt": values[name] + 1, "reuss": values[name] - 1, "vrh": values[name]},
        }
        for name, s in known.items()
    ]
    (place / "mp_summary_docs.json").write_text(json.dumps(documents))
    cells = [f'{name},"{s.as_dict()}",{values[name]}' for name, s in known.items()]
    (place / "csv_str_dict.csv").write_text("\n".join(["material_id,structure,K", *cells]) + "\n")


def _write_formats(place: Path) -> None:
    salt, magnesia = _salt(("Na", "Cl"), 5.6), _salt(("Mg", "O"), 4.2)
    entries = []
    for structure, name in ((salt, "mp-22862"), (magnesia, "mp-1265")):
        entry = ComputedStructureEntry(
            structure,
            -10.0,
            energy_adjustments=[ManualEnergyAdjustment(-1.0)],
            data={"material_id": name, "e_above_hull": 0.02},
            entry_id=f"{name}-GGA",
        )
        entries.append(entry.as_dict())
    (place / "cse_entryid.json").write_text(json.dumps(entries))
    plain = [
        ComputedStructureEntry(s, -10.0, data={"mat_id": name, "e_above_hull": 0.0}).as_dict()
        for s, name in ((salt, "agm000"), (magnesia, "agm001"))
    ]
    (place / "alex_entries.json").write_text(json.dumps({"entries": plain}))
    document = {"material_id": "mp-aaaabhvi", "structure": salt.as_dict(), "band_gap": 5.0}
    (place / "emmet_json.json").write_text(json.dumps([document]))
    (place / "lab.csv").write_text("material_id,gap\nmp-22862,5.0\n")
    frame = pd.DataFrame({"structure": [salt.as_dict(), magnesia.as_dict()], "gap": [5.0, 7.0]}, index=["a1", "b2"])
    frame.to_json(place / "df_table.json", orient="table")
    texts = pd.DataFrame({"cif": [salt.to(fmt="cif"), magnesia.to(fmt="cif")], "gap": [5.0, 7.0]},
                         index=["mp-22862", "mp-1265"])  # fmt: skip
    texts.to_csv(place / "unnamed_index.csv")
    pd.DataFrame(
        {
            "cell": [magnesia.lattice.matrix.tolist()],
            "positions": [magnesia.cart_coords.tolist()],
            "numbers": [list(magnesia.atomic_numbers)],
            "energy": [-1.0],
        }
    ).to_parquet(place / "omat.parquet")
    names, blocks = ("0012345678", "12345e6789", "98765e4321", "0000000077"), []
    for name, (pair, a) in zip(
        names, ((("Mg", "O"), 4.2), (("Na", "Cl"), 5.6), (("Li", "F"), 4.0), (("Ca", "O"), 4.8)), strict=True
    ):
        s = _salt(pair, a)
        lattice = " ".join(f"{x:.6f}" for x in s.lattice.matrix.ravel())
        atoms = [f"{site.specie.symbol} {' '.join(f'{x:.6f}' for x in site.coords)}" for site in s]
        blocks.append(
            f'{len(s)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 material_id={name} pbc="T T T"\n'
            + "\n".join(atoms)
        )
    (place / "hexids.extxyz").write_text("\n".join(blocks) + "\n")
    labels = "".join(f"{name},{20.0 * i + 25}\n" for i, name in enumerate(names))
    (place / "hexids.csv").write_text(f"material_id,K_VRH\n{labels}")
    scaled = "x\n{}\n1 0 0\n0 1 0\n0 0 1\nMg O\n1 1\nCartesian\n0 0 0\n.5 .5 .5\n"
    (place / "negscale_cart.vasp").write_text(scaled.format(-40.0))
    (place / "posscale_cart.vasp").write_text(scaled.format(40.0 ** (1 / 3)))
