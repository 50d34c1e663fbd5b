"""Candidates made by substitution: usual, neutral, new, of a sane size, and the same every time."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionPredictor
from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor, RLSVolumePredictor
from pymatgen.core import Composition, Element, Lattice, Species, Structure

from atomsets_core.sources import substitution
from atomsets_core.sources.base import Entry, Pulled, SourceError, pulled_from_entries
from atomsets_core.sources.embedded import load_flla
from atomsets_core.sources.pull import pull
from atomsets_core.sources.substitution import Options, assign_ions, contacts_of, substitute, substitutions

smact = pytest.importorskip("smact.screening")

ROCK_SALT = (("O", 1), ("Mg", 1))


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Structure(Lattice.cubic(a), [cation] * 4 + [anion] * 4, [*corners, *((corners + np.array([0.5, 0, 0])) % 1)])


def sample(n: int) -> Pulled:
    data = load_flla()
    rows = np.arange(0, len(data.structures), len(data.structures) // n)
    return Pulled(data.structures.take(rows), data.columns.iloc[rows].reset_index(drop=True), [], data.provenance)


@pytest.fixture(scope="module")
def prototypes() -> Pulled:
    return sample(300)


@pytest.fixture(scope="module")
def made(prototypes) -> Pulled:
    return substitute(prototypes, Options(count=120))


def ions_of(composition) -> dict[str, int]:
    table = substitution._table()
    ions = assign_ions(composition)
    return {symbol: int(table.charges[ion]) for (symbol, _), ion in zip(composition, ions, strict=True)}


def test_ions_are_those_of_textbooks():
    assert ions_of((("O", 3), ("Ti", 1), ("Sr", 1))) == {"O": -2, "Ti": 4, "Sr": 2}
    assert ions_of((("Cl", 1), ("Na", 1))) == {"Cl": -1, "Na": 1}
    assert ions_of((("O", 3), ("Fe", 2))) == {"O": -2, "Fe": 3}
    assert ions_of((("Li", 1), ("O", 4), ("P", 1), ("Fe", 1))) == {"Li": 1, "O": -2, "P": 5, "Fe": 2}
    assert assign_ions((("Al", 1), ("Ni", 3))) is None
    assert assign_ions((("O", 4), ("Fe", 3))) is None  # mixed valence
    assert assign_ions((("Si", 1),)) is None


@pytest.mark.parametrize("changes", [1, 2])
def test_substitutions_and_probabilities_are_those_of_pymatgen(changes):
    threshold = 2e-3
    theirs = {}
    old = [Species("O", -2), Species("Mg", 2)]
    for found in SubstitutionPredictor(threshold=threshold).list_prediction(old):
        new = {to: ion for ion, to in found["substitutions"].items()}
        oxide, cation = (new[ion] for ion in old)
        changed = [(a.symbol, b.symbol) for a, b in zip(old, (oxide, cation), strict=True) if a != b]
        neutral = oxide.oxi_state + cation.oxi_state == 0 and oxide.symbol != cation.symbol
        if neutral and 0 < len(changed) <= changes and all(a != b for a, b in changed):
            theirs[frozenset(changed)] = found["probability"]
    ours = substitutions(ROCK_SALT, Options(threshold=threshold, changes=changes))
    assert {frozenset(zip(item.old, item.new, strict=True)): item.probability for item in ours} == pytest.approx(theirs)
    assert len(ours) > 10
    assert [item.probability for item in ours] == sorted((item.probability for item in ours), reverse=True)
    assert all(len(item.old) <= changes for item in ours)


def test_elements_can_be_prescribed_and_forbidden():
    allowed = substitutions(ROCK_SALT, Options(elements=["O", "Mg", "Ca", "Ni"], threshold=1e-4))
    assert {item.new for item in allowed} <= {("Ca",), ("Ni",)}
    assert allowed
    assert not substitutions(ROCK_SALT, Options(elements=["Mg", "Ca"], threshold=1e-4))  # the oxygen stays
    forbidden = substitutions(ROCK_SALT, Options(exclude_elements=["Ni"], threshold=1e-4))
    assert all("Ni" not in item.new for item in forbidden)


def test_candidates_say_where_they_come_from(prototypes, made):
    assert len(made.structures) == 120
    of_name = {name: row for row, name in enumerate(prototypes.structures.material_id)}
    columns = made.columns.to_dict("records")
    for name, row in zip(made.structures.material_id, columns, strict=True):
        assert name == f"{row['prototype']}:{row['substitution']}"
        old, _, new = row["substitution"].partition(">")
        parent = prototypes.structures.take([of_name[row["prototype"]]])
        child = made.structures.take([made.structures.material_id.tolist().index(name)])
        assert np.array_equal(parent.numbers == Element(old).Z, child.numbers == Element(new).Z)
        assert np.array_equal(parent.frac, child.frac)
        ratio = np.linalg.det(child.lattice[0]) / np.linalg.det(parent.lattice[0])
        assert ratio == pytest.approx(row["volume_scale"])
        assert row["substitution_probability"] >= 1e-3
    probabilities = made.columns["substitution_probability"].to_numpy()
    assert (np.diff(probabilities) <= 0).all()


def test_candidates_are_neutral_and_pass_smact(made):
    for formula in set(made.structures.formulas):
        composition = Composition(formula)
        reduced = tuple((element.symbol, int(amount)) for element, amount in composition.items())
        charges = ions_of(reduced)
        assert sum(charges[symbol] * amount for symbol, amount in reduced) == 0
        assert smact.smact_validity(composition, include_alloys=False)


def test_what_smact_refuses_is_not_made(prototypes, monkeypatch):
    monkeypatch.setattr(substitution, "_composition_check", lambda: lambda formula: "S" not in Composition(formula))
    pulled = substitute(prototypes, Options(count=60))
    assert pulled.provenance["generated"]["refused by smact"] > 0
    assert all(Element("S").Z not in pulled.structures.take([i]).numbers for i in range(len(pulled.structures)))


def test_candidates_have_sane_volumes_and_no_atoms_overlap(made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for crystal in made.structures.to_pymatgen():
            distances = crystal.distance_matrix + 100 * np.eye(len(crystal))
            assert distances.min() > 0.7
            predicted = DLSVolumePredictor(min_scaling=None, max_scaling=None).predict(crystal)
            assert 0.4 < crystal.volume / predicted < 2.5
            assert 3 < crystal.volume / len(crystal) < 100


def test_candidates_are_new_and_unlike_each_other(prototypes, made):
    matcher = StructureMatcher()
    known = prototypes.structures.to_pymatgen()
    new = made.structures.to_pymatgen()
    by_formula: dict[str, list[Structure]] = {}
    for formula, crystal in zip(made.structures.formulas, new, strict=True):
        by_formula.setdefault(formula, []).append(crystal)
    for formula, crystals in by_formula.items():
        old = [known[row] for row in np.flatnonzero(prototypes.structures.formulas == formula)]
        for a, b in [*itertools.combinations(crystals, 2), *itertools.product(crystals, old)]:
            groups = [crystal.get_space_group_info(symprec=0.1)[1] for crystal in (a, b)]
            volumes = sorted(crystal.volume / len(crystal) for crystal in (a, b))
            if groups[0] == groups[1] and volumes[1] < 1.2 * volumes[0]:
                assert not matcher.fit(a, b)


def test_what_exists_already_is_a_row_that_names_it():
    entries = [Entry("mp-1", rock_salt("Mg", "O", 4.21)), Entry("mp-2", rock_salt("Ca", "O", 4.81))]
    pulled = substitute(pulled_from_entries(entries), Options(elements=["Mg", "Ca", "O"]))
    assert not len(pulled.structures)
    assert {refusal.material_id: refusal.reason for refusal in pulled.refused} == {
        "mp-1:Mg>Ca": "duplicate of mp-2, which was there before: the same crystal",
        "mp-2:Ca>Mg": "duplicate of mp-1, which was there before: the same crystal",
    }
    alone = substitute(pulled_from_entries(entries[:1]), Options(elements=["Mg", "Ca", "O"]))
    assert list(alone.structures.material_id) == ["mp-1:Mg>Ca"]
    assert np.cbrt(np.linalg.det(alone.structures.lattice[0])) == pytest.approx(4.81, rel=0.03)


def test_volumes_follow_pymatgens_predictors():
    magnesia = pulled_from_entries([Entry("m", rock_salt("Mg", "O", 4.21))]).structures
    (item,) = substitutions(ROCK_SALT, Options(elements=["O", "Mg", "Ni"], threshold=1e-4))
    old, new = rock_salt("Mg2+", "O2-", 4.21), rock_salt("Ni2+", "O2-", 4.21)
    theirs = RLSVolumePredictor(check_isostructural=False).predict(new.to_primitive(), old.to_primitive())
    scale = substitution.volume_scale(contacts_of(magnesia, 0), (("O", 1), ("Mg", 1)), item)
    assert scale == pytest.approx(theirs / old.to_primitive().volume)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = sample(20).structures
        for row, crystal in enumerate(batch.to_pymatgen()):
            contacts = contacts_of(batch, row)
            predicted = DLSVolumePredictor(min_scaling=None, max_scaling=None).predict(crystal)
            assert contacts.tightness(contacts.elements) ** -3 == pytest.approx(predicted / crystal.volume, rel=1e-6)


def test_the_same_arguments_give_the_same_candidates_and_a_seed_draws_others(prototypes):
    first, again = (substitute(prototypes, Options(count=30)) for _ in range(2))
    drawn, redrawn = (substitute(prototypes, Options(count=30, seed=1)) for _ in range(2))
    assert list(first.structures.hashes) == list(again.structures.hashes)
    assert list(drawn.structures.hashes) == list(redrawn.structures.hashes)
    assert set(first.structures.material_id) != set(drawn.structures.material_id)
    assert drawn.columns["substitution_probability"].mean() < first.columns["substitution_probability"].mean()


def test_counts_add_up_and_limits_hold(prototypes, made):
    counts = made.provenance["generated"]
    assert counts["prototypes"] == len(prototypes.structures)
    assert counts["candidates"] == len(made.structures)
    assert counts["duplicates"] == len(made.refused)
    small = substitute(prototypes, Options(count=1000, max_atoms=4, threshold=0.02))
    assert (small.structures.n_atoms <= 4).all()
    assert small.provenance["generated"]["prototypes too large"] == int((prototypes.structures.n_atoms > 4).sum())


def test_as_a_source_it_takes_any_other_and_says_what_is_wrong(tmp_path, monkeypatch):
    rock_salt("Mg", "O", 4.21).to(tmp_path / "magnesia.cif")
    pulled = pull(f"substitute:{tmp_path}", substitution=Options(elements=["Mg", "Ni", "O"]))
    assert list(pulled.structures.material_id) == ["magnesia:Mg>Ni"]
    with pytest.raises(SourceError, match="'Xx' is no element"):
        pull(f"substitute:{tmp_path}", substitution=Options(elements=["Xx"]))
    with pytest.raises(SourceError, match="no such file"):
        pull("substitute:nowhere")
    monkeypatch.setitem(__import__("sys").modules, "smact.screening", None)
    with pytest.raises(SourceError, match=r"atomsets-screening\[generate\]"):
        pull(f"substitute:{tmp_path}")
