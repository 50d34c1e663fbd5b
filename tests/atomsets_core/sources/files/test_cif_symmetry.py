"""A CIF without operations is read as what it states, in any setting of any group, or refused; never as another."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from pymatgen.core import Structure

from atomsets_core.sources.base import Entry, pulled_from_entries
from atomsets_core.sources.files.cif import read_cif
from atomsets_core.sources.files.space_groups import keeps_metric, settings
from atomsets_core.structures import Refusal
from atomsets_core.structures.graphs import neighbours

CUBIC_42 = (4.2, 4.2, 4.2, 90, 90, 90)

MONOCLINIC = range(3, 16)


def block(cell, sites: str, **stated: str) -> str:
    """A CIF of a cell (a, b, c, alpha, beta, gamma), sites "Si 0 0 0; O ..." and other tags."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_x", *(f"_cell_{name} {value:.6f}" for name, value in zip(names, cell, strict=True))]
    lines += [
        f"{TAGS.get(tag, tag)} '{value}'" if '"' not in value else f"{TAGS[tag]}\n;{value}\n;"
        for tag, value in stated.items()
    ]
    lines += ["loop_", "_atom_site_label", "_atom_site_type_symbol", *(f"_atom_site_fract_{axis}" for axis in "xyz")]
    for i, site in enumerate(sites.split(";")):
        element, *place = site.split()
        lines.append(f"{element}{i} {element} {' '.join(place)}")
    return "\n".join(lines) + "\n"


TAGS = {
    "symbol": "_symmetry_space_group_name_H-M",
    "alt": "_space_group_name_H-M_alt",
    "hall": "_space_group_name_Hall",
    "number": "_space_group_IT_number",
    "code": "_space_group_IT_coordinate_system_code",
    "formula": "_chemical_formula_sum",
    "units": "_cell_formula_units_Z",
    "density": "_exptl_crystal_density_diffrn",
    "volume": "_cell_volume",
}


def read(text: str) -> tuple[Structure | None, str]:
    """The crystal, or None and the reason."""
    (found,) = read_cif(text, "x.cif", "x")
    if isinstance(found, Refusal):
        return None, found.reason
    pulled = pulled_from_entries([found])
    assert not pulled.refused
    return pulled.structures.to_pymatgen()[0], ""


def contents(text: str) -> str:
    found, reason = read(text)
    return found.composition.formula.replace(" ", "") if found is not None else reason


class Case:
    """A crystal in one setting: silicon in a general position, and oxygen in another."""

    def __init__(self, row: int) -> None:
        self.setting = settings()[row - 1]
        symmetry = spglib.get_symmetry_from_database(row)
        random = np.random.default_rng(row)
        metric = np.diag([81.0, 121.0, 169.0]) + np.array([[0, 9, 14], [9, 0, -17], [14, -17, 0]])
        rotations = symmetry["rotations"]
        metric = np.mean([rotation.T @ metric @ rotation for rotation in rotations], axis=0)
        metric *= (120 * len(rotations)) ** (2 / 3) / np.linalg.det(metric) ** (1 / 3)  # 60 cubic Angstrom an atom
        lengths = np.sqrt(np.diag(metric))
        cosines = [metric[i, j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))]
        self.cell = [*lengths, *np.degrees(np.arccos(cosines))]
        while True:
            self.listed = random.uniform(0.02, 0.48, (2, 3)).round(4)
            images = np.einsum("oij,nj->noi", rotations, self.listed) + symmetry["translations"]
            self.sites = [np.unique((image % 1).round(6) % 1, axis=0) for image in images]
            frac = np.concatenate(self.sites)
            if not len(neighbours(np.linalg.cholesky(metric), frac, 1.4)[0]):  # no atoms nearer than any bond of Si
                break
        self.n = len(rotations)

    def text(self, **stated: str) -> str:
        places = [" ".join(f"{value:.4f}" for value in place) for place in self.listed]
        return block(self.cell, f"Si {places[0]}; O {places[1]}", **stated)

    def is_in(self, structure: Structure) -> bool:
        """Whether a structure has these sites."""
        if len(structure) != sum(map(len, self.sites)):
            return False
        for symbol, sites in zip(("Si", "O"), self.sites, strict=True):
            own = np.array([site.frac_coords for site in structure if site.specie.symbol == symbol])
            apart = own[:, None] - sites[None]
            if not (np.abs(apart - np.round(apart)).max(axis=2).min(axis=1) < 1e-4).all():
                return False
        return True


# All triclinic settings and some of each further system, both origins and both axes among them.
SOME = (1, 2, 3, 12, 60, 82, 85, 93, 116, 191, 206, 228, 229, 300, 317, 323, 335, 336, 350, 367, 409, 433, 434,
        445, 447, 459, 460, 485, 498, 500, 525, 526)  # fmt: skip


@pytest.mark.parametrize(
    "row", [*SOME, *(pytest.param(row, marks=pytest.mark.slow) for row in range(1, 531, 3) if row not in SOME)]
)
def test_every_setting_is_read_by_its_hall_symbol_and_never_as_another(row):
    case = Case(row)
    setting = case.setting
    hall, _ = read(case.text(hall=setting.hall))
    assert hall is not None
    assert case.is_in(hall)
    evidence = {"formula": "Si O", "units": str(case.n)}
    kind = spglib.get_spacegroup_type(row)
    for stated in (
        {"symbol": setting.name},
        {"symbol": setting.name, **evidence},
        {"symbol": setting.symbol},
        {"alt": kind.international_full, **evidence},
        {"symbol": setting.symbol, "code": kind.choice or "."},
        {"number": str(setting.number), **evidence},
        {"number": str(setting.number)},
    ):
        found, reason = read(case.text(**stated))
        if found is None:
            assert "may be" in reason, (stated, reason)
            assert "symmetry operations" in reason
        else:
            assert case.is_in(found), stated


@pytest.mark.slow
def test_few_symbols_leave_it_open():
    """With the choice behind it, a symbol is one setting, but for those that the tables print twice."""
    refused = []
    for row in range(1, 531):
        case = Case(row)
        if read(case.text(symbol=case.setting.name))[0] is None:
            refused.append(case.setting.symbol)
    assert set(refused) <= {"C m m e", "A e m m", "B m e m", "C c c e", "A e a a", "B b e b"}


R_GROUPS = ("R 3", "R -3", "R 3 2", "R 3 m", "R 3 c", "R -3 m", "R -3 c")


@pytest.mark.parametrize("symbol", R_GROUPS)
@pytest.mark.parametrize("choice", ["H", "R"])
def test_the_axes_of_a_rhombohedral_group_are_seen_from_the_cell(symbol, choice):
    (row,) = [i for i, one in enumerate(settings(), 1) if one.symbol == symbol and one.choice == choice]
    case = Case(row)
    for name in (
        symbol,
        symbol.replace(" ", ""),
        f"{symbol} :{choice}",
        f"{symbol} {choice}",
        f"{symbol}:{choice.lower()}",
    ):
        found, reason = read(case.text(symbol=name))
        assert found is not None, reason
        assert case.is_in(found)
    other = "H" if choice == "R" else "R"
    assert "contradicts the space group" in read(case.text(symbol=f"{symbol} :{other}"))[1]


# Crystals that were read as others.

RHOMBOHEDRAL = {
    "LiNbO3": ((5.49, 5.49, 5.49, 55.9, 55.9, 55.9), "R 3 c", "Nb 0 0 0; Li .28 .28 .28; O .11 .35 -.28", "Li2Nb2O6"),
    "bismuth": ((4.746, 4.746, 4.746, 57.23, 57.23, 57.23), "R -3 m", "Bi .234 .234 .234", "Bi2"),
    "corundum": ((5.128, 5.128, 5.128, 55.28, 55.28, 55.28), "R -3 c", "Al .352 .352 .352; O .556 .944 .25", "Al4O6"),
    "arsenic": ((3.9, 3.9, 3.9, 60, 60, 60), "R -3 m :R", "As .22 .22 .22", "As2"),
}


@pytest.mark.parametrize("name", RHOMBOHEDRAL)
def test_rhombohedral_axes(name):
    cell, symbol, sites, expected = RHOMBOHEDRAL[name]
    assert contents(block(cell, sites, symbol=symbol)) == expected


CUBE = (5.431, 5.431, 5.431, 90, 90, 90)
SPINEL = (8.08, 8.08, 8.08, 90, 90, 90)


@pytest.mark.parametrize(
    ("sites", "stated", "expected"),
    [
        ("Si .125 .125 .125", {"formula": "Si", "units": "8"}, "Si8"),
        ("Si .125 .125 .125", {"formula": "Si8", "units": "8"}, "Si8"),  # as pymatgen writes it
        ("Si .125 .125 .125", {"density": "2.33"}, "Si8"),
        ("Si 0 0 0", {"formula": "Si", "units": "8"}, "Si8"),
        ("Si 0 0 0", {}, "may be F d -3 m :1 (Si8) or F d -3 m :2 (Si16)"),
        ("Si 0 0 0", {"formula": "Si", "units": "5"}, "no reading of F d -3 m agrees"),
        ("Si .125 .125 .125", {"symbol": "F d -3 m :1", "formula": "Si", "units": "8"}, "no reading of F d -3 m :1"),
        ("Si .125 .125 .125", {"symbol": "F d -3 m Z"}, "Si8"),
        ("Si 0 0 0", {"symbol": "F d -3 m S"}, "Si8"),
        ("Si 0 0 0", {"symbol": "Fd-3m (origin choice 1)"}, "Si8"),
        ("Si 0 0 0", {"symbol": "F d 3 m", "code": "1"}, "Si8"),
        ("Si 0 0 0", {"alt": "F d -3 m :1"}, "Si8"),
        ("Si 0 0 0", {"number": "227", "hall": "F 4d 2 3 -1d"}, "Si8"),
        ("Si 0 0 0", {"volume": "40.05", "formula": "Si", "units": "8"}, "the file states 40.05"),
    ],
)
def test_the_origin_is_told_by_what_else_is_stated(sites, stated, expected):
    said = contents(block(CUBE, sites, **({"symbol": "F d -3 m"} | stated)))
    assert said == expected or expected in said


@pytest.mark.parametrize(
    ("place", "oxygen"), [(("0 0 0", ".625 .625 .625"), ".3875"), (("0.125 0.125 0.125", ".5 .5 .5"), ".2624")]
)
def test_a_spinel_of_either_origin_has_56_atoms(place, oxygen):
    sites = f"Mg {place[0]}; Al {place[1]}; O {oxygen} {oxygen} {oxygen}"
    found, reason = read(block(SPINEL, sites, symbol="F d -3 m", formula="Al2 Mg O4", units="8"))
    assert found is not None, reason
    assert found.composition.formula == "Mg8 Al16 O32"
    distances = [
        found.get_distance(i, j)
        for i, a in enumerate(found)
        for j, b in enumerate(found)
        if a.specie.symbol == "Al" and b.specie.symbol == "O"
    ]
    assert min(distances) == pytest.approx(1.93, abs=0.02)  # Al-O of spinel


def test_multiplicities_tell_origins_apart():
    text = block(CUBE, "Si 0 0 0", symbol="F d -3 m")
    for multiplicity, expected in (("8", "Si8"), ("16", "Si16"), ("5", "no reading")):
        told = text.replace("_atom_site_fract_x", "_atom_site_symmetry_multiplicity\n_atom_site_fract_x")
        assert expected in contents(told.replace("Si0 Si ", f"Si0 Si {multiplicity} "))


def test_a_cell_of_another_system_is_refused():
    for cell in ((4.2, 4.2, 5.0, 90, 90, 90), (4.2, 4.2, 4.2, 90, 92, 90), (4.2, 4.3, 4.2, 90, 90, 90)):
        said = contents(block(cell, "Na 0 0 0; Cl .5 .5 .5", symbol="F m -3 m"))
        assert "the cell contradicts the space group F m -3 m" in said
    assert contents(block((4.2, 4.2, 4.2002, 90, 90, 90), "Na 0 0 0; Cl .5 .5 .5", symbol="F m -3 m")) == "Na4Cl4"


def test_listed_operations_are_checked_against_the_cell():
    text = (
        block((4.2, 4.2, 5.0, 90, 90, 90), "Na .1 .2 .3")
        + "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'y,z,x'\n'z,x,y'\n"
    )
    assert "the symmetry operations contradict the cell" in contents(text)
    assert contents(text.replace("length_c 5.0", "length_c 4.2")) == "Na3"


MONO = (4.0, 5.0, 6.0, 90, 110, 90)
MONO_C = (4.0, 5.0, 6.0, 90, 90, 110)
SALT = "Na .2 .3 0; Cl .7 .6 .5"


@pytest.mark.parametrize("symbol", ["P 1 1 2/m", "P 2/m", "P2/m", "P 2/m :c"])
def test_the_unique_axis_is_seen_from_the_cell(symbol):
    assert contents(block(MONO_C, SALT, symbol=symbol)) == "Na2Cl2"
    assert contents(block(MONO_C, SALT, number="10")) == "Na2Cl2"


def test_a_short_symbol_in_right_angles_means_the_axis_b():
    right = (4.0, 5.0, 6.0, 90, 90, 90)
    assert contents(block(right, "Na .2 0 .3; Cl .7 .5 .6", symbol="P 2/m")) == "Na2Cl2"
    assert contents(block(right, SALT, number="10")) == "Na2Cl2"  # elsewhere sodium is 1.6 Angstrom from sodium
    assert "may be" in contents(block((8.0, 10.0, 12.0, 90, 90, 90), SALT, number="10"))


@pytest.mark.parametrize(
    "symbol",
    ["P 21/c", "P21/c", "P2_1/c", "P 1 21/c 1", "P2(1)/c", "P 2<sub>1</sub>/c", "P 21/C", "p 21/c", "P 1 2_1/c 1"],
)
def test_spellings_of_one_symbol(symbol):
    assert (
        contents(block((5.1, 5.2, 5.3, 90, 99, 90), "Zr .275 .04 .21; O .07 .33 .345; O .45 .757 .479", symbol=symbol))
        == "Zr4O8"
    )


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("F m 3 m", "Na4Cl4"),
        ("Fm3m", "Na4Cl4"),
        ("F M -3 M", "Na4Cl4"),
        ("F 4/m -3 2/m", "Na4Cl4"),
        ("P m 3 m", "NaCl"),
        ("225", "Na4Cl4"),
        ("-F 4 2 3", "Na4Cl4"),
        ("Fm-3m (225)", "Na4Cl4"),
    ],
)
def test_symbols_of_cubic_groups(symbol, expected):
    said = contents(block((5.64, 5.64, 5.64, 90, 90, 90), "Na 0 0 0; Cl .5 .5 .5", symbol=symbol))
    assert said == expected.replace("NaCl", "Na1Cl1")


def test_names_of_before_1992_and_centred_triclinic_cells():
    right = (4.0, 5.0, 6.0, 90, 90, 90)
    for symbol in ("C m c a", "C m c e"):
        assert contents(block((7, 8, 9, 90, 90, 90), "Ga 0 .15 .08", symbol=symbol)) == "Ga8"
    assert contents(block((8.2, 12.9, 14.2, 93, 116, 91), "Ca .1 .2 .3", symbol="I -1")) == "Ca4"
    assert contents(block(right, "Na .1 .2 .3", symbol="C m m b")) != contents(
        block(right, "Na 0 .2 .3", symbol="C m m a")
    )


def test_what_the_file_says_twice_must_agree():
    said = contents(block(CUBE, "Si 0 0 0", symbol="F m -3 m", number="227"))
    assert "names two space groups or settings" in said
    assert contents(block(CUBE, "Si 0 0 0", symbol="F m -3 m", number="225")) == "Si4"
    assert "isn't known" in contents(block(CUBE, "Si 0 0 0", symbol="F 4/m -9", number="225"))


def test_without_any_symmetry_the_sites_are_all_there_are():
    assert contents(block(CUBE, "Si 0 0 0")) == "Si1"
    assert contents(block(CUBE, "Si 0 0 0", symbol="?", number=".")) == "Si1"
    said = contents(block(CUBE, "Si 0 0 0", formula="Si", units="8"))
    assert "no symmetry is stated" in said
    assert "Z = 8" in said


def test_an_empty_list_of_operations_lists_none():
    empty = "_symmetry_equiv_pos_as_xyz ?\n"
    assert contents(block(CUBE, "Si 0 0 0", symbol="F m -3 m") + empty) == "Si4"
    assert contents(block(CUBE, "Si 0 0 0", symbol="F m -3 m") + f"loop_\n{empty.replace(' ', chr(10))}") == "Si4"


def test_the_metric_of_a_cell():
    rotation = np.array([[[0, 1, 0], [0, 0, 1], [1, 0, 0]]])
    assert keeps_metric(rotation, 4.2 * np.eye(3))
    assert not keeps_metric(rotation, np.diag([4.2, 4.2, 4.3]))


def test_the_same_crystal_is_read_whatever_lists_it():
    """A quick look that entries of plain and of parsed files agree."""
    cell, symbol, sites, _ = RHOMBOHEDRAL["corundum"]
    by_symbol = read_cif(block(cell, sites, symbol=symbol), "x", "x")[0]
    by_hall = read_cif(block(cell, sites, hall="-P 3* 2n"), "x", "x")[0]
    assert isinstance(by_symbol, Entry)
    assert isinstance(by_hall, Entry)
    hashes = pulled_from_entries([by_symbol, by_hall]).structures.hashes
    assert hashes[0] == hashes[1]


IDENTITY = "\nloop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n"
WHOLE = "Mg 0 0 0; Mg 0 .5 .5; Mg .5 0 .5; Mg .5 .5 0; O .5 .5 .5; O .5 0 0; O 0 .5 0; O 0 0 .5"


@pytest.mark.parametrize(
    ("cell", "sites", "contents"),
    [
        (CUBIC_42, "Mg 0 0 0; O .5 .5 .5", None),  # the operations got lost: a sixteenth of the density
        (CUBIC_42, WHOLE, "Mg4 O4"),
        (CUBIC_42, WHOLE.replace("O .5 .5 .5", "O .52 .5 .49"), "Mg4 O4"),  # relaxed since
        (CUBIC_42, WHOLE.replace("Mg .5 .5 0", "Ca .5 .5 0"), "Ca1 Mg3 O4"),  # an order on the places of the group
        ((2.97, 2.97, 2.97, 60, 60, 60), "Mg 0 0 0; O .5 .5 .5", "Mg1 O1"),  # the primitive cell of the group
    ],
)
def test_a_group_with_only_the_identity_listed_is_whole_or_refused(cell, sites, contents):
    structure, reason = read(block(cell, sites, symbol="F m -3 m") + IDENTITY)
    if contents is None:
        assert structure is None
        assert "lists x, y, z alone, but not all of the sites" in reason
    else:
        assert structure is not None
        assert structure.composition.formula == contents


def test_a_symbol_in_latex_is_known():
    structure, _ = read(block(CUBIC_42, "Mg 0 0 0; O .5 .5 .5", symbol=r"F m \bar{3} m"))
    assert structure is not None
    assert len(structure) == 8
