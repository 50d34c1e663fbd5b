"""The data sets of the package are whole, in the units they claim, and say where they are from."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import numpy as np
import pytest
from pymatgen.core import Composition

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.embedded import DATASETS, load_dataset, load_elastic, load_flla
from atomsets_core.sources.pull import pull

ROWS = {"elastic": 1181, "flla": 3938}


@pytest.fixture(scope="module", params=ROWS)
def dataset(request: pytest.FixtureRequest) -> tuple[str, Pulled]:
    return request.param, load_dataset(request.param)


def row(pulled: Pulled, material_id: str) -> dict:
    (position,) = np.flatnonzero(pulled.structures.material_id == material_id)
    return {
        "formula": pulled.structures.formulas[position],
        "n_atoms": int(pulled.structures.n_atoms[position]),
        **pulled.columns.iloc[position].to_dict(),
    }


def test_every_row_is_accepted(dataset: tuple[str, Pulled]):
    name, pulled = dataset
    assert len(pulled.structures) == len(pulled.columns) == pulled.n_seen == ROWS[name]
    assert pulled.refused == []
    assert len(set(pulled.structures.material_id)) == ROWS[name]
    assert all(re.fullmatch(r"mp-\d+", str(name)) for name in pulled.structures.material_id)


def test_every_column_has_a_unit_and_every_value_is_there(dataset: tuple[str, Pulled]):
    name, pulled = dataset
    assert set(pulled.columns.columns) == set(DATASETS[name].units) == set(pulled.provenance["units"])
    assert np.isfinite(pulled.columns.to_numpy(dtype=float)).all()


def test_provenance_names_source_licence_and_the_very_file(dataset: tuple[str, Pulled]):
    name, pulled = dataset
    data = resources.files("atomsets_core").joinpath("data", DATASETS[name].file).read_bytes()
    assert pulled.provenance["sha256"] == hashlib.sha256(data).hexdigest()
    assert pulled.provenance["name"] == f"embedded:{name}"
    assert pulled.provenance["doi"].startswith("10.")
    assert pulled.provenance["licence"].startswith("CC BY 4.0")
    assert f"{ROWS[name]:,}" in pulled.provenance["title"]
    assert pulled.provenance["citation"]


def test_structures_are_dense_matter(dataset: tuple[str, Pulled]):
    structures = dataset[1].structures
    volume = np.abs(np.linalg.det(structures.lattice)) / structures.n_atoms
    # cubic Angstrom an atom: diamond has 5.7, caesium 110
    assert volume.min() > 4
    assert volume.max() < 250


def test_known_elastic_tensors():
    pulled = load_elastic()
    found = row(pulled, "mp-10003")
    assert (found["formula"], found["n_atoms"]) == ("Nb4CoSi", 12)
    assert found["K_VRH"] == pytest.approx(194.269, abs=5e-4)
    stiffest = pulled.columns["K_VRH"].idxmax()
    # diamond: Voigt-Reuss-Hill bulk modulus 443 GPa by experiment, 436 with PBE
    assert pulled.structures.formulas[stiffest] == "C"
    assert pulled.columns["K_VRH"][stiffest] == pytest.approx(435.66, abs=0.01)


def test_elastic_columns_obey_the_laws_of_elasticity():
    c = load_elastic().columns
    for modulus in ("K", "G"):
        voigt, reuss, hill = (c[f"{modulus}_{kind}"] for kind in ("Voigt", "Reuss", "VRH"))
        # Hill (1952): Voigt is an upper bound, Reuss a lower, and their mean is the estimate
        assert (voigt >= reuss - 1e-3).all()
        np.testing.assert_allclose((voigt + reuss) / 2, hill, atol=1e-3)
    poisson = (3 * c.K_VRH - 2 * c.G_VRH) / (6 * c.K_VRH + 2 * c.G_VRH)
    np.testing.assert_allclose(poisson, c.poisson_ratio, atol=1e-3)
    anisotropy = 5 * c.G_Voigt / c.G_Reuss + c.K_Voigt / c.K_Reuss - 6
    np.testing.assert_allclose(anisotropy, c.elastic_anisotropy, rtol=1e-3, atol=1e-3)
    assert c.space_group.between(1, 230).all()


def test_energies_above_the_hull_are_not_negative_and_elements_on_it_form_from_nothing():
    pulled = load_flla()
    assert (pulled.columns["e_above_hull"] >= 0).all()
    single = np.array([len(Composition(formula)) == 1 for formula in pulled.structures.formulas])
    stable = single & (pulled.columns["e_above_hull"] == 0)
    assert stable.sum() > 10
    np.testing.assert_allclose(pulled.columns["formation_energy_per_atom"][stable], 0, atol=1e-6)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(SourceError, match="no embedded data set 'elastics'; there are elastic, dielectric, moduli"):
        load_dataset("elastics")
    assert len(pull("embedded:elastic").structures) == 1181


def test_formulas_have_the_modulus_of_their_most_stable_crystal():
    pulled, crystals, tensors = load_dataset("moduli"), load_flla(), load_elastic()
    assert pulled.n_seen == len(set(pulled.structures.formulas)) == 206
    assert list(pulled.structures.formulas) == sorted(pulled.structures.formulas)
    modulus = dict(zip(tensors.structures.material_id, tensors.columns["K_VRH"], strict=True))
    hull = crystals.columns["e_above_hull"].to_numpy()
    names = list(pulled.structures.material_id)
    for name, formula, row in zip(names, pulled.structures.formulas, pulled.columns.itertuples(), strict=True):
        assert modulus[name] == row.K_VRH
        assert row.e_above_hull == hull[crystals.structures.formulas == formula].min()
