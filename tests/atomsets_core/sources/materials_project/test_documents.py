"""Documents to columns, names of numbers, options of a query."""

import typing
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.identifiers import normalise
from atomsets_core.sources.materials_project import fields
from atomsets_core.sources.materials_project.client import _seconds
from atomsets_core.sources.materials_project.documents import read_documents, updated
from atomsets_core.sources.materials_project.fields import column
from atomsets_core.sources.materials_project.query import MaterialsQuery
from atomsets_core.structures.reading import from_pymatgen

NACL = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def document(structure=NACL, name="mp-22862", **more):
    return {"material_id": name, "structure": structure and structure.as_dict(), **more}


def test_a_structure_is_what_pymatgen_makes_of_it():
    triclinic = Structure(Lattice.from_parameters(3, 4, 5, 80, 95, 110), ["Fe3+", "O"], [[0.1, -0.2, 1.3], [0, 0.5, 0]])
    found = read_documents([document(), document(triclinic, "mp-1")], [])
    expected, _ = from_pymatgen([NACL, triclinic], ["mp-22862", "mp-1"])
    assert found.table.equals(expected.to_arrow())


def test_what_can_not_be_used_is_refused_by_name():
    mixed = NACL.copy()
    mixed.replace_species({"Na": {"Na": 0.5, "K": 0.5}})
    flat = document(name="mp-4")
    flat["structure"]["lattice"]["matrix"][2] = [0, 0, 0]
    strange = document(name="mp-5")
    strange["structure"]["sites"][0]["species"][0]["element"] = "Xx"
    broken = document(name="mp-7")
    del broken["structure"]["sites"][0]["abc"]
    documents = [
        document(),
        document(mixed, "mp-2"),
        document(None, "mp-3"),
        flat,
        strange,
        document(name="mp-6"),
        broken,
    ]
    found = read_documents(documents, [column("band_gap")])
    assert found.table["material_id"].to_pylist() == ["mp-22862", "mp-6"]
    assert found.ids == ["mp-22862", "mp-2", "mp-3", "mp-4", "mp-5", "mp-6", "mp-7"]
    reasons = {refusal.material_id: refusal.reason for refusal in found.refused}
    assert set(reasons) == {"mp-2", "mp-3", "mp-4", "mp-5", "mp-7"}
    assert reasons["mp-2"].startswith("partial occupancy (")
    assert reasons["mp-3"] == "the document has no structure"
    assert "no volume" in reasons["mp-4"]
    assert reasons["mp-5"] == "unknown element 'Xx'"
    assert reasons["mp-7"] == "'abc' is missing"


def test_numbers_stand_in_their_rows_and_nothing_is_made_up():
    names = ["k_vrh", "is_metal", "band_gap", "symmetry.number"]
    documents = [
        document(name="mp-1", bulk_modulus={"vrh": 24.5}, is_metal=False, band_gap=5, symmetry={"number": 225}),
        document(None, name="mp-2", band_gap=1.0),
        document(name="mp-3", bulk_modulus=None, band_gap="wide", is_metal=1),
    ]
    table = read_documents(documents, [column(name) for name in names]).table.select(names)
    assert table.to_pydict() == {
        "k_vrh": [24.5, None],
        "is_metal": [False, None],
        "band_gap": [5.0, None],
        "symmetry.number": [225.0, None],
    }


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("mp-8039", "mp-8039"),
        ("mp-lxf", "mp-8039"),
        ("mp-aaaaalxf", "mp-8039"),
        ("mp-3347529", "mp-3347529"),
        ("mp-itpee", "mp-itpee"),
        ("mvc-12", "mvc-12"),
    ],
)
def test_an_identifier_has_one_spelling(sent, meant):
    assert normalise(sent) == meant
    assert normalise(normalise(sent)) == meant


def test_dates_of_both_kinds():
    assert updated({"last_updated": {"$date": "2025-01-01T00:00:00.000Z"}}) == "2025-01-01T00:00:00.000Z"
    assert updated({"last_updated": "2025-01-01"}) == "2025-01-01"
    assert updated({}) == updated({"last_updated": None}) == ""


def test_the_server_may_ask_to_wait_in_seconds_or_until_a_date():
    assert _seconds("7") == 7
    date = datetime.now(UTC) + timedelta(seconds=90)
    assert 85 < _seconds(f"{date:%a, %d %b %Y %H:%M:%S} GMT") <= 90
    assert _seconds("soon") is _seconds(None) is None


def number_at(model, path):
    """The type at the end of a path through a pydantic model."""
    field = model.model_fields[path[0]]
    choices = [kind for kind in (field.annotation, *typing.get_args(field.annotation)) if kind is not type(None)]
    if len(path) == 1:
        return set(choices)
    inner = [kind for kind in choices if isinstance(kind, type) and hasattr(kind, "model_fields")]
    return number_at(inner[0], path[1:]) if inner else {float for kind in choices if "float" in str(kind)}


def test_every_number_that_can_be_asked_for_is_in_the_documents_of_the_client():
    from emmet.core.elasticity import ElasticityDoc
    from emmet.core.polar import DielectricDoc
    from emmet.core.summary import SummaryDoc

    models = {"summary": SummaryDoc, "elasticity": ElasticityDoc, "dielectric": DielectricDoc}
    for name in fields.known_fields():
        found = column(name)
        kinds = number_at(models[found.endpoint], found.path)
        assert kinds & ({bool} if found.is_flag else {float, int}), name
    # and the other way round: no number of the summary is left out
    numeric = {
        name
        for name, field in SummaryDoc.model_fields.items()
        if {float, int} & {field.annotation, *typing.get_args(field.annotation)}
    }
    assert numeric <= {column(name).path[0] for name in fields.known_fields() if "." not in name}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"elements": ["Xx"]}, "'Xx' is not an element"),
        ({"chemsys": ["Fe2O3"]}, "not a chemical system"),
        ({"chemsys": ["Fe-*", "Fe-O"]}, "wildcard must be the only one"),
        ({"nsites": {"min": 5, "max": 4}}, "min 5 is above max 4"),
        ({"nsites": {}}, "give min, max or both"),
        ({"fields": ["bandgap"]}, "no number 'bandgap'; did you mean band_gap"),
        ({"fields": ["elasticity.n"]}, "no number 'elasticity.n'; did you mean"),
        ({"elements": ["O"], "exclude_elements": ["O"]}, "both wanted and excluded"),
        ({"api_key": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_a_query_that_can_not_be(options, said):
    with pytest.raises(ValidationError, match=said):
        MaterialsQuery(**options)


def test_at_least_one_of_three_is_three_disjoint_searches():
    parts = MaterialsQuery(any_elements=["O", "S", "Se"], exclude_elements=["H"]).parts()
    assert [(part["elements"], part["exclude_elements"]) for part in parts] == [
        ("O", "H"), ("S", "H,O"), ("Se", "H,O,S"),
    ]  # fmt: skip
    assert all(part["deprecated"] is False and part["batch_id_not_eq"] == "gnome_r2scan_statics" for part in parts)
